#!/usr/bin/env bash
# Makes the virtual environment that ThunderServe runs in, and is quick when it is up to date.
#
#   deploy/setup/python.sh                         .venv, editable, with the development tools
#   deploy/setup/python.sh STEP FOLDER [PROJECT]   one step; images are built so, see image.sh
#
# The order matters. PyPI's torch brings CUDA packages by the gigabyte, so torch comes first and
# alone, with pip, which takes a CPU build from wherever pip is configured to look. SGLang pins a
# newer torch than has CPU builds, so it comes without its dependencies; what it imports on a CPU is
# listed in requirements/sglang-cpu.txt. All versions are those of requirements/constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."

torch="torch==2.13.0"
torchvision="torchvision==0.28.0"
sglang="sglang==0.5.23"
constraints="$PWD/requirements/constraints.txt"

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# The first interpreter that is new enough; says what to install when there is none.
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer found; on Debian: apt-get install python3 python3-venv (or set PYTHON)"
}

make_venv() {
  [ -x "$1/bin/pip" ] && return
  local python
  python=$(find_python)
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    deploy/setup/debian.sh python3-venv
  fi
  "$python" -m venv "$1"
}

# uv installs four times as fast as pip, but does not read pip's configuration: with an index of
# one's own configured there, or when uv fails, pip installs.
install() {
  local venv=$1 configured
  shift
  configured=$("$venv/bin/pip" config list)
  export PIP_CONSTRAINT="$constraints" UV_BUILD_CONSTRAINT="$constraints"
  if [[ $configured != *.index-url=* ]]; then
    "$venv/bin/pip" install -qq uv
    if "$venv/bin/uv" pip install --quiet --system-certs --python "$venv/bin/python" \
        --constraints "$constraints" "$@"; then
      return
    fi
    echo "setup: uv failed; trying with pip" >&2
  fi
  "$venv/bin/pip" install -qq "$@"
}

step() {
  case $1 in
    *-cuda) constraints=/dev/null ;; # SGLang's own pins rule there
  esac
  case $1 in
    venv) make_venv "$2" ;;
    torch) "$2/bin/pip" install -qq "$torch" ;;
    sglang)
      install "$2" --requirement requirements/sglang-cpu.txt
      install "$2" --no-deps "$torchvision" "$sglang"
      ;;
    sglang-cuda) install "$2" "$sglang" ;;
    project | project-cuda)
      if [ $# -gt 2 ]; then install "$2" "$3"; else install "$2" --editable ".[dev]"; fi
      ;;
    *) fail "unknown step $1; one of venv, torch, sglang, project, sglang-cuda, project-cuda" ;;
  esac
}

if [ $# -gt 0 ]; then
  step "$@"
else
  for name in venv torch sglang project; do
    SECONDS=0
    step "$name" .venv
    printf 'setup: %-8s %3d s\n' "$name" "$SECONDS"
  done
fi
