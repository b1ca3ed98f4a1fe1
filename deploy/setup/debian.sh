#!/usr/bin/env bash
# Installs Debian packages without starting what they bring; says what to run when it may not.
#
#   deploy/setup/debian.sh PACKAGE...
set -euo pipefail

run=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" -ne 0 ]; then
  run=(sudo -n "${run[@]}")
fi
if ! command -v apt-get >/dev/null || ! "${run[@]}" true 2>/dev/null; then
  printf 'setup: something is missing that this user may not install; run this first, or its like:\n' >&2
  printf '  sudo apt-get install --no-install-recommends %s\n' "$*" >&2
  exit 1
fi

log=$(mktemp)
# Debian starts services as it installs them unless this file says no.
policy=/usr/sbin/policy-rc.d
if [ -e "$policy" ]; then
  trap 'rm -f "$log"' EXIT
else
  trap '"${run[@]}" rm -f "$policy" "$log"' EXIT
  "${run[@]}" sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy"
fi

printf 'setup: apt-get install %s\n' "$*"
{
  "${run[@]}" apt-get update -qq
  "${run[@]}" apt-get install -y -qq --no-install-recommends "$@" </dev/null
} >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
