"""The registry: a kind's module is loaded when the kind is used, not before."""

from __future__ import annotations

import subprocess
import sys

from kluis.anchors.registry import KINDS, create
from kluis.anchors.sources import EnvironmentSource


def test_every_kind_makes_an_anchor_of_that_kind() -> None:
    for kind in KINDS:
        anchor = create(kind, "name", source=EnvironmentSource("NAME"), deadline_s=3.0)
        assert (anchor.kind, anchor.name, anchor.deadline_s) == (kind, "name", 3.0)


def test_no_kind_is_loaded_before_it_is_used() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, kluis.anchors.registry; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.split()
    assert "kluis.anchors.base" in loaded
    assert not {f"kluis.anchors.{kind}" for kind in KINDS} & set(loaded)
