"""Whatever a server answers: a ServerError or a verdict, and no share where it does not fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kluis.errors import ServerError
from kluis.servers.client import SealStatus
from kluis.servers.tls import ServerTls
from kluis.servers.watch import judging
from kluis.servers.watch.attempts import Outcome
from kluis.servers.watch.evidence import Answer, Case, Past, rules
from kluis.servers.watch.probing import Lines
from kluis.servers.watch.pushing import Attempt
from tests.servers.watch.scene import SHARES, server
from tests.support.pretender import SEALED, Pretender, always, answer

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
values = anything | st.integers(-1, 6) | st.sampled_from(["shamir", "transit"])
nearly = st.dictionaries(st.sampled_from(list(SEALED)), values, max_size=2)
bodies = anything | nearly.map(lambda other: {**SEALED, **other})
heads = st.sampled_from(["", "Content-Encoding: gzip\r\n", "Connection: close\r\n"])
statuses = st.sampled_from([200, 200, 200, 204, 302, 400, 500])
right = st.integers(0, 2).map(lambda entered: answer({**SEALED, "progress": entered}))
answers = (
    right | st.builds(answer, bodies) | st.builds(answer, bodies, statuses, heads) | st.binary()
)
scripts = st.lists(answers, max_size=8) | st.lists(right | answers, min_size=4, max_size=8)


@pytest.fixture(scope="module")
def pretender() -> Iterator[Pretender]:
    with Pretender(always({})) as one:
        yield one


@settings(max_examples=150)
@given(scripts)
def test_no_share_for_anything_that_does_not_fit(pretender: Pretender, said: list[bytes]) -> None:
    script = list(said)
    last = b""
    before_shares: list[bytes] = []

    def says(method: str, path: str, body: bytes) -> bytes:
        nonlocal last
        if path.endswith("/unseal"):
            before_shares.append(last)
        last = script.pop(0) if script else b""
        return last

    pretender.says, pretender.shares = says, []
    one = server([pretender.address])
    declared = rules(one, pretender.address)

    async def play() -> None:
        lines = Lines()
        line = await lines.to(pretender.address, ServerTls(), "127.0.0.1", lambda: None)
        # long, or what is still under way comes in the midst of the next example
        line._client._api._timeout_s = line._client._timeout_s = 10.0

        def fits(status: SealStatus) -> bool:
            past = Past().looked(Answer(status), declared, 0.0)
            return judging.judge(Case(Answer(status), declared, past, False, 0.0)).push

        try:
            await line.look()
            assert isinstance(await Attempt(line, SHARES, fits).make(), Outcome)
        except ServerError as error:
            verdict = judging.failed(error)
            assert not verdict.push
        finally:
            await line.close()

    asyncio.run(play())
    assert len(pretender.shares) <= 3
    assert all(map(_fits, before_shares))


def _fits(said: bytes) -> bool:
    """The rule once more, on the bytes themselves."""
    head, _, content = said.partition(b"\r\n\r\n")
    body: Any = json.loads(content)
    return (
        head.startswith(b"HTTP/1.1 200")
        and body["sealed"] is body["initialized"] is True
        and (body["type"], body["t"], body["n"]) == ("shamir", 3, 5)
        and type(body.get("progress", 0)) is int
        and 0 <= body.get("progress", 0) < 3
        and body.get("migration", False) is body.get("recovery_seal", False) is False
    )
