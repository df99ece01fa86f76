#!/usr/bin/env bash
# One host with one or more GPUs: one process, which uses all of them.
#   launch/gpu_host.sh --config=configs/imagenet_slerp.py --workdir=runs/slerp
#   COMMAND="prepare latents" launch/gpu_host.sh --config=configs/imagenet_slerp.py --out=caches/I
# IMAGE=NAME runs it in a container of launch/Dockerfile.gpu, with the folders of MOUNTS ("/data
# /runs") at the same paths. Started again where it was killed; see docs/launch.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh
if ! command -v nvidia-smi >/dev/null; then
  refuse "there is no nvidia-smi here: install the NVIDIA driver first"
fi
if [[ ${CUDA_VISIBLE_DEVICES:-} ]]; then
  gpus=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
else
  gpus=$(nvidia-smi -L | grep -c '^GPU') || true
fi
((gpus)) || refuse "nvidia-smi lists no GPU: check the driver"
compiled=$(compiled_folder "$@")
export JAX_COMPILATION_CACHE_DIR=$compiled
if [[ ${IMAGE:-} ]]; then
  command -v docker >/dev/null || refuse "there is no docker here; leave IMAGE out to run without"
  start=(docker run --rm --init --gpus all --ipc=host --env CUDA_VISIBLE_DEVICES
    --env JAX_COMPILATION_CACHE_DIR --env XLA_FLAGS --env HOME=/tmp
    --user "$(id -u):$(id -g)" --volume "$PWD:$PWD" --workdir "$PWD")
  for folder in ${MOUNTS:-}; do start+=(--volume "$folder:$folder"); done
  start+=("$IMAGE" python -m)
else
  use_python gpu
  start=("$PYTHON" -m)
fi
until_done "${start[@]}" sphere_jax.preflight --hosts=1 --devices_per_host="$gpus" --platform=gpu "$@"
if [[ $stopping ]] && ((code == 0)); then exit 130; fi # it had just finished
((code == 0)) || exit "$code"
read -ra command <<<"${COMMAND:-main}" # may be two words
until_done "${start[@]}" "sphere_jax.${command[0]}" "${command[@]:1}" "$@"
exit "$code"
