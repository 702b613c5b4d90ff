"""What the ``awskms`` anchor says of every fault of AWS KMS, and of the way to it."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from botocore import exceptions as aws_errors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kluis.anchors.awskms.anchor import AwsKmsAnchor, opened_by, read_leaf, sealed_by
from kluis.anchors.awskms.answers import Ask
from kluis.anchors.awskms.errors import failed, not_prepared
from kluis.anchors.awskms.keys import Key, parse_alias, parse_arn, parse_name
from kluis.errors import (
    AnchorError,
    Damaged,
    KluisError,
    Misconfigured,
    Missing,
    Refused,
    Unreachable,
)
from kluis.keyring.strict import JSON
from tests.anchors.conftest import Counterparts
from tests.support.awskms import failure, kept_out_of_logs, kms, opens, probe, seal
from tests.support.kms_relay import (
    Answers,
    Behaviour,
    Cuts,
    Floods,
    Hangs,
    Passes,
    Relay,
    Says,
)
from tests.support.moto import REGION, Moto, moto, use_credentials
from tests.support.tls import Authority

ARN = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Ground:
    """An anchor before a relay, and a leaf that it sealed."""

    relay: Relay
    anchor: AwsKmsAnchor
    sealed: Mapping[str, JSON]

    def opens(self) -> bool:
        return opens(self.anchor, self.sealed)


@pytest.fixture
def aws(counterparts: Counterparts) -> Moto:
    return counterparts.of(moto)


@pytest.fixture
def ground(aws: Moto) -> Iterator[Ground]:
    with Relay(aws.endpoint) as relay:
        anchor = kms(relay, aws.create_key())
        yield Ground(relay, anchor, seal(anchor))


@pytest.fixture(autouse=True)
def _credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    use_credentials(monkeypatch, tmp_path)
    with kept_out_of_logs(caplog):
        yield


# --- what AWS answers

CODES: tuple[tuple[Says, type[AnchorError], str], ...] = (
    (Says("AccessDeniedException"), Refused, "denies kms:Decrypt"),
    (Says("DisabledException"), Refused, "is disabled"),
    (Says("KMSInvalidStateException"), Refused, "the state of"),
    (Says("NotFoundException"), Missing, "is not there"),
    (Says("InvalidCiphertextException"), Damaged, "did not seal these bytes"),
    (Says("IncorrectKeyException"), Damaged, "did not seal these bytes"),
    (Says("ValidationException"), Damaged, "did not seal these bytes"),
    (Says("InvalidArnException"), Damaged, "did not seal these bytes"),
    (Says("InvalidKeyUsageException"), Misconfigured, "can't do Decrypt"),
    (Says("UnsupportedOperationException"), Misconfigured, "can't do Decrypt"),
    (Says("ThrottlingException"), Unreachable, "is busy"),
    (Says("LimitExceededException"), Unreachable, "is busy"),
    (Says("KeyUnavailableException", 500), Unreachable, "is busy"),
    (Says("DependencyTimeoutException", 503), Unreachable, "is busy"),
    (Says("KMSInternalException", 500), Unreachable, "is busy"),
    (Says("Unheard", 502), Unreachable, "is busy"),
    (Says("Unheard", 429), Unreachable, "is busy"),
    (Says("ExpiredTokenException"), Refused, "have expired"),
    (Says("UnrecognizedClientException"), Refused, "does not know these credentials"),
    (Says("InvalidSignatureException"), Refused, "the signature of the credentials"),
    (Says("RequestTimeTooSkewed", 403), Refused, "the time of the signature"),
    (Says("OptInRequired", 403), Refused, "answered OptInRequired to Decrypt"),
    (Says("../etc\r\n\x1b[31m", 403), Refused, "answered 403 to Decrypt"),
    (Says("A" * 1000, 403), Refused, "answered 403 to Decrypt"),
)


@pytest.mark.parametrize(("said", "expected", "words"), CODES, ids=lambda value: repr(value)[:40])
def test_every_answer_of_aws_has_its_class_and_its_words(
    ground: Ground, said: Says, expected: type[AnchorError], words: str
) -> None:
    ground.relay.now["Decrypt"] = said
    assert words in failure(ground.opens, expected).seen
    del ground.relay.now["Decrypt"]
    assert ground.opens()


ASKED: tuple[tuple[str, Says, type[AnchorError], str], ...] = (
    ("Encrypt", Says("AccessDeniedException"), Refused, "kms:Encrypt"),
    ("Encrypt", Says("ValidationException"), Misconfigured, "can't use the name"),
    ("Encrypt", Says("DisabledException"), Refused, "is disabled"),
    ("Encrypt", Says("NotFoundException"), Missing, "is not there"),
    ("DescribeKey", Says("AccessDeniedException"), Refused, "kms:DescribeKey"),
    ("DescribeKey", Says("InvalidArnException"), Misconfigured, "can't use the name"),
    ("DescribeKey", Says("ThrottlingException"), Unreachable, "did not do DescribeKey"),
)


@pytest.mark.parametrize(("operation", "said", "expected", "words"), ASKED, ids=repr)
def test_what_is_denied_is_named(
    ground: Ground, operation: str, said: Says, expected: type[AnchorError], words: str
) -> None:
    ground.relay.now[operation] = said
    call = partial(seal if operation == "Encrypt" else probe, ground.anchor)
    assert words in failure(call, expected).seen


@pytest.mark.parametrize(
    ("headers", "retry_s"),
    [
        ({}, 5.0),
        ({"Retry-After": "20"}, 20.0),
        ({"Retry-After": "0"}, 1.0),
        ({"Retry-After": "99999"}, 60.0),
        ({"Retry-After": "9" * 400}, 5.0),
        ({"Retry-After": "-1"}, 5.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 5.0),
    ],
    ids=repr,
)
def test_a_busy_aws_is_left_alone_for_a_while(
    ground: Ground, headers: Mapping[str, str], retry_s: float
) -> None:
    ground.relay.now["Decrypt"] = Says("ThrottlingException", 400, headers)
    error = failure(ground.opens, Unreachable)
    assert isinstance(error, Unreachable)
    assert error.retry_s == retry_s


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(minutes=42), "42 minutes behind"),
        (timedelta(minutes=-90), "90 minutes ahead"),
        (timedelta(minutes=2), "the signature of the credentials"),
    ],
    ids=repr,
)
def test_a_wrong_clock_is_told_from_a_wrong_secret_by_the_date_of_the_answer(
    ground: Ground, ahead: timedelta, words: str
) -> None:
    date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
    ground.relay.now["Decrypt"] = Says("InvalidSignatureException", 400, {"Date": date})
    assert words in failure(ground.opens, Refused).seen


@pytest.mark.parametrize("date", ["", "yesterday", "Wed, 99 Oct 2026 07:28:00 GMT", "1 Jan 1 1:1"])
def test_a_date_that_is_none_says_nothing_of_the_clock(ground: Ground, date: str) -> None:
    ground.relay.now["Decrypt"] = Says("InvalidSignatureException", 400, {"Date": date})
    assert "signature" in failure(ground.opens, Refused).seen


METADATA = {"Arn": ARN, "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT"}
STATES: tuple[tuple[Mapping[str, object], type[AnchorError] | None, str], ...] = (
    ({"KeyState": "Enabled"}, None, ""),
    ({"KeyState": "Updating"}, None, ""),
    ({"KeyState": "Disabled"}, Refused, "is disabled"),
    ({"KeyState": "PendingDeletion", "DeletionDate": 1798761600}, Refused, "for deletion"),
    ({"KeyState": "PendingDeletion"}, Refused, "scheduled for deletion"),
    ({"KeyState": "PendingReplicaDeletion"}, Refused, "scheduled for deletion"),
    ({"KeyState": "PendingImport"}, Refused, "no key material"),
    ({"KeyState": "Unavailable"}, Unreachable, "can't be used at present"),
    ({"KeyState": "Creating"}, Unreachable, "can't be used at present"),
    ({"KeyState": "Unheard"}, Refused, "does not allow to use it (Unheard)"),
    ({"KeyState": "Enabled", "KeyManager": "AWS"}, Misconfigured, "managed by AWS"),
    ({"KeyState": "Enabled", "KeySpec": "RSA_2048"}, Misconfigured, "RSA_2048"),
    ({"KeyState": "Enabled", "KeyUsage": "SIGN_VERIFY"}, Misconfigured, "SIGN_VERIFY"),
    ({"KeyState": "\x1b[31m"}, Misconfigured, "not one of AWS KMS"),
    ({"KeyState": "Enabled", "Arn": "arn:aws:s3:::x"}, Misconfigured, "not one of AWS KMS"),
)


@pytest.mark.parametrize(("metadata", "expected", "words"), STATES, ids=repr)
def test_every_state_of_a_key_has_its_class_and_its_words(
    ground: Ground, metadata: Mapping[str, object], expected: type[AnchorError] | None, words: str
) -> None:
    answer = json.dumps({"KeyMetadata": {**METADATA, **metadata}}).encode()
    ground.relay.now["DescribeKey"] = Answers(answer)
    if expected is None:
        probe(ground.anchor)
        return
    assert words in failure(lambda: probe(ground.anchor), expected).seen


# --- answers that AWS would not give

ODD_ANSWERS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"<html>",
    b"\xff\xfe",
    b'{"Plaintext": 1}',
    b'{"Plaintext": "!", "KeyId": "x"}',
    b'{"KeyMetadata": [], "CiphertextBlob": {}, "KeyId": 0}',
    b'{"KeyMetadata": {"Arn": 1, "CreationDate": "never"}}',
    b'{"KeyMetadata": {"CreationDate": 1e400}}',
    b'{"CiphertextBlob": "", "KeyId": "' + ARN.encode() + b'"}',
    b'{"CiphertextBlob": "'
    + base64.b64encode(bytes(6145))
    + b'", "KeyId": "'
    + ARN.encode()
    + b'"}',
    b"[" * 100_000,
)


@pytest.mark.parametrize("body", ODD_ANSWERS, ids=lambda body: repr(body[:40]))
def test_an_answer_that_aws_would_not_give_is_named_as_such(ground: Ground, body: bytes) -> None:
    for operation in ("Encrypt", "Decrypt", "DescribeKey"):
        ground.relay.now[operation] = Answers(body)
    for call in (lambda: seal(ground.anchor), ground.opens, lambda: probe(ground.anchor)):
        assert "not one of AWS KMS" in failure(call, Misconfigured).seen


def test_a_plaintext_that_is_no_secret_is_damage(ground: Ground) -> None:
    arn = base64.b64decode(str(ground.sealed["key"])).decode()
    ground.relay.now["Decrypt"] = Answers(json.dumps({"KeyId": arn, "Plaintext": "AAAA"}).encode())
    assert "3 bytes" in failure(ground.opens, Damaged).seen


def test_what_another_key_opened_is_not_taken(ground: Ground) -> None:
    plaintext = base64.b64encode(bytes(32)).decode()
    ground.relay.now["Decrypt"] = Answers(
        json.dumps({"KeyId": ARN, "Plaintext": plaintext}).encode()
    )
    failure(ground.opens, Misconfigured)


def test_an_answer_without_an_end_is_not_read(ground: Ground) -> None:
    ground.relay.now["Decrypt"] = Floods()
    assert "more than" in failure(ground.opens, Misconfigured).seen


def test_a_page_of_a_proxy_is_no_answer_of_kms(ground: Ground) -> None:
    ground.relay.now["Decrypt"] = Answers(b"<html>blocked</html>", 403, "text/html")
    error = failure(ground.opens, Refused)
    assert "answered 403" in error.seen
    assert "proxy" in error.means


# --- the way to AWS


def test_down(aws: Moto) -> None:
    with Relay(aws.endpoint) as relay:
        anchor = kms(relay, aws.create_key())
        sealed = seal(anchor)
    error = failure(lambda: opens(anchor, sealed), Unreachable)
    assert error.seen == f"127.0.0.1:{relay.port} can't be reached: Connection refused"


def test_hang(ground: Ground) -> None:
    ground.relay.now["Decrypt"] = Hangs()
    ground.anchor.deadline_s = 0.4
    assert "no answer" in failure(ground.opens, Unreachable).seen
    ground.relay.now["Decrypt"] = Passes()
    ground.anchor.deadline_s = 10
    assert ground.opens()


def test_slow(ground: Ground) -> None:
    ground.relay.now["Decrypt"] = Passes(after_s=0.5)
    ground.anchor.deadline_s = 5
    assert ground.opens()


@pytest.mark.parametrize("cut", [Cuts(), Cuts(in_the_middle=True)], ids=repr)
def test_flapping(ground: Ground, cut: Behaviour) -> None:
    ground.relay.script["Decrypt"] = [cut, Passes(), cut, Says("InternalFailure", 500), Passes()]
    assert "cut off" in failure(ground.opens, Unreachable).seen
    assert ground.opens()
    failure(ground.opens, Unreachable)
    failure(ground.opens, Unreachable)
    assert ground.opens()


def test_damaged(ground: Ground) -> None:
    flipped = bytearray(base64.b64decode(str(ground.sealed["ciphertext"])))
    flipped[-1] ^= 1
    for damage in ({"ciphertext": base64.b64encode(flipped).decode()}, {"key": "AAAA"}, {"x": 1}):
        sealed = {**ground.sealed, **damage}
        failure(lambda: opens(ground.anchor, sealed), Damaged)  # noqa: B023 - called at once


def test_a_name_that_nobody_knows() -> None:
    anchor = AwsKmsAnchor("cloud", key=ARN, endpoint="https://kms.invalid")
    assert "the name of kms.invalid:443" in failure(lambda: probe(anchor), Unreachable).seen


def test_a_region_that_is_none_is_misconfigured() -> None:
    anchor = AwsKmsAnchor("cloud", key="alias/any", region="xx-nowhere-9")
    assert "no region xx-nowhere-9" in failure(lambda: probe(anchor), Misconfigured).seen


def test_a_proxy_that_is_down_is_not_taken_for_aws(
    aws: Moto, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Relay(aws.endpoint) as gone:
        monkeypatch.setenv("HTTPS_PROXY", gone.endpoint)
    anchor = AwsKmsAnchor("cloud", key="alias/any", region=REGION)
    assert "the proxy" in failure(lambda: probe(anchor), Unreachable).seen


def test_tls(aws: Moto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = Authority(tmp_path / "ca")
    arn = aws.create_key()
    with Relay(aws.endpoint, ca.issue("kms", "127.0.0.1")) as relay:
        anchor = kms(relay, arn)
        error = failure(lambda: probe(anchor), Refused)
        assert "certificate" in error.seen
        assert "AWS_CA_BUNDLE" in error.next_step
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca.certificate))
        assert opens(anchor, seal(anchor))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "gone"))
        assert "AWS_CA_BUNDLE" in failure(lambda: probe(anchor), Misconfigured).next_step
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca.certificate))
    with Relay(aws.endpoint, ca.issue("other", "other.example")) as relay:
        assert "certificate" in failure(lambda: probe(kms(relay, arn)), Refused).seen


def test_an_endpoint_without_tls_where_tls_is_expected(aws: Moto) -> None:
    endpoint = aws.endpoint.replace("http:", "https:")
    anchor = AwsKmsAnchor("cloud", key=ARN, endpoint=endpoint)
    assert "no TLS connection" in failure(lambda: probe(anchor), Refused).seen


# --- whatever botocore raises

PREPARING: tuple[tuple[Exception, type[AnchorError], str], ...] = (
    (aws_errors.UnauthorizedSSOTokenError(), Refused, "sign-in"),
    (aws_errors.TokenRetrievalError(provider="x", error_msg="hunter2"), Refused, "sign-in"),
    (aws_errors.LoginRefreshRequired(), Refused, "sign-in"),
    (aws_errors.MetadataRetrievalError(error_msg="hunter2"), Refused, "gave none"),
    (aws_errors.NoRegionError(), Misconfigured, "no AWS region"),
    (aws_errors.InvalidRegionError(region_name="hunter2"), Misconfigured, "no endpoint"),
    (aws_errors.UnknownEndpointError(service_name="", region_name=""), Misconfigured, "endpoint"),
    (aws_errors.InvalidConfigError(error_msg="hunter2"), Misconfigured, "can't be used"),
    (aws_errors.ConfigParseError(path="hunter2"), Misconfigured, "can't be used"),
    (ValueError("hunter2"), Misconfigured, "can't be used"),
    (OSError(5, "Input/output error", "hunter2"), Unreachable, "Input/output error"),
    (PermissionError(13, "Permission denied", "hunter2"), Misconfigured, "Permission denied"),
    (TimeoutError("hunter2"), Unreachable, "no answer in time"),
)


@pytest.mark.parametrize(
    ("error", "expected", "words"), PREPARING, ids=lambda value: repr(value)[:40]
)
def test_what_keeps_aws_from_being_asked_has_its_class_and_no_foreign_text(
    error: Exception, expected: type[AnchorError], words: str
) -> None:
    said = not_prepared(error)
    assert type(said) is expected
    assert words in said.seen
    assert "hunter2" not in said.seen + said.means + said.next_step


def test_a_name_server_that_is_down_does_not_make_a_known_region_misconfigured() -> None:
    key = ConnectionKey("kms.eu-west-1.amazonaws.com", 443, True, True, None, None, None)
    dns = aiohttp.ClientConnectorDNSError(key, socket.gaierror(-3, "temporary failure"))
    error = aws_errors.EndpointConnectionError(endpoint_url="https://x", error=dns)
    assert isinstance(failed(error, Ask("Decrypt", ARN, "x:443")), Unreachable)
    assert isinstance(failed(error, Ask("Decrypt", ARN, "x:443", "eu-nowhere-9")), Misconfigured)


# --- whatever comes from outside

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
NAMES = st.sampled_from(["KeyMetadata", "Arn", "KeyId", "Plaintext", "CiphertextBlob", "KeyState"])
ANSWERS = st.dictionaries(NAMES, VALUES | st.binary() | st.just(ARN) | st.just(METADATA))
TEXTS = st.text() | st.from_regex(r"arn:aws:kms:[a-z0-9-]*:[0-9]*:(key|alias)/.*") | st.just(ARN)


def only_kluis(call: object, *arguments: object) -> None:
    assert callable(call)
    with suppress(KluisError):
        call(*arguments)


@given(st.dictionaries(st.sampled_from(["ciphertext", "key", "x"]), VALUES))
def test_no_leaf_bursts(sealed: Mapping[str, JSON]) -> None:
    only_kluis(read_leaf, sealed)


@given(ANSWERS)
def test_no_answer_bursts(answer: Mapping[str, object]) -> None:
    arn = parse_arn(ARN)
    assert arn is not None
    only_kluis(sealed_by, answer)
    only_kluis(opened_by, answer, arn)
    only_kluis(Key.of, answer)


@given(TEXTS)
def test_no_name_bursts_and_an_arn_survives(text: str) -> None:
    only_kluis(parse_name, text)
    parse_alias(text)
    if (arn := parse_arn(text)) is not None:
        assert str(arn) == text


@given(
    body=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()),
    status=st.sampled_from([200, 204, 301, 400, 403, 404, 418, 500, 599]),
)
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_whatever_a_server_answers_is_an_error_of_kluis(
    ground: Ground, body: bytes, status: int
) -> None:
    ground.relay.now["*"] = Answers(body, status)
    with pytest.raises(AnchorError) as caught:
        asyncio.run(ground.anchor.open(ground.sealed, b"context"))
    assert "unexpected" not in caught.value.seen
