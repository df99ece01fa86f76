#!/usr/bin/env bash
# .venv-ACCELERATOR with Python 3.12 and the packages that requirements.txt pins. uv brings its own
# Python: that of a TPU VM or of a cluster may be older than 3.11. Does nothing if all is there.
#   launch/environment.sh gpu     (or tpu, or cpu)
set -euo pipefail
accelerator=${1:?usage: launch/environment.sh cpu|gpu|tpu}
cd "$(dirname "$0")/.."
version=$(sed -n 's/^jax==//p' requirements.txt)
case $accelerator in
  cpu) packages=("jax==$version") ;;
  gpu) packages=("jax[cuda12]==$version") ;;
  tpu) packages=("gcsfs>=2026.9" "jax[tpu]==$version") ;; # gcsfs: checkpoints in a bucket
  *)
    echo "environment.sh: $accelerator is none of cpu, gpu and tpu" >&2
    exit 2
    ;;
esac
folder=.venv-$accelerator
wanted="${packages[*]} $(cksum <requirements.txt)"
exec 9>"$folder.lock"
flock 9 || true # several hosts may share this folder; some file systems have no locks
if [[ -x $folder/bin/python && -f $folder/wanted && $(<"$folder/wanted") == "$wanted" ]]; then exit 0; fi

PATH=$HOME/.local/bin:$PATH
if ! command -v uv >/dev/null; then
  echo "environment.sh: uv is not here; installing it" >&2
  curl -LsSf https://astral.sh/uv/install.sh | sh >&2 || python3 -m pip install --user -q uv >&2 || {
    echo "environment.sh: uv cannot be installed; install it, or set PYTHON to a Python >= 3.11 with" \
      "requirements.txt and ${packages[*]}" >&2
    exit 2
  }
fi
uv venv --quiet --allow-existing --python 3.12 "$folder"
uv pip install --quiet --python "$folder/bin/python" -r requirements.txt "${packages[@]}"
printf '%s\n' "$wanted" >"$folder/wanted"
