#!/usr/bin/env bash
# Mounts a Google Cloud Storage bucket with gcsfuse (installed when missing), so that a --workdir in it is a path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/setup.sh
source launch/setup.sh
# shellcheck source=launch/arguments.sh
source launch/arguments.sh

usage() {
  cat <<'HELP'
usage: bash launch/mount_bucket.sh --bucket [gs://]BUCKET --at DIR [--dry-run]

For Debian and Ubuntu machines in Google Cloud, with sudo. Does nothing where DIR is a mount point already.
Directories are renamed when a checkpoint is finished: --rename-dir-limit lets gcsfuse do that in a flat bucket, a bucket
with hierarchical namespace does it at once. Metadata is not cached, so that each machine sees what the others wrote.
HELP
}

option_bucket='' option_at=''
parse_arguments "bucket at" "" "$@"
require bucket at
bucket=${option_bucket#gs://}
case "$bucket" in */*) fail 2 "--bucket is $option_bucket; give the bucket alone, without a folder" ;; esac

if [ -z "$dry_run" ] && mountpoint -q "$option_at"; then exit 0; fi
if [ -n "$dry_run" ] || ! command -v gcsfuse >/dev/null 2>&1; then
  run bash -euc 'curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null; echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list'
  run sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
  run sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq gcsfuse
fi
run sudo mkdir -p "$option_at"
run sudo chown "$(id -u):$(id -g)" "$option_at"
run gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 "$bucket" "$option_at"
