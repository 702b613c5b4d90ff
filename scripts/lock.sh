#!/usr/bin/env bash
# Writes requirements/*.lock from pyproject.toml: hashed, for every Python from 3.11, naming no host.
# Pins stay unless pyproject.toml forces them to move; UPGRADE=1 takes the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ -x .venv-tools/bin/python ]] || "${PYTHON:-python3}" -m venv .venv-tools
.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check \
    --require-hashes -r requirements/tools.lock

compile() { # OUTPUT ARGUMENT…
    local output=requirements/$1
    shift
    echo "lock: $output"
    .venv-tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --custom-compile-command "make lock" ${UPGRADE:+--upgrade} "$@" -o "$output"
}

# The other locks follow the versions of dev.lock, so that they can share one .venv.
compile dev.lock pyproject.toml --extra dev
compile run.lock pyproject.toml --constraints requirements/dev.lock
compile anchors.lock pyproject.toml --extra anchors --constraints requirements/dev.lock
compile demo.lock pyproject.toml --extra demo --constraints requirements/dev.lock
compile bench.lock pyproject.toml --extra bench --constraints requirements/dev.lock
compile build.lock requirements/build.in --constraints requirements/dev.lock
compile tools.lock requirements/tools.in

if grep -n '://' requirements/*.lock; then
    echo "lock: a lock file names a host; it must install from anybody's index." >&2
    exit 1
fi
