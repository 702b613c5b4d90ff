#!/usr/bin/env bash
# pip install into .venv, with the user's own pip configuration. Says nothing of pip's unless it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

if [[ $1 == -r ]]; then
    echo "setup: installing $(grep -c '^[a-z].*==' "$2") packages by their hashes from $2"
    set -- --require-hashes "$@"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! .venv/bin/python -m pip install --progress-bar off "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "setup: pip failed; what it said is above. Then run the same command again." >&2
    exit 1
fi
