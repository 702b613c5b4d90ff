"""The other end of the control socket (control.py), with imports few enough to be quick."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kluis import errors
from kluis.errors import KluisError, NotRunning, ServiceError

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
ANSWER_S: Final = 120.0
PATIENT: Final = frozenset(
    {
        *("apply", "client-issue", "client-revoke"),
        *("key-rotate", "key-import", "key-retire", "shares-import"),
        *("server-init", "server-init-keep"),
        *("server-generate-root", "server-rekey", "server-rotate"),
        *("server-wake", "watch-once", "server-migrate"),
    }
)
"""What is waited for without an end: who gave up would miss paper or a token, or what was done."""
_PEER: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


def ask(path: Path, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """The service's answer. Raises NotRunning, or the error that the service met."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(None if name in PATIENT else ANSWER_S)
        try:
            connection.connect(os.fspath(path))
            _refuse_stranger(connection, path)
            connection.sendall(json.dumps({"op": name, "args": dict(args)}).encode() + b"\n")
            line = connection.makefile("rb").readline(MAX_LINE_BYTES)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
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


def peer_user(connection: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel knows it."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, user, _ = _PEER.unpack(found)
    return int(user)


def _refuse_stranger(connection: socket.socket, path: Path) -> None:
    """Shares are typed for the service only, and not for whoever put a socket in its place.

    That is one's own service or root's; root also talks to the owner of the state folder, but
    not where anybody could have made that folder.
    """
    user = peer_user(connection)
    if user in (0, os.getuid()):
        return
    folder = path.parent
    public = folder.parent.stat().st_mode & 0o022
    if os.getuid() == 0 and user == folder.stat().st_uid and not public:
        return
    raise ServiceError(
        f"another user (id {user}) listens on {path}",
        "whatever is sent there, that user can read",
        "find out who it is; run the command as the user that kluis serve runs as",
    )


def _answer(path: Path, line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
        said = answer.get("error")
        found = answer.get("ok") if said is None else _error(said)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        found = None
    if isinstance(found, KluisError):
        raise found
    if not isinstance(found, dict):
        raise ServiceError(
            f"the service on {path} hung up", "it stopped, or refused this user", "try again"
        )
    return found


def _error(said: Mapping[str, object]) -> KluisError:
    kind = getattr(errors, str(said["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, KluisError)):
        kind = ServiceError
    return kind(str(said["seen"]), str(said["means"]), str(said["next"]))
