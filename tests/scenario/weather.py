"""Weather over the six places of trust: they are lost, hang, and come back, one at a time.

    weather = Weather(found)
    weather.toggle("nas", hang=True)        # it accepts connections, and answers nothing
    weather.present()                       # every place but nas
    weather.clear_up()

A place that hangs is one whose process was stopped (SIGSTOP). The token of the HSM can only be
lost, and so can the way to the cloud: a stopped relay would look like a cloud that answers badly.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from typing import Final, Literal

from tests.support.places import Chip, Nas, Place, Site

State = Literal["there", "lost", "hung"]
HANGS: Final = frozenset({"tpm", "nas", "east", "west"})


class Weather:
    """What each place is in now, and how it changes."""

    def __init__(self, found: Mapping[str, Place]) -> None:
        self.places = found
        self.states: dict[str, State] = dict.fromkeys(found, "there")
        self.changes = 0

    def present(self) -> frozenset[str]:
        """The places that would answer."""
        return frozenset(name for name, state in self.states.items() if state == "there")

    def toggle(self, name: str, *, hang: bool) -> None:
        """Lose a place that is there, or have it back; ``hang`` if it can, else it is lost."""
        if self.states[name] != "there":
            self.bring_back(name)
        else:
            self.take(name, hang=hang)

    def take(self, name: str, *, hang: bool) -> None:
        """Lose a place that is there."""
        if hang and name in HANGS:
            stop(self.places[name])
            self.states[name] = "hung"
        else:
            self.places[name].lose()
            self.states[name] = "lost"
        self.changes += 1

    def bring_back(self, name: str) -> None:
        """Have a place back that was lost, or hangs."""
        if self.states[name] == "hung":
            go_on(self.places[name])
        else:
            self.places[name].restore()
        self.states[name] = "there"
        self.changes += 1

    def be(self, taken: Mapping[str, State]) -> None:
        """Take these places, and have all others back."""
        self.clear_up(set(self.states) - set(taken))
        for name, state in taken.items():
            if self.states[name] not in {"there", state}:
                self.bring_back(name)
            if self.states[name] == "there":
                self.take(name, hang=state == "hung")

    def clear_up(self, names: Iterable[str] | None = None) -> None:
        """Have every place back, or every one of these."""
        for name in sorted(self.states if names is None else names):
            if self.states[name] != "there":
                self.bring_back(name)

    def rotate(self, name: str) -> bool:
        """Rotate the Transit key of a place; whether it was there."""
        site = self.places[name]
        assert isinstance(site, Site)
        if self.states[name] == "there":
            site.bao.must("PUT", "transit/keys/kluis/rotate", {}, site.root)
        return self.states[name] == "there"

    def thaw(self) -> None:
        """Let all that hangs go on, so that it can be ended in order."""
        self.clear_up([name for name, state in self.states.items() if state == "hung"])

    def __str__(self) -> str:
        gone = (
            f"{name} (hangs)" if state == "hung" else name
            for name, state in self.states.items()
            if state != "there"
        )
        return ", ".join(gone) or "nothing"


def stop(place: Place) -> None:
    """Let it hang: it still listens, and answers nothing."""
    match place:
        case Chip():
            place.tpm.freeze()
        case Nas():
            place.tang.freeze()
        case Site():
            os.kill(place.bao.pid, signal.SIGSTOP)
        case _:
            raise AssertionError(f"{place.name} can't hang")


def go_on(place: Place) -> None:
    """Let it go on where it was."""
    match place:
        case Chip():
            place.tpm.thaw()
        case Nas():
            place.tang.thaw()
        case Site():
            os.kill(place.bao.pid, signal.SIGCONT)
        case _:
            raise AssertionError(f"{place.name} can't hang")
