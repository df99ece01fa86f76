# shellcheck shell=bash
# What the scripts of launch/ share; they source it in the repository's folder.
#
# Exit codes of a command, which the scripts pass on: 0 finished, 1 an error, 2 refused, 75 another
# process was lost or did not answer, 130 stopped by a signal and saved, more than 128 killed.

export SPHERE_JAX_WAIT=${SPHERE_JAX_WAIT:-300} # seconds: hosts of a cluster do not come up together
code=0 trapped='' stopping=''

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }
refuse() {
  say "$*"
  exit 2
}

# flag_value NAME FLAGS...: the last VALUE of --NAME=VALUE or --NAME VALUE.
flag_value() {
  local name=$1 found='' flag last=''
  shift
  for flag; do
    if [[ $flag == "--$name="* ]]; then found=${flag#*=}; elif [[ $last == "--$name" ]]; then found=$flag; fi
    last=$flag
  done
  printf '%s' "$found"
}

# compiled_folder FLAGS...: where compiled programs are kept between starts, unless
# JAX_COMPILATION_CACHE_DIR says it. The first process alone writes them, so it is beside the folder
# of the run, which all hosts see; that must be one for them.
compiled_folder() {
  local folder
  folder=$(flag_value workdir "$@")
  [[ $folder ]] || folder=$(flag_value out "$@")
  case $folder in
    *'$'*) refuse "$folder: write the whole path, without variables" ;;
    \~/*)
      # In a container, and on another host, ~ is another folder: a container's is lost with it.
      [[ ${IMAGE:-}${elsewhere:-} ]] && refuse "$folder: write the whole path, without ~"
      folder=$HOME${folder:1}
      ;;
  esac
  printf '%s' "${JAX_COMPILATION_CACHE_DIR:-$(dirname "${folder:-.}")/.compiled}"
}

# use_python ACCELERATOR: sets PYTHON, unless it is set, to one with what requirements.txt pins.
use_python() {
  [[ ${PYTHON:-} ]] && return
  launch/environment.sh "$1"
  PYTHON=$PWD/.venv-$1/bin/python
}

# may_work_again CODE: whether another start may go further: after a process was lost, killed or
# preempted, not once the command has finished, failed or been refused.
may_work_again() { (($1 == 75 || $1 > 128)); }

# wait_for PID: sets `code` to its exit code, whatever signals are trapped meanwhile; the traps set
# `trapped`.
wait_for() {
  local before=''
  while :; do
    trapped=''
    code=0
    wait "$1" || code=$?
    # It was waited for before; without `before` there is no such command.
    [[ $code == 127 && $before ]] && code=$before
    [[ $trapped ]] || return 0
    before=$code
  done
}

# until_done COMMAND...: runs it, and again where that may help; sets `code`. TERM and INT are passed
# on once, set `stopping` and end it. RETRIES starts at most; three in a row that end within SHORT
# seconds are the last.
until_done() {
  local starts=0 short=0 at child
  stopping=''
  while :; do
    at=$SECONDS
    "$@" &
    child=$!
    trap 'trapped=yes stopping=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT
    wait_for "$child"
    trap - TERM INT
    if [[ $stopping ]] || ! may_work_again "$code"; then return 0; fi
    short=$((SECONDS - at < ${SHORT:-120} ? short + 1 : 0))
    starts=$((starts + 1))
    if ((short == 3)); then
      say "ended with exit code $code three times within ${SHORT:-120} s; not started again"
      return 0
    fi
    if ((starts >= ${RETRIES:-100})); then
      say "ended with exit code $code; not started again after $starts starts"
      return 0
    fi
    say "ended with exit code $code; started again, resuming from what is saved"
    sleep "${PAUSE:-5}"
  done
}
