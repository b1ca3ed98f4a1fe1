#!/usr/bin/env bash
# Writes requirements/constraints.txt from the environment as it is: names and versions alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
{
  echo "# Versions known to work together; \`make pins\` writes this file."
  .venv/bin/pip freeze --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' | sed 's/+cpu$//'
} > requirements/constraints.txt
