"""The other end of the control socket (control.py), with imports few enough to be quick."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kluis import errors
from kluis.errors import NotRunning, ServiceError

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
ANSWER_S: Final = 120.0


def ask(path: Path, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """The service's answer. Raises NotRunning, or the error that the service met."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(json.dumps({"op": name, "args": dict(args)}).encode() + b"\n")
            line = connection.makefile("rb").readline(MAX_LINE_BYTES)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(
                f"no kluis service listens on {path}", "it is not running", "kluis serve starts it"
            ) from None
        except OSError as error:
            raise ServiceError(
                f"the service on {path} can't be reached: {error.strerror or error}",
                "it is another user's, or it hangs",
                "run the command as the user that kluis serve runs as",
            ) from None
    return _answer(path, line)


def _answer(path: Path, line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        raise ServiceError(
            f"the service on {path} hung up", "it stopped, or refused this user", "try again"
        ) from None
    if "error" in answer:
        said = answer["error"]
        kind = getattr(errors, str(said["class"]), ServiceError)
        raise kind(said["seen"], said["means"], said["next"])
    found: dict[str, Any] = answer["ok"]
    return found
