"""From the failures of AWS's libraries to the errors of an anchor.

They are told apart by the class of botocore's exception, and of what caused it; what AWS answered,
by its error codes (awskms_answers.py). Nobody's text goes into an error.
"""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Callable
from typing import Final

import aiohttp
from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from kluis.anchors.awskms.answers import Ask, answered, not_kms
from kluis.errors import AnchorError, Misconfigured, Refused, Unreachable

_NETWORK: Final = (
    aiohttp.ClientError,
    OSError,  # TimeoutError and ssl.SSLError among them
    aws.ConnectionError,
    aws.HTTPClientError,
)
_STRANGE_ANSWER: Final = (
    ResponseParserError,
    AttributeError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)
FAILURES: Final = (aws.ClientError, aws.BotoCoreError, *_NETWORK, *_STRANGE_ANSWER)
"""All that a call by botocore may raise."""

_PREPARING: Final = Ask("", "", "the service that gives the AWS credentials")


def not_prepared(error: Exception) -> AnchorError:
    """What keeps AWS's libraries from asking at all: settings, files, credentials."""
    return failed(error, _PREPARING)


def failed(error: Exception, ask: Ask) -> AnchorError:
    """What a failed call comes to; ``error`` is one of FAILURES."""
    if isinstance(error, aws.ClientError):
        return answered(error, ask)
    if isinstance(error, _NETWORK):
        return _not_connected(error, ask)
    if isinstance(error, aws.BotoCoreError):
        return _not_ready(error)
    if ask is not _PREPARING:
        return not_kms(ask.operation)
    no_answer = isinstance(error, ResponseParserError)
    return _credentials_not_given() if no_answer else _unusable_settings(error)


def _not_ready(error: aws.BotoCoreError) -> AnchorError:
    for classes, made in _NOT_READY:
        if isinstance(error, classes):
            return made()
    return _unusable_settings(error)


def _not_connected(error: Exception, ask: Ask) -> AnchorError:
    if isinstance(error, aws.ProxyConnectionError):
        return Unreachable(
            "the proxy on the way to AWS can't be reached",
            "HTTPS_PROXY or the AWS settings name one, and it does not answer",
            "check it, or take AWS out of it: NO_PROXY",
        )
    cause = _cause(error)
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return _unknown_name(ask)
    if isinstance(cause, aiohttp.ClientSSLError | ssl.SSLError):
        return _tls_failed(cause, ask)
    if isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError):
        return _unreadable(cause)  # AWS_CA_BUNDLE, say
    if isinstance(cause, ValueError):  # what can't stand in a header
        return _unusable_settings(cause)
    return _unreachable(cause, ask)


def _cause(error: Exception) -> Exception:
    """What botocore's own exception wraps."""
    wrapped = error.kwargs.get("error") if isinstance(error, aws.BotoCoreError) else None
    return wrapped if isinstance(wrapped, Exception) else error


def _tls_failed(cause: Exception, ask: Ask) -> Refused:
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return Refused(
            f"the certificate of {ask.place} is not accepted",
            "no known authority signed it, it expired, or it names another host",
            "name the file of its certificate authority: AWS_CA_BUNDLE, or ca_bundle in AWS's file",
        )
    return Refused(
        f"no TLS connection with {ask.place}",
        "it does not speak TLS there, or something in between breaks it",
        "check endpoint in the settings, and the proxy",
    )


def _unreachable(cause: Exception, ask: Ask) -> Unreachable:
    timeouts = (aws.ConnectTimeoutError, aws.ReadTimeoutError, TimeoutError)
    if isinstance(cause, timeouts):
        words = "no answer in time"
    else:
        number = cause.errno if isinstance(cause, OSError) else None
        words = os.strerror(number) if number and number > 0 else "cut off"
    return Unreachable(
        f"{ask.place} can't be reached: {words}",
        "AWS or the way to it is cut, or a firewall or a proxy is missing",
        "check the connection of this machine, and endpoint in the settings",
    )


def _unknown_name(ask: Ask) -> AnchorError:
    if ask.strange_region:
        return Misconfigured(
            f"AWS has no region {ask.strange_region}",
            "no server has its name, and it is not among the regions that botocore knows",
            "check region in the settings",
        )
    return Unreachable(
        f"the name of {ask.place} is not known",
        "the name server does not answer, or the name is wrong",
        "check the name resolution of this machine, and region and endpoint in the settings",
    )


def no_region() -> Misconfigured:
    """No region is set anywhere."""
    return Misconfigured(
        "no AWS region is set",
        "a key is in one region, and nothing says in which",
        "set region, or name the key by its ARN; AWS_DEFAULT_REGION would do too",
    )


def _no_such_place() -> Misconfigured:
    return Misconfigured(
        "AWS KMS has no endpoint for these settings",
        "the region, or what the AWS settings say of FIPS and dual stack, does not fit",
        "check region and endpoint in the settings, and AWS_USE_FIPS_ENDPOINT",
    )


def _no_profile() -> Misconfigured:
    return Misconfigured(
        "AWS's files have no such profile",
        "profile in the settings, or AWS_PROFILE, names one that is not there",
        "aws configure list-profiles shows them; HOME of the service may be another",
    )


def _no_credentials() -> Misconfigured:
    return Misconfigured(
        "no AWS credentials were found",
        "neither the environment, AWS's files nor the machine's role gave any",
        "give kluis a role (instance, container, web identity), a profile, or AWS_ACCESS_KEY_ID"
        " and AWS_SECRET_ACCESS_KEY",
    )


def _half_the_credentials() -> Misconfigured:
    return Misconfigured(
        "the AWS credentials are not complete",
        "the access key is there without its secret key, or the other way round",
        "give both: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or both lines of the profile",
    )


def _not_signed_in() -> Refused:
    return Refused(
        "the sign-in of the AWS profile has ended",
        "nobody signed in, or it expired",
        "aws sso login; for a service, take a role that needs no sign-in",
    )


def _credentials_not_given() -> Refused:
    return Refused(
        "what should give the AWS credentials gave none",
        "the program of the profile failed, or the metadata service of the machine did",
        "try it as the user kluis runs as: aws sts get-caller-identity",
    )


def _unreadable(error: OSError) -> Misconfigured:
    return Misconfigured(
        f"a file that the AWS settings name can't be read: {os.strerror(error.errno or errno.EIO)}",
        "it holds a token, a profile or the certificate authorities",
        "check AWS_WEB_IDENTITY_TOKEN_FILE, AWS_CA_BUNDLE and AWS's files, and who may read them",
    )


def _unusable_settings(error: Exception) -> Misconfigured:
    return Misconfigured(
        f"the AWS settings can't be used ({type(error).__name__})",
        "a value in the environment or in AWS's files is not what it should be",
        "check them: aws sts get-caller-identity, as the user kluis runs as",
    )


_NOT_READY: Final[tuple[tuple[tuple[type[Exception], ...], Callable[[], AnchorError]], ...]] = (
    ((aws.ProfileNotFound,), _no_profile),
    ((aws.NoCredentialsError,), _no_credentials),
    ((aws.PartialCredentialsError,), _half_the_credentials),
    ((aws.NoRegionError,), no_region),
    (
        (
            aws.EndpointProviderError,
            aws.EndpointVariantError,
            aws.InvalidEndpointConfigurationError,
            aws.InvalidRegionError,
            aws.UnknownEndpointError,
        ),
        _no_such_place,
    ),
    (
        (aws.LoginError, aws.NoAuthTokenError, aws.SSOError, aws.TokenRetrievalError),
        _not_signed_in,
    ),
    (
        (
            aws.CredentialRetrievalError,
            aws.MetadataRetrievalError,
            aws.RefreshWithMFAUnsupportedError,
        ),
        _credentials_not_given,
    ),
)
