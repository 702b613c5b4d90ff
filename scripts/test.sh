#!/usr/bin/env bash
# Runs every test and measures coverage. Leaves .coverage only if all passed.
set -euo pipefail
cd "$(dirname "$0")/.."

started=$(mktemp)
trap 'rm -f "$started"' EXIT
.venv/bin/coverage erase
.venv/bin/coverage run -m pytest
.venv/bin/coverage combine --quiet
touch -r "$started" .coverage # so that a file edited during the run counts as newer
