#!/usr/bin/env bash
# The documentation as a site in build/docs; sets itself up on the first call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh

if [ "${1:-}" = -h ] || [ "${1:-}" = --help ]; then
  echo "usage: bash launch/docs.sh      builds docs/ into build/docs/index.html; a warning is an error"
  exit 0
fi
set_up
"$venv_python" -m sphinx -W --keep-going -q -b html docs build/docs
echo "build/docs/index.html"
