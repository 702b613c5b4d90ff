"""A webhook against a real web server: told once, told again while nobody can hear, never leaky."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from kluis.anchors.sources import FileSource
from kluis.errors import KluisError, Missing, Refused, WakeFailed
from kluis.wake import webhook
from kluis.wake.base import Hook
from kluis.wake.webhook import Webhook
from tests.support.bao import free_port
from tests.support.tls import Authority
from tests.wake.hooks import recovery
from tests.wake.listening import listening

TOKEN = "t0ken-of-the-hook"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "FIRST_PAUSE_S", 0.01)


def token(folder: Path) -> FileSource:
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(TOKEN + "\n")
    return FileSource(path)


async def failure(hook: Hook) -> KluisError:
    with pytest.raises(KluisError) as caught:
        await hook.run(recovery())
    said = " ".join((caught.value.seen, caught.value.means, caught.value.next_step))
    assert TOKEN not in said
    assert "s3cret" not in said
    assert all((caught.value.seen, caught.value.means, caught.value.next_step))
    return caught.value


def test_it_posts_what_happened_with_the_token(tmp_path: Path) -> None:
    async def play() -> None:
        async with listening() as heard:
            report = await Webhook("h", heard.url, token(tmp_path)).run(recovery())
        [(head, body)] = heard.heard
        assert head["method"] == "POST"
        assert head["path"] == "/hooks/s3cret-path"
        assert head["authorization"] == f"Bearer {TOKEN}"
        assert json.loads(body) == {
            "event": "recovered",
            "server": "bletchley",
            "at": "2026-05-04T03:02:01Z",
        }
        assert report.failure is None
        assert "s3cret" not in report.words[0]

    asyncio.run(play())


def test_it_tells_again_while_it_is_answered_429_or_5xx() -> None:
    async def play() -> None:
        async with listening(500, 429, 503, 200) as heard:
            await Webhook("h", heard.url, timeout_s=30).run(recovery())
        assert len(heard.heard) == 4
        assert heard.heard[0][0]["authorization"] == ""

    asyncio.run(play())


def test_it_waits_for_one_that_does_not_listen_yet() -> None:
    async def play() -> None:
        port = free_port()
        hook = Webhook("h", f"http://127.0.0.1:{port}/x", timeout_s=30)
        telling = asyncio.create_task(hook.run(recovery()))
        await asyncio.sleep(0.05)
        async with listening(port=port) as heard:
            await telling
        assert len(heard.heard) == 1

    asyncio.run(play())


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404])
def test_a_plain_no_is_not_asked_again(status: int, tmp_path: Path) -> None:
    async def play() -> None:
        async with listening(status) as heard:
            heard.headers = {"Location": "http://127.0.0.1:1/"}
            error = await failure(Webhook("h", heard.url, token(tmp_path), timeout_s=30))
        assert isinstance(error, WakeFailed)
        assert str(status) in error.seen
        assert len(heard.heard) == 1

    asyncio.run(play())


@pytest.mark.parametrize("answers", [(503,), (0,)])
def test_it_gives_up_at_its_deadline(answers: tuple[int, ...], tmp_path: Path) -> None:
    async def told(timeout_s: float) -> int:
        async with listening(*answers) as heard:
            hook = Webhook("h", heard.url, token(tmp_path), timeout_s=timeout_s)
            assert isinstance(await failure(hook), WakeFailed)
        return len(heard.heard)

    assert any(asyncio.run(told(s)) > 1 for s in (0.6, 6.0, 60.0))  # longer on a busy machine


def test_the_certificate_is_checked_against_the_authority(tmp_path: Path) -> None:
    async def play() -> None:
        ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
        async with listening(tls=ours.issue("hook", "127.0.0.1")) as heard:
            trusted = Webhook("h", heard.url, token(tmp_path), ours.certificate, 30)
            await trusted.run(recovery())
            stranger = Webhook("h", heard.url, token(tmp_path), others.certificate, 30)
            assert isinstance(await failure(stranger), Refused)
        assert len(heard.heard) == 1

    asyncio.run(play())


def test_without_its_token_nothing_is_sent(tmp_path: Path) -> None:
    async def play() -> None:
        async with listening() as heard:
            lacking = Webhook("h", heard.url, FileSource(tmp_path / "none"), timeout_s=30)
            assert isinstance(await failure(lacking), Missing)
        assert heard.heard == []

    asyncio.run(play())
