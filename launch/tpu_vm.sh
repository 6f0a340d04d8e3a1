#!/usr/bin/env bash
# Trains on Cloud TPU VMs: queued resource, code on every worker, run, again after each preemption, delete at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh
# shellcheck source=launch/arguments.sh
source launch/arguments.sh

usage() {
  cat <<'HELP'
usage: bash launch/tpu_vm.sh --name NAME --project PROJECT --zone ZONE --accelerator-type TYPE --bucket [gs://]BUCKET
           --config FILE[:variant] [options] [--config.key=value ...]

Makes the queued resource NAME (or takes the one that is there), mounts the bucket on every worker, runs the same training
command on all of them, makes NAME anew after a preemption, and deletes it at the end. Everything worth keeping is in
gs://BUCKET/WORKDIR, so the same command again goes on where the last one ended. Needs gcloud, logged in.
  --accelerator-type TYPE   v5litepod-8, v6e-8, v5p-8, v4-8 ...
  --runtime-version V       default: the one of TYPE's generation
  --workdir DIR             folder in the bucket; default NAME. The bucket is /mnt/adaspec on the workers
  --spot                    cheaper, may be preempted at any time
  --keep                    never delete NAME (it costs money until you do)
  --poll SECONDS            between looks at the state; default 30
  --dry-run                 print the commands, run nothing
Ctrl-C asks whether to delete NAME; without a terminal it deletes.
HELP
}

option_name='' option_accelerator_type='' option_bucket='' option_config=''
option_runtime_version='' option_workdir='' option_spot='' option_keep='' option_poll=30
parse_arguments "name project zone accelerator-type runtime-version bucket config workdir poll" "spot keep" "$@"
require name project zone accelerator-type bucket config
require_count poll
check_config
case "$option_workdir" in /*) fail 2 "--workdir is $option_workdir; give a folder in the bucket, without a leading /" ;; esac

case "$option_accelerator_type" in
v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
v5p-*) runtime=v2-alpha-tpuv5 ;;
v6e-*) runtime=v2-alpha-tpuv6e ;;
v[234]-*) runtime=tpu-ubuntu2204-base ;;
*) runtime= ;;
esac
runtime=${option_runtime_version:-$runtime}
[ -n "$runtime" ] || fail 2 "--runtime-version is missing, and $option_accelerator_type is of no generation known here"
suggest_plan "$option_accelerator_type"
need_command gcloud "see https://cloud.google.com/sdk/docs/install"

place=("--project=$option_project" "--zone=$option_zone" --quiet)
every=(--worker=all "${place[@]}")
archive=${TMPDIR:-/tmp}/adaspec_jax.$option_name.tgz
train=(bash launch/local.sh --fetch-python --tpu --config "$option_config")
train+=(--workdir "/mnt/adaspec/${option_workdir:-$option_name}" --config.distributed=auto ${overrides[@]+"${overrides[@]}"})
# What an earlier connection left running would keep the chips.
# shellcheck disable=SC2016
end_earlier='if [ -f train.pid ] && kill "$(cat train.pid)" 2>/dev/null; then sleep 10; fi; echo $$ >train.pid'

create() {
  run gcloud compute tpus queued-resources create "$option_name" --node-id="$option_name" "${place[@]}" \
    --accelerator-type="$option_accelerator_type" --runtime-version="$runtime" ${option_spot:+--spot}
}

delete() { run gcloud compute tpus queued-resources delete "$option_name" "${place[@]}" --force; }

look() { run gcloud compute tpus queued-resources describe "$option_name" "${place[@]}" --format='value(state.state)'; }

state() { look 2>/dev/null || true; } # empty where there is none, or no answer

on_workers() { run gcloud compute tpus tpu-vm ssh "$option_name" "${every[@]}" --command="$1"; }

copy_code() {
  pack_checkout "$archive" &&
    run gcloud compute tpus tpu-vm scp "$archive" "$option_name:adaspec_jax.tgz" "${every[@]}" &&
    on_workers 'mkdir -p adaspec_jax && tar -xzf adaspec_jax.tgz -C adaspec_jax'
}

set_up_workers() {
  on_workers 'cd adaspec_jax && bash launch/local.sh --fetch-python --tpu --install-only' &&
    on_workers "cd adaspec_jax && $(quote bash launch/mount_bucket.sh --bucket "${option_bucket%/}" --at /mnt/adaspec)"
}

train_on_workers() { on_workers "cd adaspec_jax && { $end_earlier; } && exec $(quote "${train[@]}")"; }

if [ -n "$dry_run" ]; then
  create
  look
  copy_code
  set_up_workers
  train_on_workers
  [ -n "$option_keep" ] || delete
  exit
fi

say() { echo "$(date +%H:%M:%S) $*" >&2; }

wait_until_active() {
  local seen='' before='' lost=0 refused=0
  while :; do
    seen="$(state)"
    [ "$seen" = "$before" ] || say "$option_name: ${seen:-is not there}"
    before=$seen
    case "$seen" in
    ACTIVE) return ;;
    '')
      if ! create; then
        refused=$((refused + 1))
        [ "$refused" -lt 3 ] || fail 1 "$option_name could not be created; gcloud's message is above"
      fi
      ;;
    SUSPENDED | FAILED)
      lost=$((lost + 1))
      [ "$lost" -le 3 ] || fail 1 "$option_name was $seen $lost times before it was ACTIVE; see its quota and zone"
      delete || true
      continue
      ;;
    esac
    sleep "$option_poll"
  done
}

is_still_active() { # a preempted slice shows it only after a while
  local tries
  for tries in 1 2 3 4; do
    [ "$(state)" = ACTIVE ] || return 1
    [ "$tries" = 4 ] || sleep "$option_poll"
  done
}

finish() {
  local status=$? answer=''
  trap - EXIT
  trap '' INT TERM
  rm -f "$archive"
  if [ -z "$option_keep" ] && [ -n "$interrupted" ] && [ -t 0 ]; then
    read -r -p "Delete $option_name? It costs money until it is deleted. [Y/n] " answer || true
    case "$answer" in [nN]*) option_keep=yes ;; esac
  fi
  if [ -n "$option_keep" ]; then
    dry_run=yes
    say "$option_name is kept, and paid for until: $(delete)"
  else
    say "deleting $option_name"
    delete || say "NOT DELETED, and still paid for; try again: $(dry_run=yes && delete)"
  fi
  exit "$status"
}

interrupted=
trap finish EXIT
trap 'interrupted=yes; exit 130' INT TERM

unreachable=0
while :; do
  wait_until_active
  status=0 began=$SECONDS
  { copy_code && set_up_workers && say "training" && train_on_workers; } || status=$?
  [ "$status" != 0 ] || break
  [ "$status" != 2 ] || exit 2 # a mistake in the arguments: its message is above
  say "the workers ended with status $status"
  is_still_active || { unreachable=0 && continue; }
  [ $((SECONDS - began)) -lt 600 ] || unreachable=0
  # 255 is ssh's own failure: a lost connection is worth another try, a failed program is not.
  unreachable=$((unreachable + 1))
  [ "$status" = 255 ] && [ "$unreachable" -lt 5 ] || exit "$status"
done
say "done: gs://${option_bucket#gs://}/${option_workdir:-$option_name}/report.html"
