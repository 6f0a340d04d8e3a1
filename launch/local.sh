#!/usr/bin/env bash
# Trains any config on this machine: sets .venv up, then runs one process, or several that work as one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh
# shellcheck source=launch/arguments.sh
source launch/arguments.sh

usage() {
  cat <<'HELP'
usage: bash launch/local.sh --config FILE[:variant] [--workdir DIR] [options] [--config.key=value ...]

Makes .venv in the checkout (requirements.lock) and runs python -m adaspec_jax.train in it. The same command again goes
on where the last one ended. Paths are relative to the checkout.
  --workdir DIR     where stages and reports go; default runs/NAME_OF_THE_CONFIG
  --gpu             also install jax[cuda13] at the locked jax version (NVIDIA driver 580 or newer)
  --tpu             also install jax[tpu] at the locked jax version
  --processes N     N processes on this machine, with --gpu one GPU each
  --port PORT       where process 0 of several listens; default 7077
  --fetch-python    where no Python 3.11 to 3.13 is found, install uv and a Python of its own for this user
  --install-only    set up, train nothing
  --dry-run         print the commands, run nothing
HELP
}

option_config='' option_workdir='' option_processes=1 option_port=7077
option_gpu='' option_tpu='' option_fetch_python='' option_install_only=''
parse_arguments "config workdir processes port" "gpu tpu fetch-python install-only" "$@"
require_count processes
require_count port
[ -z "$option_gpu" ] || [ -z "$option_tpu" ] || fail 2 "--gpu and --tpu exclude each other"
if [ -z "$option_install_only" ]; then
  require config
  check_config
fi

steps=set_up
[ -z "$option_fetch_python" ] || steps="fetch_python; $steps"
[ -z "$option_gpu" ] || steps="$steps; set_up_accelerator cuda13"
[ -z "$option_tpu" ] || steps="$steps; set_up_accelerator tpu"
if [ -n "$dry_run" ]; then
  quote cd "$PWD"
  quote bash -euc "source launch/setup.sh; $steps"
else
  eval "$steps"
fi
[ -z "$option_install_only" ] || exit 0

train=("$venv_python" -m adaspec_jax.train --config "$option_config" --workdir "${option_workdir:-runs/$(config_name)}")
train+=(${overrides[@]+"${overrides[@]}"})
if [ "$option_processes" = 1 ]; then
  [ -n "$dry_run" ] || exec "${train[@]}"
  quote "${train[@]}"
  exit
fi

variables() { # variables I: what tells process I who and where it is
  echo "JAX_COORDINATOR_ADDRESS=localhost:$option_port JAX_NUM_PROCESSES=$option_processes JAX_PROCESS_ID=$1"
  [ -z "$option_gpu" ] || echo "CUDA_VISIBLE_DEVICES=$1"
}

train+=(--config.distributed=auto)
if [ -n "$dry_run" ]; then
  # shellcheck disable=SC2046
  for ((i = 0; i < option_processes; i++)); do echo "$(quote env $(variables "$i") "${train[@]}") &"; done
  echo wait
  exit
fi

processes=()
stop() { kill "${processes[@]}" 2>/dev/null || true; }
trap 'stop; exit 130' INT TERM
for ((i = 0; i < option_processes; i++)); do
  # shellcheck disable=SC2046
  env $(variables "$i") "${train[@]}" &
  processes+=($!)
done
status=0
while [ "${#processes[@]}" -gt 0 ]; do # when one fails, the others would wait for it
  sleep 0.5
  running=()
  for pid in "${processes[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      running+=("$pid")
    else
      ended=0
      wait "$pid" || ended=$?
      [ "$status" != 0 ] || status=$ended
    fi
  done
  processes=(${running[@]+"${running[@]}"})
  if [ "$status" != 0 ] && [ "${#processes[@]}" -gt 0 ]; then stop; fi
done
exit "$status"
