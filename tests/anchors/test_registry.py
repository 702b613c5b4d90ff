"""The registry: a kind's module is loaded when the kind is used, and its packages only then."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from kluis.anchors.registry import KINDS
from tests.support.applied import applied
from tests.support.house import KEYRING, Done, House, one_error

ROOT = Path(__file__).parents[2]

EXTRAS = {
    "awskms": "aiobotocore",
    "pkcs11": "pkcs11",
    "tang": "jwcrypto",
    "tpm2": "tpm2_pytss",
}
"""The kinds that need a package of their own, and what they import of it."""

SETTINGS = {
    "awskms": 'key = "alias/kluis"',
    "pkcs11": 'module = "hsm.so"\ntoken = "kluis"\nkey = "kluis"\npin_file = "pin"',
    "tang": 'url = "http://127.0.0.1:7500"',
    "tpm2": "",
}

WITHOUT = """\
import sys

class Refusing:
    packages = sys.argv.pop(1).split(",")

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
"""
CREATE = """
from kluis.anchors.registry import create
from kluis.errors import SettingsError
for kind in sys.argv[1:]:
    try:
        create(kind, "vault")
    except SettingsError as error:
        print(error.seen, error.means, error.next_step, sep="\\n")
"""
COMMAND = """
from kluis.cli.main import main
main()
"""


def without(
    packages: Sequence[str], code: str, *arguments: str, house: House | None = None
) -> Done:
    """What becomes of ``code`` in a process where these packages are not installed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + code, ",".join(packages), *arguments],
        capture_output=True,
        text=True,
        cwd=house.folder if house else None,
        env=house.environment if house else None,
        timeout=60,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def with_an_anchor_of(kind: str, folder: Path) -> House:
    anchor = f'[anchors.vault]\nkind = "{kind}"\n{SETTINGS[kind]}\n'
    return House(folder / "house", anchor + KEYRING.replace("disk or family", "vault"))


def test_no_kind_is_loaded_before_it_is_used() -> None:
    loaded = without([], "import kluis.anchors.registry; print(*sys.modules)").out.split()
    assert "kluis.anchors.base" in loaded
    assert not {f"kluis.anchors.{kind}" for kind in KINDS} & set(loaded)


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    done = without(list(EXTRAS.values()), CREATE, *EXTRAS)
    assert (done.code, done.err) == (0, "")
    lines = iter(done.out.splitlines())
    for (kind, package), seen, means, next_step in zip(
        EXTRAS.items(), lines, lines, lines, strict=True
    ):
        assert seen.startswith(f"anchors.vault: the {kind} anchor needs the package {package}")
        assert means == "an anchor's packages are installed only where they are used"
        assert next_step == f"pip install 'kluis[{kind}]'"


@pytest.mark.parametrize(
    ("command", "kind"), [("status", "tpm2"), *(("apply", kind) for kind in EXTRAS)]
)
def test_a_command_without_the_extra_ends_in_one_error(
    command: str, kind: str, tmp_path: Path
) -> None:
    house = with_an_anchor_of(kind, tmp_path)
    done = without([EXTRAS[kind]], COMMAND, command, house=house)
    assert done.code == 1
    assert f"the {kind} anchor needs the package {EXTRAS[kind]}" in one_error(done)[0]
    assert f"pip install 'kluis[{kind}]'" in one_error(done)[2]
    assert "Traceback" not in done.out + done.err


def test_no_other_kind_needs_an_extra() -> None:
    others = sorted(set(KINDS) - set(EXTRAS))
    modules = ", ".join(f"kluis.anchors.{kind}" for kind in others)
    done = without(list(EXTRAS.values()), f"import {modules}")
    assert (done.code, done.err) == (0, "")


def test_a_keyring_without_those_anchors_needs_none_of_their_packages(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    missing = list(EXTRAS.values())
    for command in (["apply", "--yes"], ["verify", "homelab"], ["explain", "homelab"]):
        done = without(missing, COMMAND, *command, house=house)
        assert (done.code, done.err) == (0, ""), command


def test_status_imports_no_package_of_an_anchor_and_nothing_of_the_network(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    applied(house)
    done = without(
        [],
        f"import atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n{COMMAND}",
        "status",
        house=house,
    )
    loaded = set(done.err.split())
    assert "kluis.anchors.static" in loaded
    assert loaded & {*EXTRAS.values(), "aiohttp", "boto3", "botocore"} == set()


def test_every_extra_brings_what_its_anchor_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    modules = packages_distributions()
    for kind, module in EXTRAS.items():
        assert [wanted.partition(">")[0] for wanted in extras[kind]] == modules[module]
    assert extras["anchors"] == [f"kluis[{','.join(sorted(EXTRAS))}]"]
