#!/usr/bin/env bash
# The same run in several processes of this machine, as a rehearsal for a pod or for several GPUs.
#   launch/local_processes.sh 2 --config=configs/mnist_slerp.py --workdir=runs/two
#   COMMAND="prepare latents" launch/local_processes.sh 2 --config=configs/X.py --out=caches/X
set -euo pipefail
count=${1:?usage: launch/local_processes.sh COUNT FLAGS...}
shift
export SPHERE_JAX_COORDINATOR=${SPHERE_JAX_COORDINATOR:-127.0.0.1:12375} SPHERE_JAX_PROCESSES=$count
pids=()
for ((process = 0; process < count; process++)); do
  SPHERE_JAX_PROCESS=$process python -m sphere_jax.${COMMAND:-main} "$@" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
