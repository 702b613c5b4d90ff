"""One node in a task of its own: look, judge, push shares where they may go, rest."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from typing import Final

from kluis.errors import KluisError, ServerAnswered, ServerError, ServerUnreachable, UsageError
from kluis.keyring.custody import Shares
from kluis.servers.client import SealStatus
from kluis.servers.declared import KeyPath, Server
from kluis.servers.watch import fitting, judging, rhythm
from kluis.servers.watch.attempts import Outcome
from kluis.servers.watch.evidence import Answer, Case, Past, Verdict, rules
from kluis.servers.watch.fleet import Fleet, Owner
from kluis.servers.watch.knocking import knock
from kluis.servers.watch.probing import Line
from kluis.servers.watch.pushing import Attempt
from kluis.servers.watch.rhythm import Pace
from kluis.servers.watch.states import Condition, NodeView

UNKNOWN: Final = Past()


class Node:
    """The node of ``server`` at ``address``."""

    def __init__(
        self, server: Server, address: str, fleet: Fleet, owner: Owner, known: Past = UNKNOWN
    ) -> None:
        self.view = NodeView(address, Condition.UNKNOWN, fleet.clock())
        self._server, self._address, self._fleet, self._owner = server, address, fleet, owner
        self._rules = rules(server, address)
        self._past = known
        self._line: Line | None = None
        self._woken = asyncio.Event()
        self._pace = Pace.CHANGING
        self._looks = 0
        self._held = False
        self._at_once = False
        self._away = False
        self._heard_s: float | None = None

    @property
    def lasting(self) -> Past:
        """What is to be known of it, should it leave and come back."""
        return self._past.lasting()

    @property
    def settled(self) -> bool:
        """Whether nothing more comes of waiting for a moment."""
        unsettled = (Condition.UNKNOWN, Condition.UNSEALING, Condition.UNINITIALISED)
        electing = self._past.leaderless_since_s is not None
        return self.view.alarm is not None or not (electing or self.view.condition in unsettled)

    @property
    def _listening_s(self) -> float | None:
        """For how long it has been listening, since it was away; None when that was not seen."""
        return None if self._heard_s is None else _now_s() - self._heard_s

    def wake(self, *, release: bool) -> None:
        """Look again now; ``release``: what a person sealed by hand is let go."""
        attempts = self._past.attempts.woken()
        self._past = self._past.released() if release else replace(self._past, attempts=attempts)
        self._woken.set()

    async def run(self) -> None:
        """Watch it until cancelled. A fault of kluis shows in the view, and ends nothing."""
        self._fleet.paces[self._pace] += 1
        try:
            while True:
                try:
                    await self._turn()
                except Exception as error:  # noqa: BLE001 - whatever it is, it must not be silent
                    await self._drop(restarted=False)
                    self._publish(_fault(self._address, error))
                self._fleet.stirred.set()
                await self._rest()
        finally:
            self._fleet.paces[self._pace] -= 1
            await self._drop(restarted=False)

    async def _rest(self) -> None:
        paces = self._fleet.paces
        pause_s = rhythm.pause_s(
            self._pace,
            self._looks,
            nodes=paces.total(),
            changing=paces[Pace.CHANGING],
            draw=random.random(),  # noqa: S311 - jitter is no secret
        )
        self._looks += 1
        try:
            async with asyncio.timeout(0.0 if self._at_once else pause_s):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._at_once = False
        self._woken.clear()

    async def _turn(self) -> None:
        if self._line is not None and self._line.lost:
            await self._drop(restarted=True)
        try:
            answer = await self._asked()
        except (ServerError, UsageError) as error:
            await self._unanswered(error)
            return
        if answer is not None:
            await self._answered(answer)

    # -- asking

    async def _asked(self) -> Answer | None:
        """What the node says; None while it is away."""
        if self._line is not None:
            return await self._line.look()
        fleet = self._fleet
        async with fleet.hung if self._pace is Pace.HUNG else fleet.connecting:
            found = await knock(self._address)
            self._note(listens=bool(found.place), refused=found.refused)
            if not found.place:
                self._publish(_away(self._address))
                return None
            tls, ended = self._server.tls, self._woken.set
            self._line = await fleet.lines.to(self._address, tls, found.place, ended)
            return await self._line.look()

    def _note(self, *, listens: bool, refused: bool) -> None:
        if refused:
            self._past = self._past.disconnected(restarted=True)
        if not listens:
            self._away, self._heard_s = True, None
        elif self._away:
            self._away, self._heard_s = False, _now_s()

    async def _unanswered(self, error: ServerError | UsageError) -> None:
        if isinstance(error, ServerAnswered):  # the connection is good, and what it saw may not be
            self._past = self._past.disconnected(restarted=False)
        else:
            lost = self._line is not None and self._line.lost
            await self._drop(restarted=lost and isinstance(error, ServerUnreachable))
        self._publish(judging.failed(error))

    async def _drop(self, *, restarted: bool) -> None:
        line, self._line = self._line, None
        self._past = self._past.disconnected(restarted=restarted)
        if restarted:
            self._away, self._heard_s = True, None
        if line is not None:
            await line.close()

    # -- deciding

    async def _answered(self, answer: Answer) -> None:
        held = self._owner.held()
        if self._held and not held:
            self._past = self._past.released()
        self._held = held
        self._past = self._past.looked(answer, self._rules, _now_s())
        verdict = judging.judge(self._case(answer))
        if verdict.push and self._line is not None and self._server.unseal is not None:
            verdict = await self._unsealed_with(self._line, self._server.unseal, answer)
        if verdict.condition is Condition.HELD and self._line is not None:
            self._line.let_it_be()
        self._publish(verdict, answer)

    def _case(self, answer: Answer) -> Case:
        return Case(answer, self._rules, self._past, self._held, _now_s())

    async def _unsealed_with(self, line: Line, path: KeyPath, answer: Answer) -> Verdict:
        """Push what is kept under ``path``; the verdict after that."""
        try:
            custody = self._fleet.custody(path)
        except KluisError as error:
            return fitting.no_custody(error, self._rules)
        self._past = replace(self._past, cluster_id=custody.cluster_id)
        case = self._case(answer)
        sets = fitting.fitting(custody, self._rules, answer.status)
        if not sets:
            return fitting.unfit(custody, case)
        self._publish(judging.judge(case), answer)
        outcome = Outcome.BROKEN
        try:
            for shares in sets:
                outcome = await self._attempt(line, shares)
                if outcome is not Outcome.REFUSED:
                    break
        finally:  # also after a fault of kluis: it must not send shares again and again
            self._past = replace(self._past, attempts=self._past.attempts.after(outcome, _now_s()))
        if line.lost and outcome in (Outcome.WORKING, Outcome.BROKEN):
            await self._drop(restarted=False)  # by our own deadline, as far as is known
        self._at_once = outcome is Outcome.UNSEALED
        return judging.judge(self._case(answer))

    async def _attempt(self, line: Line, kept: Shares) -> Outcome:
        def fits(status: SealStatus) -> bool:
            self._held = self._owner.held()
            verdict = judging.judge(self._case(Answer(status)))
            return verdict.push and status.threshold == kept.threshold

        attempt = Attempt(line, kept.shares, fits)
        try:
            return await attempt.make()
        finally:
            if attempt.sent:
                self._owner.sent(self._address, attempt.sent)

    # -- telling

    def _publish(self, verdict: Verdict, answer: Answer | None = None) -> None:
        before, line = self.view, self._line
        ends_s = None if line is None else line.certificate_ends_s
        changed = before.condition is not verdict.condition
        self.view = NodeView(
            self._address,
            verdict.condition,
            self._fleet.clock() if changed else before.since_s,
            verdict.active,
            verdict.alarm,
            verdict.seen,
            verdict.means,
            verdict.next_step,
            before.version if answer is None else judging.shown_version(answer.status),
            before.certificate_ends_s if ends_s is None else ends_s,
        )
        self._owner.turned(before, self.view, self._listening_s)
        self._walk()

    def _walk(self) -> None:
        view = self.view
        pace = rhythm.pace_of(
            view.condition, alarmed=view.alarm is not None, working=self._owner.working
        )
        if pace is not self._pace:
            self._fleet.paces[self._pace] -= 1
            self._fleet.paces[pace] += 1
            self._pace, self._looks = pace, 0


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _away(address: str) -> Verdict:
    return Verdict(
        Condition.UNREACHABLE,
        None,
        f"nobody listens at {address}",
        "the server does not run, or the way to it is cut",
        "nothing: as soon as it listens that is noticed",
    )


def _fault(address: str, error: Exception) -> Verdict:
    number = error.errno if isinstance(error, OSError) else None
    cause = os.strerror(number) if number else type(error).__name__
    return Verdict(
        Condition.UNKNOWN,
        None,
        f"kluis could not look at {address}: {cause}",
        "that is a fault of kluis or of this machine, and not of the server",
        "it is tried again; look at the limits of this process (open files, memory)",
    )
