#!/usr/bin/env bash
# One task a GPU: JAX gives each Slurm task one device. Edit the first lines for your cluster, then
#   sbatch launch/slurm.sh --config=configs/imagenet_slerp.py --workdir=/shared/run
#   COMMAND="prepare latents" sbatch launch/slurm.sh --config=configs/imagenet_slerp.py --out=/shared/C
# Slurm sends SIGTERM two minutes before the limit: the run saves, ends with exit code 130, and the
# job is queued again.
#SBATCH --job-name=sphere_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
export SPHERE_JAX_POD=1 # JAX reads the coordinator and the ranks from Slurm's own variables
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} # a lost process is said once, by us
status=0
# shellcheck disable=SC2086 # COMMAND may be two words
srun --kill-on-bad-exit=1 python -m sphere_jax.${COMMAND:-main} "$@" || status=$?
if ((status == 130)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
