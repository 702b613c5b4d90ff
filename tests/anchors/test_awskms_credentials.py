"""Where the ``awskms`` anchor gets its credentials, and what it says when it gets none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from kluis.errors import Misconfigured, Refused, Unreachable
from tests.anchors.conftest import Counterparts
from tests.support.awskms import failure, kept_out_of_logs, kms, opens, probe, seal, written
from tests.support.kms_relay import Answers, Cuts, Relay
from tests.support.moto import (
    ACCESS_KEY_ID,
    REGION,
    SECRET_ACCESS_KEY,
    Moto,
    moto,
    no_credentials,
    use_credentials,
)

STS_DENIES = (
    b'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
    b"<Code>AccessDenied</Code><Message>the words of AWS</Message></Error></ErrorResponse>"
)
ROLE = "arn:aws:iam::123456789012:role/kluis"


@pytest.fixture
def aws(counterparts: Counterparts) -> Moto:
    return counterparts.of(moto)


@pytest.fixture
def relay(aws: Moto) -> Iterator[Relay]:
    with Relay(aws.endpoint) as running:
        yield running


@pytest.fixture(autouse=True)
def _credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    use_credentials(monkeypatch, tmp_path)
    with kept_out_of_logs(caplog):
        yield


def test_without_credentials_it_says_how_to_give_them(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_credentials(monkeypatch, tmp_path)
    error = failure(lambda: seal(kms(relay, "alias/any")), Misconfigured)
    assert "AWS_ACCESS_KEY_ID" in error.next_step
    assert relay.asked == []


def test_half_of_the_credentials_is_named(aws: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = failure(lambda: probe(kms(aws, "alias/any")), Misconfigured)
    assert "not complete" in error.seen


def test_a_profile_gives_credentials_and_a_missing_one_is_named(
    aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_credentials(monkeypatch, tmp_path)
    lines = f"aws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n"
    text = f"[kluis]\n{lines}"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", written(tmp_path, text))
    arn = aws.create_key()
    anchor = kms(aws, arn, profile="kluis")
    assert opens(anchor, seal(anchor))
    assert asyncio.run(anchor.show())["credentials_from"] == "AWS's credentials file"
    assert "profile" in failure(lambda: probe(kms(aws, arn, profile="other")), Misconfigured).seen
    monkeypatch.setenv("AWS_PROFILE", "another")
    assert "profile" in failure(lambda: probe(kms(aws, arn)), Misconfigured).seen


def test_renewed_credentials_in_the_file_are_used_without_a_restart(
    aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_credentials(monkeypatch, tmp_path)
    lines = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "given"))
    anchor = kms(aws, aws.create_key())
    failure(lambda: probe(anchor), Misconfigured)
    written(tmp_path, lines.format(ACCESS_KEY_ID, SECRET_ACCESS_KEY))
    probe(anchor)


def test_a_settings_file_of_aws_that_is_none_is_misconfigured(
    aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", written(tmp_path, f"{SECRET_ACCESS_KEY}\n[[["))
    failure(lambda: probe(kms(aws, "alias/any")), Misconfigured)


def test_the_words_of_a_failed_credential_process_go_nowhere(
    aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_credentials(monkeypatch, tmp_path)
    script = tmp_path / "give"
    script.write_text(f"#!/bin/sh\necho {SECRET_ACCESS_KEY} >&2\nexit 1\n")
    script.chmod(0o700)
    text = f"[default]\ncredential_process = {script}\n"
    monkeypatch.setenv("AWS_CONFIG_FILE", written(tmp_path, text))
    assert "gave none" in failure(lambda: probe(kms(aws, "alias/any")), Refused).seen


def test_a_web_identity_whose_token_is_not_there_is_misconfigured(
    aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    error = failure(lambda: probe(kms(aws, "alias/any")), Misconfigured)
    assert "AWS_WEB_IDENTITY_TOKEN_FILE" in error.next_step


def _take_on_a_role(sts: Moto | Relay, folder: Path, environment: pytest.MonkeyPatch) -> None:
    no_credentials(environment, folder)
    text = (
        f"[profile base]\naws_access_key_id = {ACCESS_KEY_ID}\n"
        f"aws_secret_access_key = {SECRET_ACCESS_KEY}\n"
        f"[profile kluis]\nrole_arn = {ROLE}\nsource_profile = base\nregion = {REGION}\n"
    )
    environment.setenv("AWS_CONFIG_FILE", written(folder, text))
    environment.setenv("AWS_ENDPOINT_URL_STS", sts.endpoint)


def test_a_profile_may_take_on_a_role(
    aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _take_on_a_role(aws, tmp_path, monkeypatch)
    anchor = kms(aws, aws.create_key(), profile="kluis")
    assert opens(anchor, seal(anchor))
    assert asyncio.run(anchor.show())["credentials_from"] == "the role that the profile takes on"


def test_a_role_that_is_not_given_or_out_of_reach_is_not_taken_for_a_fault_of_the_key(
    aws: Moto, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _take_on_a_role(relay, tmp_path, monkeypatch)
    anchor = kms(aws, aws.create_key(), profile="kluis")
    relay.now["*"] = Answers(STS_DENIES, 403, "text/xml")
    assert "AssumeRole" in failure(lambda: probe(anchor), Refused).seen
    relay.now["*"] = Answers(b"nonsense")
    assert "gave none" in failure(lambda: probe(anchor), Refused).seen
    relay.now["*"] = Cuts()
    assert "gives the AWS credentials" in failure(lambda: probe(anchor), Unreachable).seen


def test_credentials_that_aws_refuses_are_refused(
    aws: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = kms(aws, aws.create_key())
    sealed = seal(anchor)
    with aws.enforcing_policies():
        failure(lambda: opens(anchor, sealed), Refused)
    assert opens(anchor, sealed)
