#!/usr/bin/env bash
# A Slurm cluster with GPUs: one task a node, which uses all its GPUs. Edit the first lines for your
# cluster, then, in the repository's folder on a disk that all nodes share,
#   sbatch launch/slurm.sh --config=configs/imagenet_slerp.py --workdir=/shared/run
#   COMMAND="prepare latents" sbatch launch/slurm.sh --config=configs/imagenet_slerp.py --out=/shared/C
# IMAGE=NAME runs it in a container of launch/Dockerfile.gpu by pyxis, with MOUNTS ("/data,/shared").
# Five minutes before the time limit the run saves, and the job is queued again and resumes.
#SBATCH --job-name=sphere_jax
#SBATCH --output=sphere_jax-%j.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?slurm.sh is a job: submit it by sbatch}" # Slurm runs a copy of this file
[[ -f launch/common.sh ]] || { echo "slurm.sh: sbatch it in the repository's folder" >&2; exit 2; }
. launch/common.sh
for tool in srun scontrol scancel; do
  command -v "$tool" >/dev/null || refuse "there is no $tool on this node"
done
export SPHERE_JAX_POD=1 # JAX reads the coordinator and the ranks from Slurm's own variables
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} # a lost process is said once, by us
compiled=$(compiled_folder "$@")
export JAX_COMPILATION_CACHE_DIR=$compiled

# The others say themselves that a task has ended, and end within seconds; srun ends who does not.
# It must not end them at once: the first task may still be completing its checkpoint.
start=(srun --kill-on-bad-exit=0 --wait=60 --cpu-bind=none)
if [[ ${IMAGE:-} ]]; then
  start+=(--container-image="$IMAGE" --container-mounts="$PWD:$PWD${MOUNTS:+,$MOUNTS}"
    --container-workdir="$PWD" python -m)
else
  use_python gpu # once: the nodes share this folder
  start+=("$PYTHON" -m)
fi

limit='' cancelled=''
step() { # COMMAND...: sets `code`
  "${start[@]}" "$@" &
  wait_for "$!"
}
trap 'trapped=yes limit=yes; say "the time limit is near: the run saves and stops"
      for _ in 1 2 3; do # to the steps, not to this script
        scancel --quiet --signal=TERM "$SLURM_JOB_ID" && break
        sleep "${PAUSE:-5}"
      done' USR1
trap 'trapped=yes cancelled=yes' TERM # cancelled or preempted: Slurm tells the steps itself

read -ra command <<<"${COMMAND:-main}" # may be two words
at=$SECONDS
# Some clusters do not say how many GPUs a node has: then any number will do.
step sphere_jax.preflight --hosts="${SLURM_JOB_NUM_NODES:-1}" \
  ${SLURM_GPUS_ON_NODE:+"--devices_per_host=$SLURM_GPUS_ON_NODE"} --platform=gpu "$@"
if ((code == 0)); then step "sphere_jax.${command[0]}" "${command[@]:1}" "$@"; fi

if [[ $cancelled ]] || ! may_work_again "$code"; then exit "$code"; fi # Slurm requeues what it preempts
restarts=${SLURM_RESTART_COUNT:-0}
if [[ ! $limit ]] && ((SECONDS - at < ${SHORT:-120} && restarts >= 3)); then
  say "ended with exit code $code at once, after $restarts restarts; not queued again"
  exit "$code"
fi
if [[ ! $limit ]] && ((restarts + 1 >= ${RETRIES:-100})); then
  say "ended with exit code $code; not queued again after $((restarts + 1)) starts"
  exit "$code"
fi
say "ended with exit code $code; queued again, to resume from what is saved"
scontrol requeue "$SLURM_JOB_ID" || say "cannot be queued again: sbatch the same command to resume"
exit "$code"
