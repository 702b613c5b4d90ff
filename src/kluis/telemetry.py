"""The names of logs and metrics. Payloads have no place here: only names, counts and words."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import Any, Final, TextIO, cast

import structlog

REQUESTS: Final = "kluis_requests"
UNSEALS: Final = "kluis_unseals"
HELD: Final = "kluis_held_requests"
WAITED: Final = "kluis_held_seconds"
CONNECTIONS: Final = "kluis_connections"
DENIALS: Final = "kluis_denials"
KEYRING_OPEN: Final = "kluis_keyring_open"
KEYRING_REVISION: Final = "kluis_keyring_revision"
KEYRING_EPOCH: Final = "kluis_keyring_epoch"
ANCHOR_OK: Final = "kluis_anchor_ok"
ANCHOR_NOTICE: Final = "kluis_anchor_notice"
HEALS: Final = "kluis_heals"
CLIENT_EXPIRY: Final = "kluis_client_token_expiry_seconds"

SERVER_NODE: Final = "kluis_server_node"
SERVER_ALARM: Final = "kluis_server_alarm"
SERVER_DOWN: Final = "kluis_server_down_seconds"
SERVER_HELD: Final = "kluis_server_held"
SERVER_HOLD: Final = "kluis_server_hold_seconds"
SERVER_CERTIFICATE_EXPIRY: Final = "kluis_server_certificate_expiry_seconds"
SHARES_SENT: Final = "kluis_server_shares_sent"
RECOVERY: Final = "kluis_recovery_seconds"
UNSEALING: Final = "kluis_unsealing_seconds"
WAKES: Final = "kluis_wakes"
FACADE_CERTIFICATE_EXPIRY: Final = "kluis_facade_certificate_expiry_seconds"


class _StandardError(io.TextIOBase):
    """Standard error as it is now; when it can't be written, say on a full disk, nothing fails."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
        return len(text)


def logger() -> Any:
    """The log of the service: one JSON object a line, on standard error. Never raises OSError."""
    return structlog.wrap_logger(
        structlog.PrintLogger(cast(TextIO, _StandardError())),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
