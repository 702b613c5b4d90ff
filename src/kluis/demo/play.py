"""The whole demonstration, from the empty folder to the report; nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kluis import __version__
from kluis.demo import acts
from kluis.demo.acts import Act, Targets
from kluis.demo.report import Report, Result
from kluis.demo.site import Site, site
from kluis.demo.view import View
from kluis.demo.watched import now
from kluis.errors import KluisError, UsageError
from kluis.locating import MAX_SOCKET_PATH_BYTES

TICK_S: Final = 0.1
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ROOM_BYTES: Final = 24  # for what is below the folder: state/control.sock


def perform(
    view: View,
    keep: Path | None = None,
    chosen: Sequence[Act] | None = None,
    targets: Targets | None = None,
) -> Report:
    """Play in a temporary folder, or in ``keep``, which stays.

    A signal ends the demonstration as cleanly as its own end does; then KeyboardInterrupt or
    SystemExit is raised. Raises KluisError when the site can't be set up.
    """
    caught: list[signal.Signals] = []
    with _blocked(), _private(), _folder(keep) as folder:
        try:
            return asyncio.run(
                _until_told(folder, view, chosen or acts.ACTS, targets or acts.TARGETS, caught)
            )
        except asyncio.CancelledError:
            if not caught:
                raise
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unusable(folder, error) from None
    if caught[0] is signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + caught[0])


async def _until_told(
    folder: Path,
    view: View,
    chosen: Sequence[Act],
    targets: Targets,
    caught: list[signal.Signals],
) -> Report:
    """Play until the end or the first signal; those that follow don't disturb the clearing up."""
    loop = asyncio.get_running_loop()
    playing = asyncio.create_task(play(folder, view, chosen, targets))

    def stop(number: signal.Signals) -> None:
        if not caught:
            caught.append(number)
            playing.cancel()

    for number in SIGNALS:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            loop.add_signal_handler(number, stop, number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        return await playing
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def _blocked() -> Iterator[None]:
    """Signals wait: here is no loop to take them, and the folder must not be left behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _private() -> Iterator[None]:
    """Files that are made here, also by what is started here, are their owner's alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield _new_folder(keep)
        return
    parent = _short_enough(tempfile.gettempdir())
    try:
        made = Path(tempfile.mkdtemp(prefix="kluis-demo-", dir=parent))
    except OSError as error:
        raise _unusable(Path(parent), error) from None
    try:
        yield made
    finally:
        shutil.rmtree(made)


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"{folder} can't be used: {error.strerror or error}",
        "the disk is full, or it refuses",
        "set $TMPDIR to another folder",
    )


def _short_enough(folder: str) -> str:
    """A Unix socket's path is short; kluis would put it elsewhere, and leave a folder there."""
    room = MAX_SOCKET_PATH_BYTES - _ROOM_BYTES - len("/kluis-demo-12345678")
    return folder if len(folder.encode()) <= room else "/tmp"  # noqa: S108 - mkdtemp follows


def _new_folder(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(
            f"{path} can't be made: {error.strerror}",
            "the demonstration keeps its files in a new folder",
            "name a folder that does not exist yet",
        ) from None
    return path.absolute()


async def play(folder: Path, view: View, chosen: Sequence[Act], targets: Targets) -> Report:
    """Set the site up, play the acts in order, end everything. Raises KluisError."""
    with view:
        ticking = asyncio.create_task(_tick(view))
        try:
            began = now()
            async with site(folder, view) as made:
                await _set_up(made)
                ready = now()
                results = await _act_by_act(made, chosen, targets)
                ended = now()
        finally:
            ticking.cancel()
    return Report(made.server.version, __version__, ready - began, ended - ready, tuple(results))


async def _tick(view: View) -> None:
    while True:
        view.tick()
        await asyncio.sleep(TICK_S)


async def _set_up(made: Site) -> None:
    began = now()
    made.view.began("", "set-up")
    made.view.step("kluis apply: a keyring, paper for three people, tokens for two servers")
    made.make_anchor()
    done = await made.apply()
    made.held.take(done)
    made.view.step("kluis serve")
    await made.start_kluis()
    await made.kluis.until("open")
    made.view.step('bao server: raft storage, seal "transit" at kluis')
    await made.start_server()
    await made.server.until("new")
    made.view.step("operator init; a secret is written")
    await made.init(made.server)
    await made.read_back(made.server)
    made.view.ready(now() - began)


async def _act_by_act(made: Site, chosen: Sequence[Act], targets: Targets) -> list[Result]:
    """An act after one that failed can't begin as it must: it is not played."""
    results: list[Result] = []
    for act in chosen:
        broken = next((result.letter for result in results if result.why), "")
        if broken:
            result = Result(act.letter, act.title, why=f"not played, because {broken} failed")
        else:
            made.view.began(act.letter, act.title)
            result = await _played(made, act, targets)
        made.view.ended(result)
        results.append(result)
    return results


async def _played(made: Site, act: Act, targets: Targets) -> Result:
    made.checks.clear()
    try:
        outages = await act.play(made, targets)
        await made.read_back(made.server)
    except KluisError as error:
        why = f"{error.seen} ({error.means})" if error.means else error.seen
        return Result(act.letter, act.title, checks=tuple(made.checks), why=why)
    made.found("the secret is what was written")
    return Result(act.letter, act.title, tuple(outages), tuple(made.checks), secret_read_back=True)
