"""``supervise`` keeps a real server running, and is a transparent parent to any command."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

from kluis.errors import ServerError, UsageError
from kluis.secret import Secret
from kluis.servers.client import ServerClient
from kluis.servers.handoff import STATIC_STANZA, Handoff, static_handoff
from kluis.servers.supervise import PASSED_ON, RestartLimit, supervise
from tests.support.bao import Bao, wait_until

DEADLINE_S = 30.0
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
AT_ONCE = RestartLimit(restarts=2, first_delay_s=0.0)

# Writes each signal it gets to the file of its first argument, and ends with 3 at the second's.
RECORDER = """
import os, signal, sys
path, last = sys.argv[1], sys.argv[2]
def say(what):
    with open(path, "a") as out:
        out.write(what + "\\n")
wanted = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
          signal.SIGQUIT, signal.SIGWINCH]
signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
say("ready")
while True:
    name = signal.Signals(signal.sigwait(wanted)).name
    say(name)
    if name == last:
        sys.exit(3)
"""


IDLE = "import signal; signal.pause()"


@dataclass
class Watched:
    """The events of a supervised command, and when one of them comes."""

    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)

    def log(self, name: str, fields: Mapping[str, object]) -> None:
        self.events.append((name, fields))

    def count(self, name: str) -> int:
        return sum(1 for seen, _ in self.events if seen == name)

    def pid(self) -> int:
        pids = [fields["pid"] for name, fields in self.events if name == "server.started"]
        assert isinstance(pids[-1], int)
        return pids[-1]


@pytest.fixture(params=sorted(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def _python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", script, *arguments]


def _run(
    runner: asyncio.Runner,
    argv: list[str],
    *,
    handoff: Handoff | None = None,
    limit: RestartLimit = AT_ONCE,
    ready: Callable[[], Awaitable[None]] | None = None,
    during: Callable[[Watched], Awaitable[None]] | None = None,
) -> tuple[int, Watched]:
    """Supervise ``argv`` while ``during`` plays: the exit code, and what was logged."""
    watched = Watched()

    async def both() -> int:
        running = asyncio.create_task(
            supervise(argv, handoff or Handoff(), limit=limit, ready=ready, log=watched.log)
        )
        try:
            if during is not None:
                await during(watched)
            return await asyncio.wait_for(running, DEADLINE_S)
        finally:
            running.cancel()
            await asyncio.wait((running,))

    return runner.run(both()), watched


# -- a real server


def test_a_killed_server_is_active_again_with_the_same_key(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    bao = Bao(tmp_path, STATIC_STANZA)
    ready = asyncio.Event()

    async def active() -> None:
        async with ServerClient(bao.address) as client:
            await client.wait_active(DEADLINE_S)
        ready.set()

    async def life(watched: Watched) -> None:
        async with ServerClient(bao.address) as client:
            await _until(lambda: bao.health() == 501, "the server listens")
            token = (await client.init(1, 1, kind="recovery")).root_token
            await asyncio.wait_for(ready.wait(), DEADLINE_S)
            await client.mount_kv(token, "kv")
            await client.kv_put(token, "kv", "x", {"a": "b"})
            for restart in (1, 2):
                ready.clear()
                os.kill(watched.pid(), signal.SIGKILL)
                await asyncio.wait_for(ready.wait(), DEADLINE_S)
                assert await client.kv_get(token, "kv", "x") == {"a": "b"}
                assert watched.count("server.restarting") == restart
        os.kill(os.getpid(), signal.SIGTERM)

    with static_handoff(Secret.random(), "k1") as handoff:
        code, watched = _run(runner, bao.argv, handoff=handoff, ready=active, during=life)
    assert code == 0
    assert watched.count("server.ready") == 3
    assert bao.health() is None


def test_a_server_with_a_broken_configuration_is_given_up_with_its_own_exit_code(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    bao = Bao(tmp_path, 'seal "static" {}\n')
    code, watched = _run(runner, bao.argv)
    assert code == 1
    assert watched.count("server.started") == 3
    assert watched.events[-1] == ("server.given-up", {"code": 1, "restarts": 2})


# -- exit codes and restarts


@pytest.mark.parametrize(
    ("script", "code", "starts"),
    [
        ("", 0, 1),
        ("raise SystemExit(7)", 7, 3),
        ("import os; os.kill(os.getpid(), 9)", 137, 3),
        ("import os; os.kill(os.getpid(), 15)", 143, 3),
    ],
    ids=["0", "7", "SIGKILL", "SIGTERM by others"],
)
def test_the_exit_code_is_the_commands_own(
    runner: asyncio.Runner, script: str, code: int, starts: int
) -> None:
    ended, watched = _run(runner, _python(script))
    assert ended == code
    assert watched.count("server.started") == starts


def test_a_command_that_recovers_is_not_given_up(tmp_path: Path, runner: asyncio.Runner) -> None:
    script = """
import pathlib, sys
tries = pathlib.Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
raise SystemExit(0 if len(tries.read_text()) == 3 else 1)
"""
    code, watched = _run(runner, _python(script, str(tmp_path / "tries")))
    assert (code, watched.count("server.started")) == (0, 3)


def test_the_first_restart_is_at_once_and_the_next_ones_wait_longer_and_longer() -> None:
    limit = RestartLimit()
    delays = [limit.delay_s([100.0] * earlier, 101.0) for earlier in range(7)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, None, None]
    longest = RestartLimit(restarts=10_000).delay_s([100.0] * 5_000, 101.0)
    assert longest == 5.0


def test_restarts_before_the_window_do_not_count() -> None:
    limit = RestartLimit()
    assert limit.delay_s([0.0] * 50, 60.0) == 0.0
    assert limit.delay_s([0.0] * 50 + [59.0], 60.0) == 0.1
    assert RestartLimit(restarts=0).delay_s([], 0.0) is None


def test_being_told_to_end_while_waiting_ends_the_wait(runner: asyncio.Runner) -> None:
    async def told(watched: Watched) -> None:
        await _until(lambda: watched.count("server.restarting") == 2, "the second restart waits")
        os.kill(os.getpid(), signal.SIGTERM)

    limit = RestartLimit(first_delay_s=3600.0, longest_delay_s=3600.0)
    code, watched = _run(runner, _python("raise SystemExit(9)"), limit=limit, during=told)
    assert (code, watched.count("server.started")) == (9, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "was not found"),
        (lambda path: path.write_text("#!/bin/sh\n"), "can't be executed"),
        (lambda path: path.mkdir(), "can't be executed"),
        (lambda path: (path.write_bytes(b"\0"), path.chmod(0o755)), "can't be executed"),
        (lambda path: (path.write_text("#!/no/sh\n"), path.chmod(0o755)), "was not found"),
    ],
    ids=["missing", "not executable", "a folder", "not a program", "no interpreter"],
)
def test_a_command_that_cant_be_run_is_one_clear_error(
    tmp_path: Path, runner: asyncio.Runner, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "command")
    with pytest.raises(UsageError, match=message) as caught:
        _run(runner, [str(tmp_path / "command")])
    assert caught.value.next_step


def test_no_command_is_one_clear_error(runner: asyncio.Runner) -> None:
    with pytest.raises(UsageError, match="no command"):
        _run(runner, [])


def test_a_readiness_check_that_fails_does_not_end_the_server(runner: asyncio.Runner) -> None:
    async def never() -> None:
        raise ServerError("no", "why", "next")

    async def life(watched: Watched) -> None:
        await _until(lambda: watched.count("server.not-ready") == 1, "the check failed")
        os.kill(os.getpid(), signal.SIGTERM)

    code, watched = _run(runner, _python(IDLE), ready=never, during=life)
    assert code == 128 + signal.SIGTERM
    assert watched.count("server.ready") == 0


# -- signals


@pytest.mark.parametrize("last", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_every_signal_is_passed_on_once_and_an_ending_one_is_final(
    tmp_path: Path, runner: asyncio.Runner, last: str
) -> None:
    record = tmp_path / "record"
    others = [number.name for number in PASSED_ON if number.name not in {"SIGTERM", "SIGINT"}]
    order = [name for name in others if name != "SIGQUIT"] + [last]

    def lines() -> list[str]:
        return record.read_text().split() if record.exists() else []

    async def signals(watched: Watched) -> None:
        await _until(lambda: lines() == ["ready"], "the command waits for signals")
        for index, name in enumerate(order):
            os.kill(os.getpid(), signal.Signals[name])
            await _until(lambda want=index + 2: len(lines()) >= want, name)  # type: ignore[misc]

    code, watched = _run(runner, _python(RECORDER, str(record), last), during=signals)
    assert lines() == ["ready", *order]
    assert (code, watched.count("server.started")) == (3, 1)


def test_the_command_starts_with_clean_signals_in_a_group_of_its_own(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    script = """
import os, sys
status = open("/proc/self/status").read()
sets = [line for line in status.splitlines() if line[:6] in ("SigBlk", "SigIgn")]
open(sys.argv[1], "w").write("\\n".join(sets + [str(os.getpgrp() == os.getpid())]))
"""
    record = tmp_path / "record"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGALRM})
    try:
        # dash, because Python itself ignores SIGPIPE
        assert (
            _run(runner, ["sh", "-c", f"grep -E 'Sig(Blk|Ign)' /proc/self/status >{record}"])[0]
            == 0
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, before)
    # 32 and 33 are the C library's own: no process can change what it does with them
    changeable = sum(1 << (number - 1) for number in signal.valid_signals())
    found = {int(line.split()[1], 16) & changeable for line in record.read_text().splitlines()}
    assert found == {0}
    assert _run(runner, _python(script, str(record)))[0] == 0
    assert record.read_text().endswith("True")


def test_a_cancelled_supervise_leaves_no_server_behind(runner: asyncio.Runner) -> None:
    watched = Watched()

    async def cancelled() -> None:
        running = asyncio.create_task(
            supervise(_python(IDLE), Handoff(), limit=AT_ONCE, log=watched.log)
        )
        await _until(lambda: watched.count("server.started") == 1, "started")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    runner.run(cancelled())
    assert not _alive(watched.pid())


def test_what_a_dead_server_leaves_running_is_killed(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    """A server below a shell would hold port and storage against the next one."""
    record = tmp_path / "pids"
    script = f"sleep 1000 & echo $! >>{record}; kill -9 $$"
    code, _ = _run(runner, ["sh", "-c", script])
    assert code == 137
    pids = [int(line) for line in record.read_text().split()]
    assert len(pids) == 3
    wait_until(lambda: not any(_alive(pid) for pid in pids), "the leftovers are gone")


# -- what the child may see


def test_the_manager_hears_of_readiness_and_of_the_end_and_the_server_does_not_see_its_socket(
    tmp_path: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, record = tmp_path / "notify", tmp_path / "record"
    script = RECORDER.replace('say("ready")', 'say(os.environ.get("NOTIFY_SOCKET", "ready"))')

    async def ready() -> None:
        await _until(lambda: record.exists() and record.read_text() == "ready\n", "it waits")

    async def life(watched: Watched) -> None:
        await _until(lambda: watched.count("server.ready") == 1, "ready")
        os.kill(os.getpid(), signal.SIGTERM)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE_S)
        manager.bind(str(address))
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        command = _python(script, str(record), "SIGTERM")
        assert _run(runner, command, ready=ready, during=life)[0] == 3
        assert manager.recv(1024).startswith(b"READY=1\nSTATUS=")
        assert manager.recv(1024) == b"STOPPING=1"


def test_a_handed_over_key_is_read_from_the_descriptor_at_every_start(
    tmp_path: Path, runner: asyncio.Runner
) -> None:
    """And no other descriptor of kluis's gets there, nor does the key show in the arguments."""
    record = tmp_path / "record"
    script = """
import os, sys
key = open("/proc/self/fd/100", "rb").read().hex()
fds = sorted(map(int, os.listdir("/proc/self/fd")))[:-1]
with open(sys.argv[1], "a") as out:
    print(key, fds == [0, 1, 2, 100, 101], key in open("/proc/self/cmdline").read(), file=out)
os.kill(os.getpid(), 9)
"""
    # The listing's own descriptor is the lowest free one, so it sorts in between.
    script = script.replace("[:-1]", "").replace("[0, 1, 2, 100, 101]", "[0, 1, 2, 3, 100, 101]")
    key = Secret.random()
    with (
        Path("/dev/null").open("rb") as other,
        static_handoff(key, "k1") as handoff,
    ):
        assert other.fileno() > 2
        code, _ = _run(runner, _python(script, str(record)), handoff=handoff)
    assert code == 137
    assert record.read_text().splitlines() == [f"{key.reveal().hex()} True False"] * 3


# -- kluis as PID 1, and its own death


def test_orphans_are_reaped_and_the_commands_own_exit_code_is_not_lost(tmp_path: Path) -> None:
    """Twenty orphans end before the command does, in a process that inherits them like PID 1.

    The command waits until it is the only child of that process, so until all were reaped.
    """
    script = """
import asyncio, ctypes, os, sys
import uvloop
from kluis.servers.handoff import Handoff
from kluis.servers.supervise import RestartLimit, supervise
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
reaped = []
def log(name, fields):
    if name == "orphan.reaped":
        reaped.append(fields["pid"])
loop = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[sys.argv[1]]
orphans = "for i in 1 2 3 4 5 6 7 8 9 10; do setsid sh -c 'sh -c : & sh -c : & exit' & done; wait; "
alone = "while [ $(cat /proc/$PPID/task/*/children | wc -w) -gt 1 ]; do sleep 0.01; done; "
with asyncio.Runner(loop_factory=loop) as runner:
    async def main():
        code = await supervise(["sh", "-c", orphans + alone + "exit 7"], Handoff(),
                               limit=RestartLimit(restarts=1), log=log)
        zombies = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            zombies += fields[0] == "Z" and int(fields[1]) == os.getpid()
        print(code, len(reaped) > 0, zombies)
    runner.run(main())
"""
    for loop in LOOPS:
        done = subprocess.run(
            [sys.executable, "-c", script, loop],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("7 True 0\n", "")


def test_a_server_whose_kluis_was_killed_is_told_to_end(tmp_path: Path) -> None:
    record = tmp_path / "record"
    script = """
import asyncio, sys
from kluis.servers.handoff import Handoff
from kluis.servers.supervise import supervise
asyncio.run(supervise(sys.argv[1:], Handoff(), log=lambda name, fields: None))
"""

    def lines() -> list[str]:
        return record.read_text().split() if record.exists() else []

    with subprocess.Popen(
        [sys.executable, "-c", script, *_python(RECORDER, str(record), "SIGTERM")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as kluis:
        wait_until(lambda: lines() == ["ready"], "the command runs")
        kluis.kill()
    wait_until(lambda: lines() == ["ready", "SIGTERM"], "the command was told to end")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
