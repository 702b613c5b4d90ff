#!/usr/bin/env bash
# Installs Debian packages when it may, else says which are missing: scripts/debian.sh PACKAGE…
set -euo pipefail

if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Missing: $*. Install and run the same command again; on Debian and Ubuntu:" >&2
    echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $*" >&2
    exit 1
fi
echo "Installing Debian packages: $*"
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -o DPkg::Lock::Timeout=120) # seconds; a fresh machine may be upgrading itself
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "apt-get failed; what it said is above. Then run the same command again." >&2
    exit 1
fi
