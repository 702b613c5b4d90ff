"""Whether a sealed server may get a share in a ceremony: by the rules of the watch. No I/O here."""

from __future__ import annotations

from kluis.errors import ChangeRefused, WrongServer
from kluis.keyring.custody import Custody
from kluis.servers.client import SealStatus
from kluis.servers.declared import Server
from kluis.servers.watch import fitting, judging
from kluis.servers.watch.evidence import Answer, Case, Past, rules
from kluis.servers.watch.states import Condition


def refuse_unfit(
    server: Server, address: str, kept: Custody, status: SealStatus, *, held: bool
) -> None:
    """Refuse unless the present shares of ``kept`` may be sent. ``held``: a person holds it.

    Raises ChangeRefused while it is held, and WrongServer.
    """
    declared = rules(server, address)
    case = Case(Answer(status), declared, Past(cluster_id=kept.cluster_id), held, 0.0)
    verdict = judging.judge(case)
    if verdict.push and kept.present in fitting.fitting(kept, declared, status):
        return
    if verdict.push:
        verdict = fitting.unfit(kept, case)
    kind = ChangeRefused if verdict.condition is Condition.HELD else WrongServer
    raise kind(verdict.seen, verdict.means, verdict.next_step)
