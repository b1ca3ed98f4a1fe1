#!/usr/bin/env bash
# The two programs that a fleet keeps its state in: etcd and Redis, installed when missing.
set -euo pipefail

missing=()
command -v etcd >/dev/null || missing+=(etcd-server etcd-client)
command -v redis-server >/dev/null || missing+=(redis-server)
[ ${#missing[@]} -eq 0 ] || "$(dirname "$0")/debian.sh" "${missing[@]}"
