#!/usr/bin/env bash
# Steps of deploy/setup/python.sh as an image is built, with what the build machine lends to it.
#
#   deploy/setup/image.sh STEP...
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=/opt/thunderserve
if [ -s /run/secrets/ca ]; then
  export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
fi
if [ -d /wheels ]; then
  export PIP_FIND_LINKS=/wheels
fi
for step in "$@"; do
  SECONDS=0
  if [[ $step = project* ]]; then
    deploy/setup/python.sh "$step" "$venv" ".[cli,control,router,worker]"
    # The demo model by a short name; another model is mounted beside it.
    install -d /models
    ln -s "$("$venv/bin/python" -c \
      'from thunderserve.demo_model import model_path; print(model_path())')" /models/demo
  else
    deploy/setup/python.sh "$step" "$venv"
  fi
  printf 'image: %-12s %3d s\n' "$step" "$SECONDS"
done
