#!/usr/bin/env bash
# Trains on a GKE cluster: one `gcluster job submit` of Google's Cluster Toolkit (which follows xpk).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh
# shellcheck source=launch/arguments.sh
source launch/arguments.sh

usage() {
  cat <<'HELP'
usage: bash launch/gcluster.sh --name NAME --project PROJECT --cluster CLUSTER --location REGION_OR_ZONE
           --compute-type TYPE --bucket [gs://]BUCKET --config FILE[:variant] [options] [--config.key=value ...]

Submits the job NAME to a GKE cluster that exists. Each pod sets up its environment and runs the same training command;
the bucket is mounted at /bucket, so a restarted job goes on from its last checkpoint. Needs gcluster, kubectl and gcloud.
  --compute-type TYPE     v6e-8, v5litepod-16 ... for TPUs; nvidia-l4 ... for the GPUs of one machine
  --image-repo REPO       Artifact Registry repository that the image goes to; default $GCLUSTER_IMAGE_REPO
  --base-image IMAGE      what the checkout is added to, at /adaspec; default python:3.12
  --image IMAGE           instead: an image that has the checkout at /adaspec
  --workdir DIR           folder in the bucket; default NAME
  --num-slices N          TPU slices that train together; default 1
  --spot                  on clusters with node auto-provisioning
  --restarts N            of the job before it counts as failed; default 20
  --queue QUEUE           Kueue queue; --service-account NAME   of Kubernetes, with access to the bucket
  --dry-run               print the commands, run nothing
The bucket must have a hierarchical namespace (gcloud storage buckets create gs://BUCKET --location=REGION
--enable-hierarchical-namespace --uniform-bucket-level-access): finishing a checkpoint renames a directory.
HELP
}

option_name='' option_project='' option_cluster='' option_location='' option_compute_type='' option_bucket=''
option_image_repo=${GCLUSTER_IMAGE_REPO:-} option_base_image=python:3.12 option_image='' option_workdir=''
option_num_slices=1 option_spot='' option_restarts=20 option_queue='' option_service_account=''
parse_arguments "name project cluster location compute-type bucket config image-repo base-image image workdir num-slices \
restarts queue service-account" "spot" "$@"
require name project cluster location compute-type bucket config
[ -n "$option_image" ] || require image-repo
require_count num-slices
require_count restarts
check_config
case "$option_workdir" in /*) fail 2 "--workdir is $option_workdir; give a folder in the bucket, without a leading /" ;; esac

train=(bash launch/local.sh)
case "$option_compute_type" in
v[0-9]* | tpu*) train+=(--tpu) distributed=--config.distributed=auto ;;
*) train+=(--gpu) distributed= ;;
esac
train+=(--config "$option_config" --workdir "/bucket/${option_workdir:-$option_name}")
train+=(${distributed:+"$distributed"} ${overrides[@]+"${overrides[@]}"})

suggest_plan "$option_compute_type"
need_command gcluster "see https://github.com/GoogleCloudPlatform/cluster-toolkit"
bucket=${option_bucket#gs://}
job=(gcluster job submit --name "$option_name" --project "$option_project" --cluster "$option_cluster"
  --location "$option_location" --compute-type "$option_compute_type" --num-slices "$option_num_slices"
  --mount "gs://${bucket%/}:/bucket:rw" --restarts "$option_restarts" --grace-period 2m
  ${option_spot:+--gke-nap-provisioning spot} ${option_queue:+--queue "$option_queue"}
  ${option_service_account:+--service-account "$option_service_account"}
  --command "cd /adaspec && exec $(quote "${train[@]}")")

if [ -n "$option_image" ]; then
  run "${job[@]}" --image "$option_image"
else
  context=${TMPDIR:-/tmp}/adaspec_jax.$option_name
  run rm -rf "$context"
  run mkdir -p "$context/adaspec"
  pack_checkout "$context.tgz"
  run tar -xzf "$context.tgz" -C "$context/adaspec"
  run env GCLUSTER_IMAGE_REPO="$option_image_repo" "${job[@]}" --base-image "$option_base_image" --build-context "$context"
  run rm -rf "$context" "$context.tgz"
fi
where=(--project "$option_project" --cluster "$option_cluster" --location "$option_location")
echo "Follow it: $(quote gcluster job logs "$option_name" "${where[@]}")" >&2
echo "Stop it:   $(quote gcluster job cancel "$option_name" "${where[@]}")" >&2
