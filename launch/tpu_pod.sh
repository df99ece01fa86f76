#!/usr/bin/env bash
# The same command on every host of a TPU pod slice.
#   TPU=my-pod ZONE=us-central2-b launch/tpu_pod.sh --config=configs/imagenet_slerp.py \
#       --workdir=/mnt/shared/run --config.mesh.fsdp=8
# COMMAND="prepare latents" before it, and --out instead of --workdir, encodes a data set.
# The workdir must be a folder that every host sees. Checks all hosts before it starts any: a pod
# with one host missing would wait without end.
set -euo pipefail
: "${TPU:?set TPU to the name of the pod slice}" "${ZONE:?set ZONE to its zone}"
on_all_hosts() { gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"; }
folder=${FOLDER:-sphere_jax}
flags=$(printf ' %q' "$@")
on_all_hosts "test -d $folder || { echo \"\$(hostname): no folder $folder; clone the repository there\"; exit 1; }"
on_all_hosts "cd $folder && python3 -m venv .venv && .venv/bin/pip install -q -r requirements.txt 'jax[tpu]==0.10.2'"
on_all_hosts "cd $folder && SPHERE_JAX_POD=1 TF_CPP_MIN_LOG_LEVEL=3 .venv/bin/python -m sphere_jax.${COMMAND:-main}$flags"
