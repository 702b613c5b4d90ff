#!/usr/bin/env bash
# Sees to what the machine itself must have: scripts/needs.sh GROUP…, of the groups below.
# Everything is looked for first, so that a machine that has it all runs no apt.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONHOME PYTHONPATH

need() { # PACKAGES SIGN…: the packages are missing unless the command SIGN succeeds
    local packages
    read -ra packages <<<"$1"
    "${@:2}" &>/dev/null || missing+=("${packages[@]}")
}

build() { # tpm2-pytss is compiled on the spot
    need "gcc libc6-dev" compiles
    need pkg-config command -v pkg-config
    need libtss2-dev pkg-config --exists tss2-esys tss2-mu tss2-rc tss2-tctildr
    has_headers || need_headers
}

counterparts() { # what the tests talk to, and with
    need swtpm command -v swtpm
    need softhsm2 command -v softhsm2-util
    need softhsm2 test -r /usr/lib/softhsm/libsofthsm2.so
    need libnss3 compgen -G '/usr/lib/*/libsoftokn3.so'
    need tang test -x /usr/libexec/tangd
    need tang command -v tang-show-keys
    need jose command -v jose
    need socat command -v socat
    need openssl command -v openssl
    need curl command -v curl
    need procps command -v pkill
}

bench() { # what makes the load
    need wrk command -v wrk
}

compiles() {
    echo '#include <stdio.h>' | cc -E -
}

has_headers() {
    "$python" -c '
import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

need_headers() { # a distribution packs them apart; every other interpreter brings its own
    local package
    package=$("$python" -c '
import sys
if sys.base_prefix != "/usr":
    sys.exit(f"setup: {sys.executable} came without its headers, Python.h; take one that has them")
print("python%d.%d-dev" % sys.version_info[:2])')
    missing+=("$package")
}

look() {
    missing=()
    for group in "${groups[@]}"; do
        "$group"
    done
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sed '/^$/d' | sort -u)
}

groups=("$@")
python=$(scripts/python.sh)
look
if ((${#missing[@]})); then
    scripts/debian.sh "${missing[@]}"
    look
    if ((${#missing[@]})); then
        echo "Installed, and yet not found where kluis looks for it: ${missing[*]}" >&2
        echo "scripts/needs.sh says by which sign each is known." >&2
        exit 1
    fi
fi
