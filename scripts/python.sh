#!/usr/bin/env bash
# Prints the interpreter to use: .venv's if there is one; else the one named by PYTHON=…; else the
# first of those below that fits. Where none fits, Debian's is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH

read -ra candidates <<<"${PYTHON:-python3.13 python3.12 python3.11 python3}"

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' &>/dev/null
}

fits() { # new enough, with all that a virtual environment needs
    new_enough "$1" && "$1" -c 'import ensurepip, ssl, venv' &>/dev/null
}

find_python() {
    local candidate
    for candidate in .venv/bin/python "${candidates[@]}"; do
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

debian_package() { # an old distribution may carry 3.11 beside its own python3
    if command -v python3 >/dev/null && ! new_enough python3; then
        echo python3.11-venv
    else
        echo python3-venv
    fi
}

tried=
until python=$(find_python); do
    package=$(debian_package)
    if [[ -n ${PYTHON:-} || $package == "$tried" ]]; then
        echo "setup: ${candidates[*]}: none is a Python 3.11 or later with venv." >&2
        echo "setup: install one, or name it: make setup PYTHON=/path/to/python" >&2
        exit 1
    fi
    echo "setup: no Python 3.11 or later with venv here" >&2
    scripts/debian.sh "$package" >&2
    tried=$package
done
echo "$python"
