"""What sets a machine up: the lock files agree, and a machine says what it lacks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCKS = ("anchors", "bench", "build", "demo", "dev", "run")
PINS = re.compile(
    r"^([a-z0-9][a-z0-9._-]*)==(\S+)([^\n]*)((?:\n    --hash=\S+(?: \\)?)+)", re.MULTILINE
)


def pins(lock: str) -> dict[tuple[str, str], tuple[str, int]]:
    """Of every package, under its condition: the version, and how many files it may be."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text("utf-8")
    return {
        (name, condition.strip(" \\")): (version, hashes.count("--hash="))
        for name, version, condition, hashes in PINS.findall(text)
    }


def test_every_pin_has_its_hashes() -> None:
    for lock in LOCKS:
        text = (ROOT / "requirements" / f"{lock}.lock").read_text("utf-8")
        assert len(pins(lock)) == len(re.findall(r"^[a-z].*==", text, re.MULTILINE)) > 10


@pytest.mark.parametrize("lock", LOCKS)
def test_the_locks_share_one_environment(lock: str) -> None:
    known = pins("dev")
    for package, pin in pins(lock).items():
        assert known.get(package, pin) == pin, f"{package}: make lock"


def test_what_the_demonstration_needs_comes_built() -> None:
    alone = {name for (name, _), (_, files) in pins("demo").items() if files == 1}
    assert alone == set(), "a package with one file may come as source only"


def test_one_package_is_compiled_and_what_it_is_built_with_is_pinned() -> None:
    compiled = {name for (name, _), (_, files) in pins("dev").items() if files == 1}
    assert compiled == {"tpm2-pytss"}
    assert "--no-binary tpm2-pytss" in (ROOT / "scripts" / "install.sh").read_text("utf-8")
    tools = {name for name, _ in pins("build")}
    assert tools >= {"setuptools", "setuptools-scm", "pkgconfig", "pycparser", "cffi", "packaging"}


def test_what_kluis_is_built_with_is_pinned() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    assert {name for name, _ in pins("build")} >= set(wanted)


def needs(path: str, *groups: str) -> subprocess.CompletedProcess[str]:
    """What scripts/needs.sh does with the programs of a PATH."""
    return subprocess.run(
        [ROOT / "scripts" / "needs.sh", *groups],
        env={"PATH": path, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def a_path_with(folder: Path, *programs: str) -> str:
    for program in ("bash", "cat", "dirname", "env", "id", "sed", "sort", *programs):
        (folder / program).symlink_to(Path("/usr/bin") / program)
    return str(folder)


def test_a_machine_where_nothing_may_be_installed_is_told_all_that_is_missing(
    tmp_path: Path,
) -> None:
    done = needs(a_path_with(tmp_path, "openssl", "pkill"), "build", "counterparts")
    assert done.returncode == 1
    said, command = done.stderr.splitlines()
    missing = ("curl", "gcc", "jose", "libc6-dev", "pkg-config", "socat", "softhsm2", "swtpm")
    assert all(f" {package}" in said for package in missing)
    assert "openssl" not in said
    assert "procps" not in said
    assert command.startswith("    sudo apt-get update && sudo apt-get install -y ")
    assert command.endswith(said.removeprefix("Missing: ").partition(". ")[0])


def test_a_machine_that_has_everything_runs_no_apt(tmp_path: Path) -> None:
    stub, called = tmp_path / "apt-get", tmp_path / "called"
    stub.write_text(f"#!/bin/sh\ntouch {called}\n")
    stub.chmod(0o755)
    done = needs(f"{tmp_path}:{os.environ['PATH']}", "build", "counterparts")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not called.exists()
