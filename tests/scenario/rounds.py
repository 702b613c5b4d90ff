"""The rounds of a soak: what is lost when, what must happen then, and whether it did.

The docstring of ``soak`` tells the whole story.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, Final

from kluis.keyring import policy, trust
from tests.scenario import evidence
from tests.scenario.guarded import Guarded
from tests.scenario.verdict import Course, Memory, Summary
from tests.scenario.vitals import Vitals
from tests.scenario.weather import State, Weather
from tests.support.places import NAMES

RULE: Final = "(tpm and hsm) or 2 of (cloud, east, nas and west, family)"
WARM_UPS: Final = 30
"""Openings before the soak begins, for each of its minutes."""
FAMILY: Final = "family"

PAUSE_S: Final = (0.2, 2.0)
FLAPS: Final = (5, 10)
HANG: Final = 0.4
PAPER: Final = 0.5
ROTATED: Final = ("east", "west")
DEADLINE_S: Final = 60.0
SEALED_S: Final = 3.0
STILL_SEALED_S: Final = 0.7
SAID: Final = {"there": {"ok"}, "lost": {"unreachable"}, "hung": {"waiting", "unreachable"}}
WAYS: Final[tuple[State, ...]] = ("lost", "lost", "hung")
ENDINGS: Final = (signal.SIGKILL, signal.SIGTERM)
TROUBLE: Final = (
    AssertionError,
    OSError,
    ValueError,
    http.client.HTTPException,
    subprocess.SubprocessError,
)


class SoakFailed(AssertionError):
    """Something that must not happen: what, by which seed, and the ends of the logs."""


class Soak:
    """One soak. ``say`` is given a line for every round."""

    def __init__(
        self,
        weather: Weather,
        guarded: Guarded,
        vitals: Vitals,
        known: Mapping[str, bytes],
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self.weather, self.guarded, self.vitals, self.seed = weather, guarded, vitals, seed
        self.course = Course()
        self._rule = policy.parse(RULE)
        self._known, self._say = known, say
        self._began = time.monotonic()

    def run(self, minutes: float, least_rounds: int = 1) -> Summary:
        """Round after round, until the time is over; at least so many. Raises SoakFailed."""
        with self._explained():
            self.guarded.warm_up(warm_ups := int(minutes * WARM_UPS))
            self._began = time.monotonic()
            self._tell(f"warmed up: {self.vitals.rest()}")
            while (
                elapsed_s := time.monotonic() - self._began
            ) < minutes * 60 or self.course.rounds < least_rounds:
                self._round(rough=elapsed_s > minutes * 30)
            self.guarded.house.text("verify", "homelab")
            evidence.check(self.guarded, self._known)
            return self._judged(elapsed_s, warm_ups)

    def expect(self, rule: policy.Policy) -> None:
        """Take this for the keyring's rule, so that a test sees what is found then."""
        self._rule = rule

    def _judged(self, seconds: float, warm_ups: int) -> Summary:
        memory, counts = Memory.of(self.vitals.lives), evidence.counted(self.guarded)
        assert not memory.leaks(), f"kluis grows: {'; '.join(memory.leaks())}"
        return Summary(
            self.seed,
            seconds,
            self.course,
            memory,
            kluis_processes=len(self.guarded.services),
            openings=counts["opened"] - warm_ups,
            heals=counts["healed"],
            server_gave_up=self.guarded.crashes,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TROUBLE as error:
            where = f"seed {self.seed}, round {self.course.rounds}, gone: {self.weather}"
            what = str(error) or type(error).__name__
            raise SoakFailed(f"{where}: {what}\n{self.guarded.tails()}") from error

    def _round(self, *, rough: bool) -> None:
        self.course.rounds += 1
        random = Random(f"{self.seed}/{self.course.rounds}")
        self._frozen(random, rough=rough)
        self._flap(random, rough=rough)

    def _tell(self, what: str) -> None:
        elapsed_s = time.monotonic() - self._began
        self._say(f"{elapsed_s:6.0f} s  {self.course.rounds:3}  {what}")

    # -- flapping

    def _flap(self, random: Random, *, rough: bool) -> None:
        changes, count = self.weather.changes, random.randint(*FLAPS)
        relocks, rotates, other = (random.randrange(count) for _ in range(3))
        restarts = random.choice((relocks, other))
        for number in range(count):
            name, hang = random.choice(NAMES), random.random() < HANG
            pause_s, ending = random.uniform(*PAUSE_S), random.choice(ENDINGS)
            self.weather.toggle(name, hang=hang)
            if number == rotates:
                self.course.rotations += self.weather.rotate(random.choice(ROTATED))
            if number == relocks:
                self._relock(kill=rough)
            if number in {restarts, count - 1}:
                self.guarded.restart_server(ending)
            self._pass(pause_s)
        gone = str(self.weather)
        came_back = self._back_after_flapping(random)
        changes = self.weather.changes - changes
        self.weather.clear_up()
        self.course.changes = self.weather.changes
        self._tell(f"{changes} changes, then {gone} gone: {came_back}; {self.vitals.rest()}")

    def _back_after_flapping(self, random: Random) -> str:
        """How long it took from the moment that enough is there; if it is not, places come back."""
        back = sorted(set(NAMES) - self.weather.present())
        random.shuffle(back)
        last = "flapping"
        while not trust.opens_with(self._rule, self.weather.present()):
            self.weather.bring_back(last := back.pop())
        began = time.monotonic()
        self.guarded.wait_open(DEADLINE_S)
        open_s = time.monotonic() - began
        self.guarded.wait_active(DEADLINE_S)
        self.course.flapped_open_s.append(open_s)
        self.course.flapped_s.append(active_s := time.monotonic() - began)
        self.guarded.read_back()
        return f"after {last} open in {open_s:.2f} s, active in {active_s:.2f} s"

    def _relock(self, *, kill: bool) -> None:
        if kill:
            self.guarded.kill_kluis()
        else:
            self.guarded.lock_and_release()

    def _pass(self, pause_s: float) -> None:
        ends = time.monotonic() + pause_s
        while time.monotonic() < ends:
            self.guarded.mind()
            time.sleep(0.05)

    # -- frozen

    def _frozen(self, random: Random, *, rough: bool) -> None:
        gone = [name for name in NAMES if random.random() < 0.5]
        states: dict[str, State] = {name: random.choice(WAYS) for name in gone}
        back = [*gone, *([FAMILY] if random.random() < PAPER else [])]
        random.shuffle(back)
        kill, ending = random.random() < 0.6, random.choice(ENDINGS)
        self.weather.be(states)
        lost = str(self.weather)
        self._relock(kill=rough and kill)
        self.guarded.service.wait_ready()
        began = self.guarded.restart_server(ending)
        if trust.opens_with(self._rule, self.weather.present()):
            self.guarded.wait_active(DEADLINE_S)
            self.course.restarted_s.append(took_s := time.monotonic() - began)
            outcome = f"active in {took_s:.2f} s"
        else:
            self.guarded.wait_listening(DEADLINE_S)
            self._refused(SEALED_S)
            outcome = self._mend(random, back)
        self.guarded.read_back()
        self._tell(f"gone {lost}: {outcome}")

    def _refused(self, for_s: float) -> None:
        """It must not come back, and kluis says why."""
        self.guarded.stays_sealed(for_s)
        self._check_status()
        self.course.refusals += 1

    def _check_status(self) -> None:
        """Locked, and of every place it is known whether it is there."""
        deadline = time.monotonic() + DEADLINE_S
        while wrong := self._misjudged(self.guarded.status()):
            assert time.monotonic() < deadline, "; ".join(wrong)

    def _misjudged(self, said: Mapping[str, Any]) -> list[str]:
        assert said["state"] == "locked", said
        return [
            f"{name} is {state}, and said to be {anchor}"
            for name, state in self.weather.states.items()
            if (anchor := said["anchors"][name])["state"] not in SAID[state]
        ]

    def _mend(self, random: Random, steps: Sequence[str]) -> str:
        """Bring back one after another until that is enough; what it took, in words."""
        present = set(self.weather.present())
        for step in steps:
            present.add(step)
            began = self._bring(step, random)
            if trust.opens_with(self._rule, present):
                return self._came_back(step, began)
            self._refused(STILL_SEALED_S)
        raise AssertionError(f"all is there, and it is not enough: {present}")

    def _bring(self, step: str, random: Random) -> float:
        """Restore a place, or let two people enter their shares; when there was enough."""
        if step != FAMILY:
            self.weather.bring_back(step)
            return time.monotonic()
        first, second = random.sample(self.guarded.shares, 2)
        self.guarded.enter(first)
        self._refused(0.0)
        began = time.monotonic()
        self.guarded.enter(second)
        return began

    def _came_back(self, step: str, began: float) -> str:
        self.guarded.wait_open(DEADLINE_S)
        open_s = time.monotonic() - began
        self.guarded.wait_active(DEADLINE_S)
        active_s = time.monotonic() - began
        if step == FAMILY:
            self.course.paper_s.append(active_s)
        else:
            self.course.waited_open_s.append(open_s)
            self.course.waited_active_s.append(active_s)
        return f"sealed until {step} came: open in {open_s:.2f} s, active in {active_s:.2f} s"
