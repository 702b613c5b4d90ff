"""One attempt to unseal a node: the missing shares, one by one, over one proven connection.

Before the first share, and after each one, the state of the seal is read again on that same
connection. Never more shares than the threshold go out in one attempt, and always the same ones, so
that no number of attempts shows a server more of them. What others entered counts: a share that the
server has already changes nothing there, and the next one follows. Nothing is ever reset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kluis.errors import ServerAnswered, ServerError, ServerHung, ServerUnreachable
from kluis.servers.client import SealStatus
from kluis.servers.watch.attempts import Outcome

_BAD_REQUEST: Final = 400


class Taker(Protocol):
    """What takes shares: a ``probing.Line``."""

    async def seal_status(self) -> SealStatus:
        """The state of the seal. Raises ServerError."""
        ...

    async def unseal(self, share: str) -> None:
        """Send one share, in hex. Raises ServerError."""
        ...


@dataclass(slots=True)
class Attempt:
    """``fits`` says whether the node may get shares as it is now; it is asked before each one.

    ``sent`` counts the shares that went out, also when the attempt is cancelled.
    """

    taker: Taker
    shares: Sequence[bytes]
    fits: Callable[[SealStatus], bool]
    sent: int = 0

    async def make(self) -> Outcome:
        """Make it. Raises no ServerError: what a server answers to a share may be that share."""
        try:
            before = await self.taker.seal_status()
        except ServerError as error:
            return _failed(error)
        ours = before.progress == 0
        for share in self.shares[: before.threshold]:
            if not self.fits(before):
                return Outcome.STOPPED if self.sent == 0 else Outcome.DISTURBED
            refused = await self._send(share)
            if refused is not None:
                return refused if ours or refused is not Outcome.REFUSED else Outcome.DISTURBED
            try:
                after = await self.taker.seal_status()
            except ServerError as error:
                return _failed(error)
            ended = _ended(before, after)
            if ended is not None:
                return ended
            ours = ours and after.progress == before.progress + 1
            before = after
        return Outcome.DISTURBED  # all of them, and it still wants more: they were reset

    async def _send(self, share: bytes) -> Outcome | None:
        """Send one share; None when it was taken."""
        self.sent += 1
        try:
            await self.taker.unseal(share.hex())
        except ServerHung:
            return Outcome.WORKING
        except ServerAnswered as error:
            return Outcome.REFUSED if error.status == _BAD_REQUEST else Outcome.FAILED
        except ServerError as error:
            return _failed(error)
        return None


def _failed(error: ServerError) -> Outcome:
    broken = isinstance(error, ServerUnreachable | ServerHung)
    return Outcome.BROKEN if broken else Outcome.FAILED


def _ended(before: SealStatus, after: SealStatus) -> Outcome | None:
    """How an attempt ended with the last share; None when it goes on."""
    if not after.sealed:
        return Outcome.UNSEALED
    if after.progress == 0:
        # A node that joins a cluster says so, and goes on (hashicorp/vault#17953).
        enough = before.progress + 1 >= before.threshold
        return Outcome.WORKING if enough else Outcome.DISTURBED
    if before.nonce and after.nonce != before.nonce:
        return Outcome.DISTURBED
    return None
