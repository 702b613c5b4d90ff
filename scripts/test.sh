#!/usr/bin/env bash
# Runs every test and measures coverage. Leaves .coverage only if all passed.
set -euo pipefail
cd "$(dirname "$0")/.."

started=$(mktemp)
folders=$(mktemp -d "${TMPDIR:-/tmp}/kXXXXX") # short: sockets' paths may have 107 bytes
trap 'rm -f "$started"' EXIT
.venv/bin/coverage erase
# one more at once than there are processors: a test often waits for other programs
.venv/bin/coverage run -m pytest --numprocesses="$(($(nproc) + 1))" --dist=worksteal \
    --basetemp="$folders/1" -m "not alone"
# what measures time has the machine to itself
.venv/bin/coverage run -m pytest --basetemp="$folders/2" -m alone
.venv/bin/coverage combine --quiet
rm -rf "$folders"
touch -r "$started" .coverage # so that a file edited during the run counts as newer
