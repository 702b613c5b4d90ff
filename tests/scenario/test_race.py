"""One anchor hangs, another one answers: nobody waits for the one that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from kluis import compose
from kluis.engine import change
from kluis.engine.opening import Opening
from tests.engine.keyrings import NOW, token_of
from tests.support.swtpm import Swtpm
from tests.support.tang import Between, Reply, Request, Tang

pytestmark = pytest.mark.alone

ANSWERS_AFTER_S: Final = 0.020
IN_TIME_S: Final = 0.100
TRIES: Final = 5
KLUIS: Final = """
[anchors.hung]
{hung}

[anchors.late]
{late}

[keyrings.homelab]
store = {{ kind = "directory", path = "state" }}
opens = "hung or late"
"""


@dataclass(frozen=True)
class Hanging:
    """The settings of a real anchor, and what lets it hang."""

    settings: str
    freeze: Callable[[], None]


@contextlib.contextmanager
def frozen_tang(folder: Path) -> Iterator[Hanging]:
    """It accepts connections, and says nothing: an await that never ends."""
    with Tang(folder / "hung") as tang:
        yield Hanging(tang_settings(tang, tang.url), tang.freeze)


@contextlib.contextmanager
def frozen_tpm(folder: Path) -> Iterator[Hanging]:
    """A call into a library that never returns: a thread that nobody can break off."""
    with Swtpm(folder / "hung") as tpm:
        yield Hanging(f'kind = "tpm2"\ndevice = "{tpm.device}"', tpm.freeze)


def tang_settings(tang: Tang, url: str) -> str:
    return f'kind = "tang"\nurl = "{url}"\nthumbprint = "{tang.thumbprint()}"'


@contextlib.contextmanager
def late_tang(folder: Path) -> Iterator[str]:
    """The settings of one that answers, and not before its time."""

    def answer(request: Request) -> Reply:
        until_s = time.monotonic() + ANSWERS_AFTER_S
        reply = between.passed_on(request)
        time.sleep(max(0.0, until_s - time.monotonic()))
        return reply

    with Tang(folder / "late") as tang, Between(tang.url) as between:
        between.now = answer
        yield tang_settings(tang, between.url)


@pytest.mark.parametrize("hanging", [frozen_tang, frozen_tpm])
def test_with_one_that_hangs_and_one_that_answers_in_20_ms_it_is_open_in_under_100_ms(
    hanging: Callable[[Path], contextlib.AbstractContextManager[Hanging]], tmp_path: Path
) -> None:
    async def race(hung: Hanging, file: Path) -> list[float]:
        drawn = compose.blueprint(file)
        made = await change.make(drawn.wanted["homelab"], drawn.anchors, token_of, NOW)
        assert not made.away
        hung.freeze()
        took: list[float] = []
        while len(took) < TRIES and min(took, default=IN_TIME_S) >= IN_TIME_S:
            opening = Opening(made.opened.document)
            began = time.monotonic()
            opened = await opening.ask(drawn.anchors)
            took.append(time.monotonic() - began)
            assert opened is not None
            assert opened.root == made.opened.root
            assert (opening.answered, opening.failures) == ({"late"}, {})
        return took

    with hanging(tmp_path) as hung, late_tang(tmp_path) as late:
        file = tmp_path / "kluis.toml"
        file.write_text(KLUIS.format(hung=hung.settings, late=late))
        took = asyncio.run(race(hung, file))  # others use this machine too: the best of some
    assert ANSWERS_AFTER_S <= min(took) < IN_TIME_S, took
