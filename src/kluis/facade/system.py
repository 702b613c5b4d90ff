"""What a monitor and a person ask: ``sys/health``, ``sys/seal-status``, ``sys/leader``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs

from kluis import __version__
from kluis.engine.guard import Guard
from kluis.facade.limits import Spared
from kluis.facade.replies import Reply, text_reply
from kluis.keyring.strict import JSON


class Health:
    """``sys/health``: 200 when every keyring is open, 503 else.

    ``activecode`` and ``sealedcode`` override. Anybody may ask, and a large rule takes a while:
    what is said of the anchors may be a moment old; the state itself never is.
    """

    def __init__(self, guards: Mapping[str, Guard]) -> None:
        self._guards = guards
        self._terse = Spared(lambda: _health(guards, in_words=False))
        self._in_words = Spared(lambda: _health(guards, in_words=True))

    def reply(self, query: str, *, in_words: bool) -> Reply:
        """``in_words`` adds what each anchor said, which may name paths and addresses."""
        states = tuple((guard.document.revision, guard.is_open) for guard in self._guards.values())
        sealed = _sealed(self._guards.values())
        code = ("sealedcode", 503) if sealed else ("activecode", 200)
        body = (self._in_words if in_words else self._terse).get(states)
        return Reply(_override(query, *code), body)


def _health(guards: Mapping[str, Guard], *, in_words: bool) -> bytes:
    sealed = _sealed(guards.values())
    body: dict[str, JSON] = {
        "initialized": True,
        "sealed": sealed,
        "standby": False,
        "version": __version__,
        "cluster_name": "kluis",
        "keyrings": {name: _keyring(guard, in_words=in_words) for name, guard in guards.items()},
    }
    return json.dumps(body).encode()


def seal_status(guards: Mapping[str, Guard]) -> Reply:
    """What ``bao status`` shows. Threshold and progress are those of the first locked people."""
    entered, threshold, shares = _people(guards.values())
    sealed = _sealed(guards.values())
    return text_reply(
        {
            "type": "kluis",
            "initialized": True,
            "sealed": sealed,
            "t": threshold,
            "n": shares,
            "progress": entered if sealed else 0,
            "nonce": "",
            "version": __version__,
            "build_date": "",
            "migration": False,
            "cluster_name": "kluis",
            "cluster_id": "",
            "recovery_seal": False,
            "storage_type": "keyring",
        }
    )


def leader() -> Reply:
    """There is no cluster: whoever answers is the leader."""
    return text_reply(
        {
            "ha_enabled": False,
            "is_self": True,
            "leader_address": "",
            "leader_cluster_address": "",
            "performance_standby": False,
        }
    )


def _sealed(guards: Iterable[Guard]) -> bool:
    return not all(guard.is_open for guard in guards)


def _override(query: str, name: str, otherwise: int) -> int:
    value = parse_qs(query).get(name, [""])[0]
    return int(value) if re.fullmatch("[2-5][0-9][0-9]", value, re.ASCII) else otherwise


def _keyring(guard: Guard, *, in_words: bool) -> JSON:
    anchors: dict[str, JSON] = {}
    for name, status in guard.anchor_statuses().items():
        said: dict[str, JSON] = {"state": status.state}
        if in_words:
            said |= {"seen": status.seen, "means": status.means, "next": status.next_step}
        anchors[name] = said
    needs: list[JSON] = [list(names) for names in guard.lacks()]
    return {"state": "open" if guard.is_open else "locked", "needs": needs, "anchors": anchors}


def _people(guards: Iterable[Guard]) -> tuple[int, int, int]:
    for guard in guards:
        for people in guard.people():
            return people
    return 0, 0, 0
