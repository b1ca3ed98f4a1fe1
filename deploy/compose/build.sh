#!/usr/bin/env bash
# Builds the image with what this machine can lend to the build: a base image made from Debian's packages
# where none can be pulled, the certificates and the index that pip is configured with, and the torch that
# pip would install here. What is lent does not stay in the image.
#
#   deploy/compose/build.sh [TAG]       (BASE_IMAGE names another base)
set -euo pipefail
cd "$(dirname "$0")/../.."

tag=${1:-thunderserve:cpu}
pip=.venv/bin/pip
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

timed() { SECONDS=0; "${@:2}"; printf 'compose: %-12s %3d s\n' "$1" "$SECONDS"; }

# A client that speaks BuildKit: one with buildx, or Debian's, which has it built in.
find_docker() {
  local candidate
  for candidate in docker /usr/bin/docker; do
    if "$candidate" buildx version >/dev/null 2>&1 ||
      "$candidate" --version 2>/dev/null | grep -qE 'version (19|20)\.'; then
      echo "$candidate"
      return
    fi
  done
  echo "compose: docker needs its buildx plugin to build this image" >&2
  return 1
}

base_image() {
  docker image inspect "$base" >/dev/null 2>&1 && return
  timeout 60 docker pull --quiet "$base" 2>/dev/null && return
  base=thunderserve-base:bookworm
  docker image inspect "$base" >/dev/null 2>&1 && return
  command -v debootstrap >/dev/null || deploy/setup/debian.sh debootstrap
  debootstrap --variant=minbase bookworm "$scratch/root" >"$scratch/log" 2>&1 ||
    { tail -n 3 "$scratch/log" >&2; return 1; }
  tar --directory "$scratch/root" --create . | docker import - "$base" >/dev/null
}

# Certificates and index, as arguments in `lent`.
lend() {
  local certificates index
  certificates=$(configured cert)
  index=$(configured index-url)
  if [ -n "$certificates" ]; then
    lent+=(--secret "id=ca,src=$certificates")
  fi
  if [ -n "$index" ]; then
    printf '[global]\nindex-url = %s\n' "$index" >"$scratch/pip.conf"
    lent+=(--secret "id=pip.conf,src=$scratch/pip.conf")
  fi
}

configured() { $pip config list | sed -n "s/^[^=]*[.]$1='\(.*\)'\$/\1/p" | tail -n 1; }

torch_wheel() {
  $pip download --quiet --no-deps --dest deploy/compose/wheels \
    "$(grep "^torch==" requirements/constraints.txt)" 2>/dev/null
}

image() {
  DOCKER_BUILDKIT=1 "$client" build --quiet --network host --file deploy/compose/Dockerfile --target cpu \
    --build-arg "BASE_IMAGE=$base" "${lent[@]}" --tag "$tag" . >/dev/null
}

client=$(find_docker)
base=${BASE_IMAGE:-debian:bookworm-slim}
lent=()
lend
timed "base image" base_image
timed "torch wheel" torch_wheel
timed "image" image
