"""A new stock server beside a house that declares it; and commands that die in the midst.

with beside(tmp_path) as site:                      # listening, not initialised
    step = "kluis.service.ceremony.making:_keep_or_remember"
    site.kill_after(step, "server", "init", "old-vault")
    site.house.text("server", "init", "old-vault", "--yes")
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

from kluis.cli import terminal
from kluis.cli.main import main
from kluis.service import operations
from tests.support.bao import Bao
from tests.support.house import House

NAME: Final = "old-vault"
KEPT: Final = "homelab/old-vault"
UNAUTHENTICATED: Final = (
    "  disable_unauthed_rekey_endpoints = false\n"
    "  disable_unauthed_generate_root_endpoints = false\n"
)

for name in operations.names():
    operations.find(name)  # imports what commands import late, for all that are forked


def fork(house: House, arguments: Sequence[str], fate: Callable[[], None]) -> tuple[int, str]:
    """A kluis command in a process that was forked from this one: its exit code and its output.

    Much quicker than a new interpreter; ``fate`` is called in it before the command runs.
    """
    with tempfile.TemporaryFile() as output:
        if (pid := os.fork()) == 0:
            become(house, arguments, fate, os.open(os.devnull, os.O_RDONLY), output.fileno())
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read().decode()


def become(
    house: House,
    arguments: Sequence[str],
    fate: Callable[[], None],
    stdin: int,
    output: int,
) -> NoReturn:
    """Be a kluis command from now on, in a process that was just forked."""
    code = 70
    try:
        os.chdir(house.folder)
        os.environ.clear()
        os.environ.update(house.environment)
        for number, source in enumerate((stdin, output, output)):
            os.dup2(source, number)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        terminal.choose(terminal.Output.TEXT)
        sys.argv = ["kluis", *arguments]
        fate()
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - this process is not the test's
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def json_of(output: str) -> dict[str, Any]:
    """The JSON object in what a command printed; notes may stand around it."""
    found, _ = json.JSONDecoder().raw_decode(output[output.index("{\n") :])
    assert isinstance(found, dict)
    return found


def die_after(point: str, nth: int = 1) -> Callable[[], None]:
    """The fate of a command that is killed when the ``nth`` call of MODULE:FUNCTION is over."""
    return lambda: _at_the_end(point, nth, lambda: os.kill(os.getpid(), signal.SIGKILL))


def full_disk_after(point: str) -> Callable[[], None]:
    """The fate of a command that finds the disk full when a call of MODULE:FUNCTION is over."""

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, resource.RLIM_INFINITY))

    return lambda: _at_the_end(point, 1, fill)


def interrupted_in(point: str, number: signal.Signals) -> Callable[[], None]:
    """The fate of a command that gets a signal when a call of MODULE:FUNCTION begins."""
    return lambda: _at_the_end(point, 0, lambda: os.kill(os.getpid(), number))


def _at_the_end(point: str, nth: int, happen: Callable[[], None]) -> None:
    """Have it happen at the end of the ``nth`` call; for 0 at the beginning of the first."""
    module, _, path = point.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real, calls = getattr(owner, name), 0

    async def fated(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        if nth == calls == 0:
            happen()
        calls += 1
        found = await real(*arguments, **named)
        if calls == nth:
            happen()
        return found

    setattr(owner, name, fated)


@dataclass
class Site:
    """A house, and a server that it declares."""

    house: House
    bao: Bao

    def init(self, *arguments: str) -> dict[str, Any]:
        """Make the server; the answer. Asks the service, if one runs."""
        return self.here("server", "init", NAME, "--yes", *arguments)

    def secrets(self) -> dict[str, Any]:
        """Shares, threshold and root token, as they are kept."""
        found: dict[str, Any] = self.init("--show-secrets")["secrets"]
        return found

    def here(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """The JSON of a command, forked; it does its work itself, unless a service runs."""
        ended, output = fork(self.house, (*arguments, "--output", "json"), lambda: None)
        assert ended == code, output
        return json_of(output)

    def kill_after(self, point: str, *arguments: str, nth: int = 1) -> None:
        """Run a command that is killed (SIGKILL) when the ``nth`` call of MODULE:FUNCTION ends."""
        ended, output = fork(self.house, arguments, die_after(point, nth))
        assert ended == -signal.SIGKILL, output

    def empty(self) -> None:
        """Empty the server's storage, and start it again."""
        self.bao.kill9()
        shutil.rmtree(self.bao.directory / "data")
        (self.bao.directory / "data").mkdir()
        self.bao.start()
        self.bao.wait_listening()

    def written(self) -> str:
        """All that lies in the house's folder, and what its services logged."""
        places = [*self.house.folder.rglob("*"), *self.house.folder.parent.glob("*.log")]
        return "".join(path.read_bytes().decode("latin-1") for path in places if path.is_file())


@cache
def _applied() -> House:
    """A house that was applied once, for all of this process."""
    folder = Path(tempfile.mkdtemp(prefix="kluis-ceremony-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    house = House(folder / "house")
    house.apply()
    return house


@contextlib.contextmanager
def beside(
    folder: Path,
    seal: str = "",
    *,
    unauthenticated: bool = False,
    more: str = "",
    in_memory: bool = True,
) -> Iterator[Site]:
    """A server that listens and is not initialised, and an applied house that declares it.

    ``unauthenticated``: its shares alone are enough for a rekey and for a root token. ``more`` is
    further configuration of the server. ``in_memory``: its storage ends with it, and its init is
    quick, for it waits for no election.
    """
    bao = Bao(folder / "bao", seal, more=more)
    written = bao.config_file.read_text()
    if in_memory:
        written = re.sub(
            r'storage "raft" \{.*?\n\}', 'storage "inmem" {}', written, flags=re.DOTALL
        )
    if unauthenticated:
        plain = "  tls_disable = true\n"
        written = written.replace(plain, plain + UNAUTHENTICATED)
    bao.config_file.write_text(written)
    purpose = "recovery" if seal else "unseal"
    declared = f'\n[servers.{NAME}]\naddresses = "{bao.address}"\n{purpose} = "{KEPT}"\n'
    house = House.like(_applied(), folder / "house")
    house.edit(more=declared)
    with bao:
        yield Site(house, bao)
