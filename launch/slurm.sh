#!/usr/bin/env bash
# One task a node, all GPUs of the node to the task. Edit the first lines for your cluster, then
#   sbatch launch/slurm.sh --config=configs/imagenet_slerp.py --workdir=/shared/run
#   COMMAND="prepare latents" sbatch launch/slurm.sh --config=configs/imagenet_slerp.py --out=/shared/C
# Slurm sends SIGTERM two minutes before the limit: the run saves, and `--requeue` resumes it.
#SBATCH --job-name=sphere_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
export SPHERE_JAX_POD=1  # JAX reads the coordinator and the ranks from Slurm's own variables
exec srun --kill-on-bad-exit=1 python -m sphere_jax.${COMMAND:-main} "$@"
