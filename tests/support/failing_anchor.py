"""An anchor that does on command what real anchors do at the worst moment.

    anchor = FailingAnchor("nas")            # works
    anchor.now = Hanging()                   # answers no more
    anchor.now = Flapping(Down(), Works())   # down for one call, then good again

It seals for real: AES-256-GCM under a key of its own, with the context as associated data.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from kluis.anchors.base import Anchor, Pace
from kluis.errors import AnchorError, Damaged, Missing, Refused, TagMismatch, Unreachable
from kluis.keyring import crypto
from kluis.keyring.strict import JSON, Fields, to_base64
from kluis.secret import Secret

FAR_AWAY_S = 3600.0


@dataclass(frozen=True)
class Works:
    """Does what it should, at once."""


@dataclass(frozen=True)
class Down:
    """Can't be reached."""


@dataclass(frozen=True)
class Slow:
    """Does what it should, after a while."""

    seconds: float


@dataclass(frozen=True)
class Hanging:
    """Never answers."""


@dataclass(frozen=True)
class HangingThread:
    """Never answers, and what hangs is a thread, which nobody can stop until ``end`` is set."""

    end: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class IgnoresCancellation:
    """Never answers, and takes no notice of being cancelled until ``end`` is set."""

    end: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class WrongAnswer:
    """Opens, but gives another secret."""


@dataclass(frozen=True)
class Refuses:
    """Answers no."""


@dataclass(frozen=True)
class IsMissing:
    """Its key is gone."""


@dataclass(frozen=True)
class IsDamaged:
    """Says that the sealed bytes are damaged."""


@dataclass(frozen=True)
class Raises:
    """Raises what no anchor should."""

    error: BaseException


@dataclass(frozen=True)
class Answers:
    """Seals into this, whatever it is."""

    sealed: Mapping[str, JSON]


class Flapping:
    """One behaviour a call; the last one stays."""

    def __init__(self, *script: Behaviour) -> None:
        self._script = list(script)

    def next(self) -> Behaviour:
        """The behaviour of this call."""
        return self._script.pop(0) if len(self._script) > 1 else self._script[0]


Behaviour = (
    Works
    | Down
    | Slow
    | Hanging
    | HangingThread
    | IgnoresCancellation
    | WrongAnswer
    | Refuses
    | IsMissing
    | IsDamaged
    | Raises
    | Answers
    | Flapping
)

_SAID: dict[type, AnchorError] = {
    Down: Unreachable("connection refused", "it is down", "start it"),
    Refuses: Refused("permission denied", "its policy says no", "ask its owner"),
    IsMissing: Missing("no such key", "somebody deleted it", "restore it"),
    IsDamaged: Damaged("the sealed bytes are damaged", "bits rot", "seal it anew"),
}


class FailingAnchor(Anchor):
    """A programmable anchor. ``now`` is what it does from now on; it counts what it is asked."""

    kind = "failing"
    pace = Pace(0.001, 0.004)

    def __init__(
        self, name: str = "failing", now: Behaviour | None = None, deadline_s: float = 10.0
    ) -> None:
        super().__init__(name, deadline_s)
        self.now: Behaviour = now or Works()
        self.calls: Counter[str] = Counter()
        self.cancelled = 0
        self.rotated = ""
        """Why every leaf of it should be sealed anew, until a test says otherwise."""
        self.asked = asyncio.Event()
        """Set when a call arrives; a test may clear it."""
        self._key = crypto.Aead(crypto.random_bytes(crypto.KEY_BYTES))

    async def _seal(self, secret: Secret, context: bytes) -> Mapping[str, JSON]:
        behaviour = await self._behave("seal")
        if isinstance(behaviour, Answers):
            return behaviour.sealed
        return {"box": to_base64(self._key.seal(secret.reveal(), context))}

    async def _open(self, sealed: Mapping[str, JSON], context: bytes) -> Secret:
        behaviour = await self._behave("open")
        fields = Fields(dict(sealed), "sealed")
        box = fields.base64("box", crypto.NONCE_BYTES + 32 + crypto.TAG_BYTES)
        fields.done()
        try:
            secret = Secret(self._key.open(box, context))
        except TagMismatch:
            raise Damaged("another key or context", "it was swapped", "seal it anew") from None
        return Secret.random() if isinstance(behaviour, WrongAnswer) else secret

    async def _probe(self) -> None:
        await self._behave("probe")

    async def _knock(self) -> None:
        """Nobody is there while it is down or hangs. A knock moves no script on."""
        self.calls["knock"] += 1
        if isinstance(self.now, Down | Hanging):
            await self._suffer(self.now)

    async def _outdated(self, sealed: Mapping[str, JSON]) -> str:
        return self.rotated

    async def _behave(self, call: str) -> Behaviour:
        self.calls[call] += 1
        self.asked.set()
        behaviour = self.now
        while isinstance(behaviour, Flapping):
            behaviour = behaviour.next()
        try:
            await self._suffer(behaviour)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return behaviour

    async def _suffer(self, behaviour: Behaviour) -> None:
        match behaviour:
            case Slow(seconds):
                await asyncio.sleep(seconds)
            case Hanging():
                await asyncio.sleep(FAR_AWAY_S)
            case HangingThread(end):
                await self._in_thread(end.wait)
            case IgnoresCancellation(end):
                await _ignoring_cancellation(end)
            case Raises(error):
                raise error
            case Down() | Refuses() | IsMissing() | IsDamaged():
                said = _SAID[type(behaviour)]
                raise type(said)(said.seen, said.means, said.next_step)
            case _:
                pass


async def _ignoring_cancellation(end: asyncio.Event) -> None:
    while not end.is_set():
        try:
            await end.wait()
        except asyncio.CancelledError:
            continue
