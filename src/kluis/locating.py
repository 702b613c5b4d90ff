"""Finding the configuration and the service's control socket, without reading all of either.

``kluis status`` must be quick, and the service that answers it has read the configuration.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path
from typing import Final

from kluis.errors import SettingsError

SEARCHED: Final = (Path("kluis.toml"), Path("/etc/kluis/kluis.toml"))
MAX_READ_BYTES: Final = 1024 * 1024
CONTROL: Final = "control.sock"
MAX_SOCKET_PATH_BYTES: Final = 100  # sockaddr_un has room for 107


def find(given: Path | None) -> Path:
    """The configuration: ``--config``, else $KLUIS_CONFIG, else the usual places."""
    if given is not None:
        return given
    if named := os.environ.get("KLUIS_CONFIG"):
        return Path(named)
    for path in SEARCHED:
        if path.exists():
            return path
    raise SettingsError(
        "there is no kluis.toml",
        f"looked for {' and '.join(map(str, SEARCHED))}",
        "name it with --config FILE or $KLUIS_CONFIG",
    )


def control_socket(configuration: Path) -> Path | None:
    """The control socket that a configuration names; None when it must be read in full first."""
    try:
        with configuration.open("rb") as file:
            settings = tomllib.loads(file.read(MAX_READ_BYTES).decode("utf-8"))
        given = settings.get("service", {}).get("control")
        if given is None:
            first = next(iter(settings["keyrings"].values()))
            given = Path(first["store"]["path"]) / CONTROL
        return socket_path(configuration.absolute().parent / given)
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        StopIteration,
        RecursionError,
    ):
        return None


def socket_path(path: Path) -> Path:
    """The path itself; if it is too long for a socket, one made of its digest.

    That one lies in the user's runtime folder.
    """
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    # control.py refuses a folder that somebody else made there, asking.py whoever listens in it
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/kluis-{os.getuid()}")  # noqa: S108
    return runtime / f"kluis-{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.sock"
