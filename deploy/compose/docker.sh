#!/usr/bin/env bash
# Runs a command with a Docker daemon: the one that answers, or else one of its own that is removed,
# with everything it made, when the command ends.
#
#   deploy/compose/docker.sh COMMAND [ARGUMENT]...
#
# Ends with the command's status; with 0 and a line "not run: ..." where no daemon can be had.
set -euo pipefail

not_run() { printf 'not run: %s\n' "$*"; exit 0; }

if docker info >/dev/null 2>&1; then
  exec "$@"
fi
[ "$(id -u)" -eq 0 ] || not_run "no Docker daemon answers, and only root can start one"
[ "$(uname -s)" = Linux ] || not_run "no Docker daemon answers, and one of its own needs Linux"

packages=()
command -v dockerd >/dev/null || packages+=(docker.io)
command -v iptables >/dev/null || packages+=(iptables)
command -v debootstrap >/dev/null || packages+=(debootstrap)
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || packages+=(docker-compose)
if [ ${#packages[@]} -gt 0 ]; then
  "$(dirname "$0")/../setup/debian.sh" "${packages[@]}" || not_run "cannot install ${packages[*]}"
fi

home=$(mktemp -d /tmp/thunderserve-docker.XXXXXX)
export DOCKER_HOST="unix://$home/docker.sock"
forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
# Docker adds chains and a bridge, and leaves them; the machine gets back what it had.
iptables-save >"$home/iptables"

# Nothing stays: no process, no mount, no rule, no file.
clean_up() {
  local mount table
  if [ -n "${daemon:-}" ] && kill "$daemon" 2>/dev/null; then
    wait "$daemon" || true
  fi
  for table in filter nat; do
    iptables --table "$table" --flush
    iptables --table "$table" --delete-chain
  done
  iptables --policy FORWARD ACCEPT
  iptables-restore <"$home/iptables"
  echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
  ip link delete docker0 2>/dev/null || true
  awk -v home="$home/" 'index($2, home) == 1 { print $2 }' /proc/mounts | sort -r |
    while read -r mount; do umount -l "$mount"; done
  rm -rf "$home"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The first `dockerd` of a fresh machine may need its storage and its bridge to settle.
dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/pid" \
  --host "$DOCKER_HOST" >"$home/log" 2>&1 &
daemon=$!
for _ in $(seq 150); do
  docker info >/dev/null 2>&1 && break
  kill -0 "$daemon" 2>/dev/null ||
    not_run "dockerd ended: $(grep -v level=info "$home/log" | tail -n 1)"
  sleep 0.2
done
docker info >/dev/null 2>&1 || not_run "dockerd does not answer: $(tail -n 1 "$home/log")"

"$@"
