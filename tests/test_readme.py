"""The README is run, not only read: its walk-through, word for word, and its claims on commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from kluis.cli.main import app
from tests.support.bao import free_port

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def walk_through() -> str:
    section = README.split("## A walk-through")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


def test_the_walk_through_works_as_it_stands(tmp_path: Path) -> None:
    script = walk_through()
    for port in ("8200", "8201"):
        script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "homelab is open" in done.stdout
    assert "the chain holds" in done.stdout


def test_every_command_that_the_readme_names_exists() -> None:
    root: Any = typer.main.get_command(app)
    assert set(re.findall(r"`kluis ([a-z]+)", README)) <= set(root.commands)


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!https?:)[^)]+)\)", README))
def test_every_file_that_the_readme_links_exists(link: str) -> None:
    assert (ROOT / link).exists()
