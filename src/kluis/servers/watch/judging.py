"""What an answer of a node means, and whether it may get shares. Nothing here has I/O.

A sealed server does not tell which cluster it is of. So before the first share everything else has
to fit: it is reached in a way that proves who it is, it was initialised, its seal is Shamir's, and
its numbers are the declared ones. The first rule of ``_RULES`` that objects decides; shares go only
where none does. What a server says is believed of that server alone, and never printed unless it
has the form that it should have: it could be a share that it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from kluis.errors import (
    KluisError,
    ServerAnswered,
    ServerHung,
    ServerUnreachable,
    UsageError,
    WrongServer,
)
from kluis.keyring.custody import MAX_SHARES
from kluis.servers.client import SealStatus
from kluis.servers.watch.attempts import Outcome
from kluis.servers.watch.evidence import Case, Verdict, Way
from kluis.servers.watch.states import Alarm, Condition

EMPTY_S: Final = 5.0  # a node that joins a raft cluster says for a moment that it is empty
LEADERLESS_S: Final = 20.0  # an election takes some seconds, by some settings of a server many


def judge(case: Case) -> Verdict:
    """The verdict on an answer."""
    if not case.answer.status.sealed:
        return _unsealed(case)
    for rule in _RULES:
        if (objection := rule(case)) is not None:
            return objection
    tried = _tried(case)  # an alarm stays until it is over, and not only until the next attempt
    if tried is not None and tried.alarm is not None:
        return replace(tried, push=True)
    return Verdict(Condition.UNSEALING, push=True)


def failed(error: KluisError) -> Verdict:
    """The verdict on a node that gave no usable answer."""
    condition, alarm = Condition.WRONG, None
    if isinstance(error, ServerHung):
        condition = Condition.HUNG
    elif isinstance(error, ServerUnreachable | ServerAnswered):
        condition = Condition.UNREACHABLE
    elif isinstance(error, WrongServer | UsageError):
        alarm = Alarm.CERTIFICATE
    means = error.means
    if isinstance(error, ServerAnswered):  # whose words are the server's own
        means = "something answers there, and not with the state of a server"
    return Verdict(condition, alarm, error.seen, means, error.next_step)


# -- the rules


def _unsealed(case: Case) -> Verdict:
    if case.past.foreign:
        return _other_cluster(case)
    if (nobody := _leaderless(case)) is not None:
        return nobody
    judged = case.rules.pushes and not case.held  # one that is moved to another seal is held
    early = _unverified(case) or _other_seal(case) if judged else None
    if early is not None:  # a person rather learns of it now than when the server is sealed
        return replace(early, condition=Condition.UNSEALED, active=case.answer.active)
    return Verdict(Condition.UNSEALED, active=case.answer.active)


def _leaderless(case: Case) -> Verdict | None:
    since_s = case.past.leaderless_since_s
    if since_s is None or case.now_s - since_s < LEADERLESS_S:
        return None
    return Verdict(
        Condition.UNSEALED,
        Alarm.NO_LEADER,
        f"{case.rules.address} is unsealed, and knows no active node of its cluster",
        "it does not reach enough other nodes to elect one, or can't write: its disk may be full",
        "look at its log and its disk, and whether its cluster's nodes reach each other",
    )


def _empty(case: Case) -> Verdict | None:
    if case.answer.status.initialized:
        return None
    since_s = case.past.empty_since_s
    lasting = since_s is not None and case.now_s - since_s >= EMPTY_S
    return Verdict(
        Condition.UNINITIALISED,
        Alarm.LOST_DISK if lasting else None,
        f"{case.rules.address} says that it was never initialised",
        "its storage is empty: a lost disk, or a new node that did not join its cluster yet",
        "restore its storage from a snapshot; only if it is new: kluis server init"
        f" {case.rules.server}",
    )


def _watched_only(case: Case) -> Verdict | None:
    if case.rules.pushes:
        return None
    kind = _shown(_SEAL_TYPE, case.answer.status.seal_type)
    return Verdict(
        Condition.SEALED,
        None,
        f"{case.rules.address} is sealed; its seal is {kind}",
        "no shares are declared for it: it is only watched",
        "check what its seal needs; for Shamir, name its shares: unseal = KEYRING/KEY",
    )


def _held(case: Case) -> Verdict | None:
    if not case.held:
        return None
    return Verdict(
        Condition.HELD,
        None,
        f"{case.rules.address} is sealed, and held",
        "a person said so, or it is on its way to another seal",
        f"kluis server release {case.rules.server}",
    )


def _by_hand(case: Case) -> Verdict | None:
    if not (case.past.by_hand and case.rules.lets_be):
        return None
    return Verdict(
        Condition.HELD,
        None,
        f"{case.rules.address} was sealed while it ran",
        "a person sealed it through its API: it is let be until its process is restarted",
        f"kluis server release {case.rules.server}, or restart it",
    )


def _known_as_foreign(case: Case) -> Verdict | None:
    return _other_cluster(case) if case.past.foreign else None


def _other_cluster(case: Case) -> Verdict:
    expected = case.rules.identity.cluster_id or case.past.cluster_id
    shown = _shown(_CLUSTER_ID, case.answer.status.cluster_id) or "another one"
    return Verdict(
        Condition.WRONG,
        Alarm.CLUSTER,
        f"{case.rules.address} is not of the cluster {expected}"
        + ("" if case.answer.status.sealed else f": it told {shown}"),
        "another server has its address and its certificate, or it was initialised anew",
        f"it gets no more shares; if that is right: kluis server add {case.rules.server}",
    )


def _unverified(case: Case) -> Verdict | None:
    if case.rules.way in (Way.PINNED, Way.LOOPBACK):
        return None
    clear = case.rules.way is Way.CLEAR
    return Verdict(
        Condition.SEALED,
        Alarm.UNPINNED,
        f"{case.rules.address} is reached over plain http"
        if clear
        else f"nobody pinned the key of {case.rules.address} yet",
        "shares go only where chain, name and key prove who gets them",
        "give it a certificate, and name it with https://"
        if clear
        else f"kluis server add {case.rules.server}",
    )


def _being_made(case: Case) -> Verdict | None:
    status = case.answer.status
    if status.seal_type != "shamir" or (status.threshold, status.shares) != (0, 0):
        return None
    return Verdict(
        Condition.UNINITIALISED,
        None,
        f"{case.rules.address} has no shares yet",
        "it is being initialised",
        "nothing: it is looked at again",
    )


def _other_seal(case: Case) -> Verdict | None:
    status, identity = case.answer.status, case.rules.identity
    next_step = "compare bao status with kluis.toml, and find out which server that is"
    if status.seal_type != "shamir" or status.recovery_seal:
        seen = f"the seal of {case.rules.address} is {_shown(_SEAL_TYPE, status.seal_type)}"
        means = "only a Shamir seal is opened with shares"
        next_step = (
            f"if it was moved there: write recovery in place of unseal in [servers."
            f"{case.rules.server}], and reload; else find out which server that is"
        )
    elif status.migration:
        seen = f"{case.rules.address} is being moved to another seal"
        means = "its shares would be taken for the migration"
        next_step = "whoever moves it goes on with it, or takes it back; see bao status"
    elif not _possible(status):
        seen = f"{case.rules.address} says numbers of shares that can't be"
        means = "that is no answer of OpenBao or Vault"
    elif status.threshold != (identity.threshold or status.threshold) or (
        status.shares != (identity.shares or status.shares)
    ):
        seen = f"{case.rules.address} wants {status.threshold} of {status.shares} shares"
        wanted = f"{identity.threshold or 'any'} of {identity.shares or 'any'}"
        means = f"declared are {wanted}: it is another server, or its shares were renewed"
        next_step = f"if its shares were renewed: kluis server add {case.rules.server}"
    else:
        return None
    return Verdict(Condition.WRONG, Alarm.SEAL, seen, means, next_step)


def _possible(status: SealStatus) -> bool:
    return 1 <= status.threshold <= status.shares <= MAX_SHARES and (
        0 <= status.progress < status.threshold
    )


def _resting(case: Case) -> Verdict | None:
    return _tried(case) if case.past.attempts.rests(case.now_s) else None


def _tried(case: Case) -> Verdict | None:
    attempts = case.past.attempts
    if attempts.outcome is None:
        return None
    alarm = Alarm.SHARES if attempts.alarming else None
    condition = Condition.SEALED if attempts.outcome is Outcome.REFUSED else Condition.UNSEALING
    seen, means, next_step = _ENDED[attempts.outcome]
    return Verdict(
        condition,
        alarm,
        f"{case.rules.address} {seen}",
        means,
        next_step if alarm else "nothing: it is tried again",
    )


_RULES: Final[tuple[Callable[[Case], Verdict | None], ...]] = (
    _empty,
    _watched_only,
    _held,
    _by_hand,
    _known_as_foreign,
    _unverified,
    _being_made,
    _other_seal,
    _resting,
)

_ENDED: Final = {
    Outcome.WORKING: (
        "took the shares and is still sealed",
        "it is at work on them, or waits for the other nodes of its cluster",
        "look at its log, and at the other nodes",
    ),
    Outcome.REFUSED: (
        "refused the shares",
        "they are not the shares of this server, or its storage is damaged",
        "look at its log; import the right shares: kluis key import KEYRING/KEY --shares -",
    ),
    Outcome.DISTURBED: (
        "did not keep the shares",
        "somebody else enters shares, or resets what was entered, at the same time",
        "find out who does: a CronJob, another unsealer, or a person",
    ),
    Outcome.FAILED: (
        "failed while shares were entered",
        "it answered with an error",
        "look at its log, and at its disk",
    ),
    Outcome.BROKEN: (
        "ended the connection over which shares are entered",
        "it ended at it, or a proxy before it ends each connection",
        "look at its log and its disk; behind a proxy, name the node itself in kluis.toml",
    ),
}


# -- what a server says

_SEAL_TYPE: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")
_CLUSTER_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VERSION: Final = re.compile(r"v?[0-9]{1,4}(?:\.[0-9]{1,4}){1,3}(?:[-+][A-Za-z0-9.]{1,24})?")


def _shown(form: re.Pattern[str], text: str) -> str:
    """Text of a server for a person; empty unless it has the form that it should have."""
    return text if form.fullmatch(text) else ""


def shown_version(status: SealStatus) -> str:
    """The version that a server tells, if it is one."""
    return _shown(_VERSION, status.version)
