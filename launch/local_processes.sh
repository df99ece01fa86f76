#!/usr/bin/env bash
# The same run in several processes of this machine, as a rehearsal for a pod or for several GPUs.
#   launch/local_processes.sh 2 --config=configs/mnist_slerp.py --workdir=runs/two
#   COMMAND="prepare latents" launch/local_processes.sh 2 --config=configs/X.py --out=caches/X
# Once one process has failed, the others are ended and its exit code is returned.
set -euo pipefail
count=${1:?usage: launch/local_processes.sh COUNT FLAGS...}
shift
export SPHERE_JAX_COORDINATOR=${SPHERE_JAX_COORDINATOR:-127.0.0.1:12375} SPHERE_JAX_PROCESSES=$count
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3} # a lost process is said once, by us
pids=()
for ((process = 0; process < count; process++)); do
  # shellcheck disable=SC2086 # COMMAND may be two words
  SPHERE_JAX_PROCESS=$process python -m sphere_jax.${COMMAND:-main} "$@" &
  pids+=($!)
done
end() { kill "-$1" "${pids[@]}" 2>/dev/null || true; }
trap 'end TERM' INT TERM

status=0 failed_at=
while ((${#pids[@]})); do
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    unset "pids[i]"
    ((status)) || status=$code
    ((code == 0)) || failed_at=${failed_at:-$SECONDS}
  done
  # The others notice within seconds and say so. Whoever does not is ended.
  if [[ $failed_at ]] && ((SECONDS - failed_at > 40)); then
    end KILL
  elif [[ $failed_at ]] && ((SECONDS - failed_at > 20)); then
    end TERM
  fi
  sleep 0.2
done
exit "$status"
