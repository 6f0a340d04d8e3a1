#!/usr/bin/env bash
# Trains a tiny target, distils two drafts for it and measures them; sets itself up on the first call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh

case "${1:-}" in
-h | --help)
  cat <<'HELP'
usage: bash launch/quickstart.sh [--config.key=value ...]

Makes .venv in the checkout on the first call (Python 3.11, 3.12 or 3.13; uv if present, else pip; nothing outside the
checkout changes), then runs
    python -m adaspec_jax.train --config configs/quickstart.py --workdir runs/quickstart
with any further arguments added at the end; paths among them are relative to the checkout. Finished stages are kept,
so a second call resumes. PIP_* and UV_* settings are honoured.
HELP
  exit 0
  ;;
esac

set_up
exec "$venv_python" -m adaspec_jax.train --config configs/quickstart.py --workdir runs/quickstart "$@"
