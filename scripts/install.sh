#!/usr/bin/env bash
# pip install into .venv, with the user's own pip configuration. Says nothing of pip's unless it fails.
#
# From lock files (-r FILE…) only wheels are taken. The exception comes as source only; it is built
# with what build.lock put into .venv, where pip by itself would fetch tools that nobody pinned.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0

if [[ $1 == -r ]]; then
    locks=$(printf '%s\n' "$@" | grep -vx -- -r | paste -sd ' ')
    # shellcheck disable=SC2086 # a list of names without spaces
    count=$(cat $locks | grep '^[a-z].*==' | sort -u | wc -l)
    echo "setup: installing $count packages by their hashes from $locks"
    set -- --require-hashes --only-binary :all: --no-binary tpm2-pytss --no-build-isolation "$@"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! .venv/bin/python -m pip install --progress-bar off "$@" >"$log" 2>&1; then
    cat "$log" >&2
    echo "setup: pip failed; what it said is above. Then run the same command again." >&2
    exit 1
fi
