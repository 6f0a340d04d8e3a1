#!/usr/bin/env bash
# ruff, then the tests; sets itself up on the first call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh

usage() {
  cat <<'HELP'
usage: bash launch/test.sh [--slow] [--torch] [--floor] [pytest arguments ...]

Makes .venv in the checkout on the first call (Python 3.11, 3.12 or 3.13; uv if present, else pip; nothing outside the
checkout changes), then runs ruff check and pytest; paths among the arguments are relative to the checkout.
  --slow    also the tests marked slow: long ones, and the rest of every grid of cases
  --torch   look again for a CPU build of torch; without torch the parity tests skip
  --floor   test in .venv-floor, which holds the oldest versions that work (launch/floor.txt: what Colab ships)
ADASPEC_DATA and ADASPEC_WEIGHTS name folders with real data and weights; tests that need them skip otherwise.
PIP_* and UV_* settings are honoured.
HELP
}

slow=
torch=once
for argument; do # takes our own options out of "$@"; the rest is pytest's
  shift
  case "$argument" in
  -h | --help) usage && exit 0 ;;
  --slow) slow=yes ;;
  --torch) torch=again ;;
  --floor) use_environment .venv-floor -r requirements.txt -r requirements-dev.txt -c launch/floor.txt ;;
  *) set -- "$@" "$argument" ;;
  esac
done

set_up
set_up_torch "$torch"
set_up_tpu_compiler

status=0
"$venv_python" -m ruff check . || status=$?

# A test's compiled programs are reused by other workers, by subprocesses and by the next call.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0.2}"

workers="$("$venv_python" -c 'import os; print(min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))')"
[ -z "$slow" ] || set -- -m "" "$@"
"$venv_python" -m pytest -n "$workers" --dist loadfile --no-loadscope-reorder "$@" || status=$?
exit "$status"
