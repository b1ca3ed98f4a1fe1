#!/usr/bin/env bash
# A C++ compiler, for kvlink's codec. Nothing needs it: without one the codec runs in numpy, slower.
set -euo pipefail

command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
  "$(dirname "$0")/debian.sh" g++ || echo "setup: going on without a C++ compiler" >&2
