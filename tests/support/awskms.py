"""What tests of the ``awskms`` anchor do again and again."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from kluis.anchors.awskms.anchor import AwsKmsAnchor
from kluis.errors import AnchorError
from kluis.keyring.strict import JSON
from kluis.secret import Secret
from tests.support.kms_relay import WORDS, Relay
from tests.support.moto import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, SESSION_TOKEN, Moto

CONTEXT: Final = b"kluis/1|00000000-0000-4000-8000-000000000000|1|/0/2|awskms"
SECRET: Final = Secret(bytes(range(32)))
CREDENTIALS: Final = (ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN)


def kms(
    aws: Moto | Relay,
    key: str,
    *,
    region: str = REGION,
    profile: str | None = None,
    deadline_s: float = 30.0,
) -> AwsKmsAnchor:
    """An anchor whose AWS is a moto, or a relay before it."""
    return AwsKmsAnchor(
        "cloud",
        key=key,
        region=region,
        endpoint=aws.endpoint,
        profile=profile,
        deadline_s=deadline_s,
    )


def seal(anchor: AwsKmsAnchor, context: bytes = CONTEXT) -> Mapping[str, JSON]:
    """A leaf that holds SECRET."""
    return asyncio.run(anchor.seal(SECRET, context))


def opens(anchor: AwsKmsAnchor, sealed: Mapping[str, JSON], context: bytes = CONTEXT) -> bool:
    """Whether a leaf opens, and holds SECRET."""
    return asyncio.run(anchor.open(sealed, context)) == SECRET


def outdated(anchor: AwsKmsAnchor, sealed: Mapping[str, JSON]) -> str:
    """Why a leaf should be sealed anew."""
    return asyncio.run(anchor.outdated(sealed))


def probe(anchor: AwsKmsAnchor) -> None:
    """A probe."""
    asyncio.run(anchor.probe())


def failure(call: Callable[[], object], expected: type[AnchorError]) -> AnchorError:
    """The error of a call: of this very class, three plain lines, no credential, no word of AWS."""
    with pytest.raises(AnchorError) as caught:
        call()
    error = caught.value
    assert type(error) is expected, error.seen
    text = "\n".join((error.seen, error.means, error.next_step))
    assert text.count("\n") == 2
    assert all((error.seen, error.means, error.next_step))
    assert not any(hidden in text for hidden in (*CREDENTIALS, WORDS))
    return error


@contextmanager
def kept_out_of_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever happens meanwhile, no log of the process shows a credential or SECRET."""
    with caplog.at_level(logging.DEBUG):
        yield
    logged = "\n".join(str(vars(record)) for record in caplog.records)
    for hidden in (*CREDENTIALS, base64.b64encode(SECRET.reveal()).decode()):
        assert hidden not in logged


def written(folder: Path, text: str) -> str:
    """The path of a file with a text."""
    path = folder / "given"
    path.write_text(text)
    return str(path)
