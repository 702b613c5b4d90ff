"""Whether the shares that are kept are for the seal that a node has. Nothing here has I/O."""

from __future__ import annotations

from kluis.errors import KluisError, UnknownKey
from kluis.keyring.custody import Custody, Shares
from kluis.servers.client import SealStatus
from kluis.servers.watch.evidence import Case, Rules, Verdict
from kluis.servers.watch.states import Alarm, Condition


def no_custody(error: KluisError, rules: Rules) -> Verdict:
    """The verdict on a sealed node whose shares can't be had."""
    if isinstance(error, UnknownKey):
        seen, step = f"no shares are kept for {rules.server}", f"kluis key import {rules.key}"
        return Verdict(Condition.SEALED, Alarm.NO_SHARES, seen, error.seen, f"{step} --shares -")
    return Verdict(Condition.SEALED, Alarm.LOCKED, error.seen, error.means, error.next_step)


def fitting(custody: Custody, rules: Rules, status: SealStatus) -> tuple[Shares, ...]:
    """The kept sets that this seal could take, the likelier one first.

    While a rekey is under way, or was interrupted, two are kept, and one of them is valid.
    """
    if custody.purpose != "unseal" or _of_another(custody, rules):
        return ()
    wanted = status.threshold
    return tuple(
        one for one in custody.ways() if one.threshold == wanted and len(one.shares) >= wanted
    )


def unfit(custody: Custody, case: Case) -> Verdict:
    """The verdict where no kept set fits."""
    status, rules = case.answer.status, case.rules
    alarm = Alarm.SEAL
    if _of_another(custody, rules):
        alarm = Alarm.CLUSTER
        seen = f"what is kept for {rules.server} are shares of the cluster {custody.cluster_id}"
        means = f"declared is {rules.identity.cluster_id}: they would be another server's shares"
    elif custody.purpose != "unseal":
        seen = f"what is kept for {rules.server} are recovery keys"
        means = "they do not unseal anything; shares of a Shamir seal do"
    else:
        seen = f"{rules.address} wants {status.threshold} shares"
        means = f"{len(custody.shares)} are kept, of a set of which {custody.threshold} are enough"
    return Verdict(Condition.SEALED, alarm, seen, means, _check_shares(rules))


def _of_another(custody: Custody, rules: Rules) -> bool:
    """Whether the shares are known to be those of another cluster."""
    declared = rules.identity.cluster_id
    return bool(custody.cluster_id and declared) and custody.cluster_id != declared


def _check_shares(rules: Rules) -> str:
    """The next step where shares and seal do not fit each other."""
    return (
        f"if {rules.key} is another server's: a key of its own in kluis.toml; else import the right"
        f" shares: kluis key import {rules.key} --shares - --replace"
    )
