"""How attempts to unseal a node went, and when the next one may be. Nothing here has I/O.

Shares that a server refused, or that somebody else disturbs, are not sent again and again: the
pause after each attempt doubles. A server that took all of them and still says that it is sealed is
at work on them: a node that joins a raft cluster first fetches the cluster's data. Until it is
restarted, an error that it answers to the same shares only means that it is not done (measured on
OpenBao 2.7.2, while it does not reach the cluster's other nodes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final


class Outcome(Enum):
    """How an attempt ended."""

    UNSEALED = auto()
    WORKING = auto()  # it took enough shares, or did not answer in time: it may still be at it
    REFUSED = auto()  # and every share was ours
    DISTURBED = auto()  # others entered shares meanwhile, or reset what was entered
    FAILED = auto()  # it answered with an error
    BROKEN = auto()  # the connection ended
    STOPPED = auto()  # before the first share: it, or its hold, is not as it was


@dataclass(frozen=True, slots=True)
class _Patience:
    """``first_s`` is the pause after the first attempt, and ``many`` attempts are an alarm."""

    first_s: float
    longest_s: float
    many: int


_PATIENCE: Final = {
    Outcome.WORKING: _Patience(30.0, 240.0, 2),
    Outcome.REFUSED: _Patience(30.0, 60.0, 1),
    Outcome.DISTURBED: _Patience(0.5, 30.0, 5),
    Outcome.FAILED: _Patience(0.5, 60.0, 4),
    Outcome.BROKEN: _Patience(0.5, 60.0, 4),
}
_AFTER_RESTART_S: Final = 5.0
"""A server that ends its connections is given shares at most this often, once it failed often."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """Attempts since the node was unsealed last. Times are of one clock, in seconds.

    ``alike`` counts the last ones that ended alike, since the server was started; those that broke
    off count on, for each may be an end of the server.
    """

    count: int = 0
    outcome: Outcome | None = None
    alike: int = 0
    last_s: float = 0.0
    next_s: float = 0.0

    def after(self, outcome: Outcome, now_s: float) -> Attempts:
        """One more has ended."""
        if outcome is Outcome.STOPPED:
            return self
        if outcome is Outcome.UNSEALED:
            return Attempts()
        if outcome is Outcome.FAILED and self.outcome is Outcome.WORKING and self.alike > 0:
            outcome = Outcome.WORKING
        patience = _PATIENCE[outcome]
        alike = self.alike + 1 if outcome is self.outcome else 1
        # What may still be at work is given its time from the first.
        grown = alike if outcome is Outcome.WORKING else self.count + 1
        pause_s = min(patience.longest_s, patience.first_s * 2.0 ** min(grown - 1, 16))
        return Attempts(self.count + 1, outcome, alike, now_s, now_s + pause_s)

    def restarted(self) -> Attempts:
        """The server was started anew: what it made of earlier shares is void."""
        pause_s = 0.0 if self.count < 2 else min(_AFTER_RESTART_S, 2.0 ** min(self.count - 2, 16))
        alike = self.alike if self.outcome is Outcome.BROKEN else 0
        return replace(self, alike=alike, next_s=min(self.next_s, self.last_s + pause_s))

    def woken(self) -> Attempts:
        """A person changed something: the next attempt may be now."""
        return replace(self, next_s=self.last_s)

    def rests(self, now_s: float) -> bool:
        """Whether it is too early for the next one."""
        return self.outcome is not None and now_s < self.next_s

    @property
    def alarming(self) -> bool:
        """Whether a person should look at it."""
        if self.outcome is None:
            return False
        return self.outcome is Outcome.REFUSED or self.alike >= _PATIENCE[self.outcome].many
