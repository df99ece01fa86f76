#!/usr/bin/env bash
# What a host of launch/gke.sh runs in its container: the checks, then the command.
set -euo pipefail
cd "$(dirname "$0")/.."
. launch/common.sh
python=${PYTHON:-python}
trap 'trapped=yes stopping=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT
"$python" -m sphere_jax.preflight --hosts="$HOSTS" --devices_per_host="$CHIPS" --platform=tpu "$@" &
child=$!
wait_for "$child"
if [[ $stopping ]] && ((code == 0)); then exit 130; fi # it had just finished
((code == 0)) || exit "$code"
read -ra command <<<"${COMMAND:-main}"                             # may be two words
exec "$python" -m "sphere_jax.${command[0]}" "${command[@]:1}" "$@" # it gets the signals
