"""Help: every command explains itself, and its example is a command that works."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main

from kluis import __version__
from kluis.cli.main import app
from tests.support import warm
from tests.support.house import KLUIS, House, clean_environment

ROOT = typer.main.get_command(app)
ELSEWHERE = {
    *("serve", "run", "demo"),  # they stay, or take long: other tests run them
    *("bootstrap", "sidecar"),  # need a key that is given, or stay
    "watch",  # needs a server
    "server",  # its commands need servers: test_servers and others run them
    "anchor create-key",  # needs an HSM
    *("key import", "key retire", "backup forget"),  # need an export, a rotation, a backup
}


def commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, with those of its groups."""
    members = getattr(command, "commands", None)
    if members is None:
        yield path
        return
    for name, member in members.items():
        yield from commands(member, (*path, name))


ALL = sorted(commands(ROOT))


@cache
def help_of(*command: str) -> str:
    environment = {**clean_environment(), "COLUMNS": "120", "TERM": "dumb"}
    code, out, _ = warm.run([*command, "-h"], Path.cwd(), environment)
    assert code == 0, command
    return out.decode()


def example(*command: str) -> str:
    found = re.findall(r"Example: (kluis .*\S)", help_of(*command))
    assert len(found) == 1, command
    return str(found[0])


def test_the_commands_of_the_issue_are_all_there() -> None:
    names = {" ".join(command) for command in ALL}
    assert names >= {
        *("apply", "serve", "run", "unlock", "lock", "status", "explain", "verify"),
        *("key list", "key rotate", "client list", "client issue", "client revoke"),
        "audit verify",
    }


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_help_ends_in_an_example_of_its_own_command(command: tuple[str, ...]) -> None:
    assert example(*command).startswith(f"kluis {' '.join(command)}")


def test_the_help_of_all_ends_in_an_example_too() -> None:
    assert help_of().rstrip().endswith("Example: kluis demo")


def alone(house: House, *arguments: str) -> tuple[int, str]:
    """A command in an interpreter of its own, where it has to find all its imports."""
    done = subprocess.run(
        [*KLUIS, *arguments],
        cwd=house.folder,
        env=house.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("served") / "house")
    house.apply()
    with house.serve_open():
        yield house


@pytest.mark.parametrize(
    "command",
    [one for one in ALL if not ELSEWHERE & {one[0], " ".join(one)}],
    ids=" ".join,
)
def test_an_example_works_as_it_stands(command: tuple[str, ...], served: House) -> None:
    code, said = alone(served, *shlex.split(example(*command))[1:])
    assert code == 0, said
    if command == ("lock",):
        served.text("unlock", "homelab")


@pytest.mark.parametrize("arguments", [(), ("key",), ("client",), ("audit",)])
def test_a_group_alone_shows_its_help(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = House(tmp_path).kluis(*arguments)
    assert (done.code, done.err) == (0, "")
    assert "Usage: " in done.out


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_short_and_long(option: str, tmp_path: Path) -> None:
    assert "Usage: " in House(tmp_path).text(option)


def test_the_version_is_told(tmp_path: Path) -> None:
    assert House(tmp_path).text("--version") == f"kluis {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_made_for_the_common_shells(shell: str, tmp_path: Path) -> None:
    done = House(tmp_path).kluis(environment={"_KLUIS_COMPLETE": f"source_{shell}"})
    assert done.code == 0
    assert f"_KLUIS_COMPLETE=complete_{shell}" in done.out


def test_completion_knows_the_commands(tmp_path: Path) -> None:
    asked = {"_KLUIS_COMPLETE": "complete_bash", "COMP_WORDS": "kluis st", "COMP_CWORD": "1"}
    assert House(tmp_path).kluis(environment=asked).out.split() == ["status"]
