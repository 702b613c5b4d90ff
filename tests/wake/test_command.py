"""Real programs as hooks: no shell, a clean environment, and an end to all that they started."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kluis.errors import WakeFailed
from kluis.wake import command
from kluis.wake.base import Report
from kluis.wake.command import Command
from tests.support.bao import wait_until
from tests.wake.hooks import recovery


def run(*argv: str, timeout_s: float = 30.0) -> Report:
    return asyncio.run(Command("hook", argv, timeout_s).run(recovery()))


def refused(*argv: str, timeout_s: float = 30.0) -> WakeFailed:
    with pytest.raises(WakeFailed) as caught:
        run(*argv, timeout_s=timeout_s)
    assert all((caught.value.seen, caught.value.means, caught.value.next_step))
    return caught.value


def gone(pid: int) -> bool:
    """Whether a process no longer runs; a zombie that nobody reaps here does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_it_gets_the_server_and_nothing_of_the_environment_that_could_be_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("KLUIS_PIN", "hunter2")
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.setenv("HOME", "/home/kluis")
    script = (
        f"import os, json; open({str(tmp_path / 'env')!r}, 'w').write(json.dumps(dict(os.environ)))"
    )
    run(sys.executable, "-I", "-c", script)

    seen = json.loads((tmp_path / "env").read_text())
    seen.pop("LC_CTYPE", None)  # Python sets it for itself
    assert seen == {
        "PATH": os.environ["PATH"],
        "HOME": "/home/kluis",
        "LANG": "C.UTF-8",
        "KLUIS_SERVER": "bletchley",
        "KLUIS_RECOVERED_AT": "2026-05-04T03:02:01Z",
    }


def test_there_is_no_shell() -> None:
    assert run("echo", "$HOME; exit 3").words == ("echo: $HOME; exit 3",)


def test_of_what_it_prints_the_last_line_is_shown_however_much_there_was() -> None:
    script = "import sys; sys.stdout.write('x' * 3_000_000); print('\\n\\x1b[31mlast\\tone\\n')"
    assert run(sys.executable, "-c", script).words[0].endswith(": [31mlast one")
    long = run(sys.executable, "-c", "print('y' * 10_000)").words[0]
    assert len(long) < 300


def test_a_bad_end_is_told_with_its_last_line() -> None:
    error = refused("sh", "-c", "echo one; echo the reason >&2; exit 7")
    assert "exit code 7" in error.seen
    assert error.means == "the reason"
    killed = refused("sh", "-c", "kill -9 $$")
    assert "SIGKILL" in killed.seen
    assert killed.means == "it printed nothing"


def test_arguments_are_in_no_message() -> None:
    error = refused("sh", "-c", "exit 1 # hunter2")
    assert "hunter2" not in error.seen + error.means + error.next_step


@pytest.mark.parametrize("argv", [("/no/such/program",), ("/etc/passwd",), ("sh", "a\0b")])
def test_what_can_not_be_started_says_so(argv: tuple[str, ...]) -> None:
    refused(*argv)


def test_at_the_deadline_the_whole_group_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; (trap '' TERM; sleep 300) & echo $$ $! > {pids}; echo waiting; wait"
    tries = (refused("sh", "-c", script, timeout_s=s) for s in (0.5, 5.0, 50.0))
    assert any(error.means == "waiting" for error in tries)  # a busy machine needs longer
    started = [int(pid) for pid in pids.read_text().split()]
    wait_until(lambda: all(map(gone, started)), "the group is gone")


def test_what_it_leaves_running_is_ended_with_it_and_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    report = run("sh", "-c", f"sleep 300 & echo $! > {pid}; echo done")
    assert report.words == ("sh: done",)
    wait_until(lambda: gone(int(pid.read_text())), "its child is gone")


def test_who_breaks_it_off_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "REAP_S", 30.0)
    pid = tmp_path / "pid"

    async def play() -> None:
        script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 300"
        running = asyncio.create_task(Command("hook", ("sh", "-c", script)).run(recovery()))
        await asyncio.to_thread(wait_until, pid.exists, "it runs")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(play())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_one_that_can_not_be_watched_is_ended_and_leaves_no_descriptor(
    fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    steps = iter(range(3))

    def scarce(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: object) -> Any:
            if next(steps) == fails_at:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*args)

        return step

    def noted(pid: int) -> int:
        started.append(pid)
        return int(opened(pid))

    async def play() -> None:
        loop, before = asyncio.get_running_loop(), len(list(Path("/proc/self/fd").iterdir()))
        monkeypatch.setattr(loop, "add_reader", scarce(loop.add_reader))
        with pytest.raises(WakeFailed):
            await Command("hook", ("sleep", "300")).run(recovery())
        assert len(list(Path("/proc/self/fd").iterdir())) <= before

    opened = scarce(os.pidfd_open)
    monkeypatch.setattr(os, "pidfd_open", noted)
    asyncio.run(play())
    assert [Path(f"/proc/{pid}").exists() for pid in started] == [False]


def test_it_runs_under_the_event_loop_of_the_service_too() -> None:
    async def play() -> Report:
        return await Command("hook", ("sh", "-c", "echo well")).run(recovery())

    assert uvloop.run(play()).words == ("sh: well",)
