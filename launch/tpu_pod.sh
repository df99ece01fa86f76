#!/usr/bin/env bash
# The same command on every host of a TPU pod slice, over ssh by gcloud.
#   TPU=my-pod ZONE=us-central2-b launch/tpu_pod.sh --config=configs/imagenet_slerp.py \
#       --workdir=/mnt/shared/run --config.mesh.fsdp=8
# COMMAND="prepare latents" before it, and --out instead of --workdir, encodes a data set.
# The workdir must be a folder that every host sees. FOLDER is the repository on the hosts.
# IMAGE=NAME runs it in a container of launch/Dockerfile.tpu, with the folders of MOUNTS.
# A run whose host was preempted is started again and resumes. With
#   CREATE="--accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite --spot"
# a preempted slice is deleted and created anew by these flags, with SETUP ("sudo mount ...; git
# clone ...") run on its hosts; without CREATE the script ends there.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"
: "${TPU:?set TPU to the name of the pod slice}" "${ZONE:?set ZONE to its zone}"
command -v gcloud >/dev/null || refuse "there is no gcloud here: install the Google Cloud CLI"
folder=${FOLDER:-sphere_jax}
flags=$(printf ' %q' "$@")
elsewhere=yes
compiled=$(compiled_folder "$@")
compiled=$(printf '%q' "$compiled")
environment="SPHERE_JAX_POD=1 TF_CPP_MIN_LOG_LEVEL=3 JAX_COMPILATION_CACHE_DIR=$compiled"
environment+=" SPHERE_JAX_WAIT=$(printf '%q' "$SPHERE_JAX_WAIT")"
python="env $environment .venv-tpu/bin/python" kill=kill
if [[ ${IMAGE:-} ]]; then
  python="sudo docker run --rm --init --privileged --net=host --volume \$PWD:\$PWD --workdir \$PWD"
  for each in ${MOUNTS:-}; do python+=" --volume $each:$each"; done
  for each in $environment; do python+=" --env $each"; done
  python+=" $IMAGE python" kill="sudo kill"
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
again='' state='' hosts=0
trap 'trapped=yes stopping=yes; say "stopping all hosts"
      tpu ssh --worker=all --command="$stop" || true' TERM INT # some may have nothing to stop

tpu() { gcloud compute tpus tpu-vm "$1" "$TPU" --zone="$ZONE" "${@:2}"; }

# on_all_hosts COMMAND: sets `code`. gcloud does not pass on exit codes of several hosts, so each
# prints its own. One that prints none was lost: 75. A refusal counts before an error before a loss.
# After a signal none is started any more.
on_all_hosts() {
  local codes each
  code=130
  if [[ $stopping ]]; then return 0; fi
  tpu ssh --worker=all --command="($1); echo \"exit code \$? on \$(hostname)\"" 2>&1 |
    tee "$said" | sed '/^exit code 0 on /d' &
  wait_for "$!"
  codes=$(sed -n 's/^exit code \([0-9]*\) on .*/\1/p' "$said")
  code=0
  for each in $codes; do ((each == 0)) || code=$each; done
  (($(wc -w <<<"$codes") == hosts)) || code=75
  for each in 75 1 2; do
    if grep -qx "$each" <<<"$codes"; then code=$each; fi
  done
}

# The process that `once` has started on a host, and one that a lost connection has left there.
stop="cd $folder && grep -qs sphere_jax /proc/\$(cat .running)/cmdline && $kill -TERM \$(cat .running)"
clear="($stop) 2>/dev/null; for _ in \$(seq 60); do kill -0 \$(cat $folder/.running) || break; sleep 1; done 2>/dev/null"

# look: sets `state` and `hosts`. A slice that gcloud does not find is MISSING. Where gcloud cannot say
# (no network, no permission) none is created: the script ends, or asks again if it could say before.
look() {
  if read -r state hosts < <(tpu describe --format='value(state,networkEndpoints.len())' 2>"$said"); then
    return 0
  fi
  state=MISSING hosts=0
  if grep -q NOT_FOUND "$said"; then return 0; fi
  say "gcloud cannot describe $TPU: $(sed '/^ *$/d' "$said" | tail -n 1)"
  [[ $again ]] || exit 1
  code=75
  return 1
}

# make_ready: the slice is there, with what the run needs on all its hosts; sets `code`.
make_ready() {
  local created=''
  look || return 0
  if [[ $state != READY ]]; then
    [[ ${CREATE:-} ]] || refuse "$TPU is $state, not READY: create it, or set CREATE to its flags"
    say "$TPU is $state: creating it"
    [[ $state == MISSING ]] || tpu delete --quiet || true
    code=75
    # shellcheck disable=SC2086 # several flags
    tpu create $CREATE || return 0
    created=yes
    look || return 0
    [[ $state == READY ]] || return 0
  fi
  code=0
  if [[ $created && ${SETUP:-} ]]; then on_all_hosts "$SETUP"; fi
  ((code)) || on_all_hosts "test -d $folder || { echo \"\$(hostname): there is no folder $folder; clone the repository there\"; exit 2; }"
  ((code)) || if [[ ${IMAGE:-} ]]; then
    on_all_hosts "sudo docker pull -q $IMAGE"
  else
    on_all_hosts "cd $folder && launch/environment.sh tpu"
  fi
  if [[ $again && ! $created ]] && ((code == 0)); then on_all_hosts "$clear; true"; fi
}

short=0
for ((starts = 1; ; starts++)); do
  at=$SECONDS
  make_ready
  ((code)) || on_all_hosts "cd $folder && $python -m sphere_jax.preflight --hosts=$hosts --platform=tpu$flags"
  # In the background there, for the number of the process to stop.
  ((code)) || on_all_hosts "cd $folder && { $python -m sphere_jax.${COMMAND:-main}$flags & echo \$! >.running; wait \$!; }"
  if [[ $stopping ]] || ! may_work_again "$code"; then exit "$code"; fi
  short=$((SECONDS - at < ${SHORT:-120} ? short + 1 : 0))
  if ((short == 3 || starts >= ${RETRIES:-100})); then
    say "ended with exit code $code; not started again after $starts starts"
    exit "$code"
  fi
  say "ended with exit code $code; started again, resuming from what is saved"
  again=yes
  sleep "${PAUSE:-5}"
  if [[ $stopping ]]; then exit 130; fi
done
