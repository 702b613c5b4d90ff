"""From the error codes of AWS to the errors of an anchor. AWS's own texts go nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from botocore.exceptions import ClientError

from kluis.errors import AnchorError, Damaged, Misconfigured, Missing, Refused, Unreachable

MAX_SKEW: Final = timedelta(minutes=5)
"""What AWS lets the time of a signature differ from its own."""
BUSY_S: Final = 5.0
"""How long to leave AWS alone when it is busy and does not say how long."""
LONGEST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One call: what is asked, of which key, and at which ``host:port``."""

    operation: str
    key: str
    place: str
    strange_region: str = ""
    """The region that was asked in, where botocore knows none of that name."""


def answered(error: ClientError, ask: Ask) -> AnchorError:
    """What an answer of AWS that is an error comes to."""
    response = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode", 0)
    if code in _BUSY or status == 429 or status >= 500:
        return _busy(ask, metadata.get("HTTPHeaders", {}))
    if code in _SIGNATURE and (skew := _skew(metadata.get("HTTPHeaders", {}))):
        return _wrong_clock(skew)
    if code in _CREDENTIALS:
        return _CREDENTIALS[code]()
    if error.operation_name != ask.operation:  # another service, on the way to credentials
        return _no_role(error.operation_name)
    if code in _INVALID:
        return _invalid(ask)
    return _KEY[code](ask) if code in _KEY else _refused(ask, code, status)


def _busy(ask: Ask, headers: Mapping[str, str]) -> Unreachable:
    told = headers.get("retry-after", "")
    wait_s = float(told) if told.isascii() and told.isdigit() and len(told) < 6 else BUSY_S
    return Unreachable(
        f"AWS KMS is busy: it did not do {ask.operation}",
        "it has trouble, or this account asks it more often than it allows",
        "nothing: kluis asks again; should it last, look at the quotas of this account",
        retry_s=min(max(wait_s, 1.0), LONGEST_WAIT_S),
    )


def _denied(ask: Ask) -> Refused:
    seen = f"AWS KMS denies kms:{ask.operation} on {ask.key}"
    if ask.operation == "DescribeKey":
        return Refused(
            seen,
            "so it is not known whether the key works; kms:Decrypt may be allowed all the same",
            "allow kms:DescribeKey on this key, or open it for real: kluis verify",
        )
    return Refused(
        seen,
        "neither the key's policy nor that of these credentials allows it, or another forbids it",
        f"allow kms:{ask.operation} on this key; docs/ANCHORS.md has a policy",
    )


def _missing(ask: Ask) -> Missing:
    return Missing(
        f"{ask.key} is not there",
        "the key or its alias was deleted, or is in another region or account",
        "check key and region in the settings; a deleted key is gone for good",
    )


def _damaged(ask: Ask) -> Damaged:
    return Damaged(
        f"{ask.key} did not seal these bytes",
        "the leaf is damaged, or another keyring's: the encryption context is part of it",
        "once the keyring is open by another way, kluis heal seals it anew",
    )


def _wrong_use(ask: Ask) -> Misconfigured:
    return Misconfigured(
        f"{ask.key} can't do {ask.operation}",
        "the anchor needs a symmetric key that encrypts and decrypts",
        "make one with: aws kms create-key, and set key to it",
    )


def _invalid(ask: Ask) -> AnchorError:
    if ask.operation == "Decrypt":  # all that was asked with came from the leaf
        return _damaged(ask)
    return Misconfigured(
        f"AWS KMS can't use the name {ask.key}",
        "it is not the name of a key, or of another partition of AWS",
        "check key in the settings: aws kms list-aliases shows the names",
    )


def disabled(key: str) -> Refused:
    """A key that is switched off."""
    return Refused(
        f"{key} is disabled",
        "somebody switched the key off",
        "switch it on: aws kms enable-key",
    )


def wrong_state(key: str, state: str = "") -> Refused:
    """A key whose state forbids to use it."""
    return Refused(
        f"the state of {key} does not allow to use it{state}",
        "it may be scheduled for deletion, or have no key material",
        "look at it: aws kms describe-key",
    )


def not_kms(operation: str) -> Misconfigured:
    """An answer that AWS KMS would not give."""
    return Misconfigured(
        f"the answer to {operation} is not one of AWS KMS",
        "another service listens there, or something in between changed the answer",
        "check endpoint and region in the settings, and the proxy",
    )


def _refused(ask: Ask, code: str, status: int) -> Refused:
    known = code if code.isascii() and code.isalnum() and len(code) <= 64 else str(status)
    return Refused(
        f"AWS KMS answered {known} to {ask.operation} on {ask.key}",
        "it, a policy of the account, or a proxy in between does not allow it",
        "look it up in AWS's documentation of this error, and in CloudTrail",
    )


def _no_role(operation: str) -> Refused:
    return Refused(
        f"AWS did not do {operation}, by which the profile gets its credentials",
        "the role is not there, or does not trust who asks for it",
        "check the profile, the role, and the policy of its trust",
    )


def _expired() -> Refused:
    return Refused(
        "the AWS credentials have expired",
        "they were temporary, and nothing renewed them",
        "renew them (aws sso login, say), or give kluis a role that renews by itself",
    )


def _unknown_credentials() -> Refused:
    return Refused(
        "AWS does not know these credentials",
        "the access key was deleted, was switched off or lacks its session token, or is not for"
        " this region",
        "give kluis valid ones, and check: aws sts get-caller-identity",
    )


def _wrong_signature() -> Refused:
    return Refused(
        "AWS does not accept the signature of the credentials",
        "the secret access key does not belong to the access key",
        "give kluis valid ones, and check: aws sts get-caller-identity",
    )


def _wrong_time() -> Refused:
    return Refused(
        "AWS does not accept the time of the signature",
        "the clock of this machine is wrong",
        "set the clock: timedatectl set-ntp true",
    )


def _wrong_clock(skew: timedelta) -> Refused:
    minutes = round(abs(skew) / timedelta(minutes=1))
    return Refused(
        f"the clock of this machine is {minutes} minutes {'behind' if skew > _NONE else 'ahead'}",
        "AWS accepts a signature for 5 minutes only",
        "set the clock: timedatectl set-ntp true",
    )


_NONE: Final = timedelta()


def _skew(headers: Mapping[str, str]) -> timedelta | None:
    """How far AWS's clock is ahead of ours; None when not too far, or not told."""
    try:
        theirs = parsedate_to_datetime(headers.get("date", ""))
        skew = theirs - datetime.now(UTC)
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
        return None
    return skew if abs(skew) > MAX_SKEW else None


_CREDENTIALS: Final[Mapping[str, Callable[[], AnchorError]]] = {
    "ExpiredToken": _expired,
    "ExpiredTokenException": _expired,
    "InvalidAccessKeyId": _unknown_credentials,
    "InvalidClientTokenId": _unknown_credentials,
    "InvalidSignatureException": _wrong_signature,
    "MissingAuthenticationToken": _unknown_credentials,
    "MissingAuthenticationTokenException": _unknown_credentials,
    "RequestExpired": _wrong_time,
    "RequestTimeTooSkewed": _wrong_time,
    "SignatureDoesNotMatch": _wrong_signature,
    "UnrecognizedClientException": _unknown_credentials,
}
_SIGNATURE: Final = {code for code, made in _CREDENTIALS.items() if made is not _expired}
_KEY: Final[Mapping[str, Callable[[Ask], AnchorError]]] = {
    "AccessDenied": _denied,
    "AccessDeniedException": _denied,
    "DisabledException": lambda ask: disabled(ask.key),
    "IncorrectKeyException": _damaged,
    "InvalidCiphertextException": _damaged,
    "InvalidKeyUsageException": _wrong_use,
    "KMSInvalidStateException": lambda ask: wrong_state(ask.key),
    "NotFoundException": _missing,
    "UnsupportedOperationException": _wrong_use,
}
_INVALID: Final = {"InvalidArnException", "ValidationError", "ValidationException"}
_BUSY: Final = {
    "DependencyTimeoutException",
    "InternalFailure",
    "KMSInternalException",
    "KeyUnavailableException",
    "LimitExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
