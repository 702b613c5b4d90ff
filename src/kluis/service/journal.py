"""What people do with keys, on record in the audit log, between what servers do with them.

A record says who (the user id at the other end of the control socket), what, and which key and
version. It is written before anything is released or changed; if it can't be, nothing is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from kluis.errors import KluisError
from kluis.facade.audit import AuditLog, members
from kluis.service.house import House

asking_user: Final[ContextVar[int | None]] = ContextVar("asking_user", default=None)
"""The user id of who asks over the control socket; None: it is this process's own user."""


def record(house: House, event: str, verdict: str = "released", **fields: str) -> None:
    """Put something on record. Raises AuditError; then it must not be done."""
    user = asking_user.get()
    about = members(
        event=event, user=str(os.getuid() if user is None else user), **fields, verdict=verdict
    )
    if house.audit is not None:
        house.audit.record(about)
    elif house.blueprint.audit is not None:
        log = AuditLog(house.blueprint.audit)  # nobody else writes it: the folders are ours
        try:
            log.record(about)
        finally:
            log.close()


@contextmanager
def recorded(house: House, event: str, **fields: str) -> Iterator[None]:
    """Put a change on record before it is made; once more if it fails. Raises AuditError."""
    record(house, event, **fields)
    try:
        yield
    except KluisError:
        record(house, event, "failed", **fields)
        raise
