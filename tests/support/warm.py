"""``kluis`` commands that are forked from a process which has imported everything already.

    code, out, err = warm.run(["status"], folder, environment)

A new interpreter spends most of a command's time on imports. Each command is a process of its own
here too, with one thread, its own folder, environment and streams; only what it imports is there
before. That every command finds its imports by itself is tests.cli.test_help's to show.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

from kluis.service import operations

MAX_REQUEST_BYTES: Final = 1 << 17
ROOT: Final = Path(__file__).parents[2]


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    timeout_s: float = 60.0,
) -> tuple[int, bytes, bytes]:
    """Exit code, standard output and standard error of a command. Raises TimeoutError."""
    request = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
    ours, theirs = socket.socketpair()
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        ours,
    ):
        given.write(stdin)
        given.seek(0)
        with theirs:
            streams = [file.fileno() for file in (given, out, err)]
            socket.send_fds(_parent(), [request], [*streams, theirs.fileno()])
        code = _ended(ours, timeout_s)
        out.seek(0)
        err.seek(0)
        return code, out.read(), err.read()


def _ended(told: socket.socket, timeout_s: float) -> int:
    """The exit code of a command, which is told after its process id."""
    told.settimeout(timeout_s)
    with told.makefile("r") as lines:
        pid = int(lines.readline())
        try:
            return int(lines.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise


@cache
def _parent() -> socket.socket:
    """The way to the process that is forked; it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        argv = [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())]
        process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


# -- the process that is forked


def _child_of(requests: socket.socket) -> list[str]:
    """Returns once for every command, each time in a process of its own: its arguments."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 4)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            arguments, folder, environment = json.loads(data)
            _tell_end(descriptors.pop())
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
                os.close(descriptor)
            return list(arguments)
        for descriptor in descriptors:
            os.close(descriptor)


def _tell_end(to: int) -> None:
    """Fork once more: go on as the command, beside one that waits for it and tells how it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (pid := os.fork()) == 0:
        os.close(to)
        return
    with contextlib.suppress(BrokenPipeError):  # who asked has given up
        os.write(to, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(to, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _import_all() -> None:
    for name in ("kluis.cli.main", "kluis.compose", "kluis.configuration"):
        importlib.import_module(name)
    for name in operations.names():
        operations.find(name)
    gc.freeze()  # what is not looked at is not copied


def _run(arguments: Sequence[str]) -> NoReturn:
    """Run a command, and end without taking everything down first."""
    from kluis.cli.main import main

    code: object = 70
    sys.argv = ["kluis", *arguments]
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - as the interpreter does it
        traceback.print_exc()
    sys.stdout.flush()
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _import_all()
    _run(_child_of(socket.socket(fileno=int(sys.argv[1]))))
