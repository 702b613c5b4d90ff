"""What happens to the site, what is checked, and what is measured: one function an act.

Each act begins and ends with an open kluis and an active server. The targets are seconds:

- ``killed``: a killed server is active again, from the kill. It takes the server's own start.
- ``shares``: the last share was taken, and the server that waited is active.
- ``anchor_back``: the disk is back, and the server is active. kluis looks after an absent anchor
  every 0.5 s.
- ``restarted``: kluis and the server were killed and both are back, from the kill. The server
  asks first before kluis listens, and waits up to 1.5 s before it asks again.
- ``untouched``: a server that runs does not notice that kluis is locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from kluis.demo.files import SECOND
from kluis.demo.report import Outage
from kluis.demo.site import Site
from kluis.demo.watched import DOWN, now
from kluis.errors import ServerError

AWAY_S: Final = 2.0  # how long people, and the disk, let themselves be waited for
NOBODY: Final = "nobody"


@dataclass(frozen=True, slots=True)
class Targets:
    """Seconds; see the module."""

    killed_s: float = 2.0
    shares_s: float = 0.5
    anchor_back_s: float = 2.0
    restarted_s: float = 5.0
    untouched_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Act:
    """One act: its letter, its title, and how it is played."""

    letter: str
    title: str
    play: Callable[[Site, Targets], Awaitable[list[Outage]]]


async def killed(site: Site, targets: Targets) -> list[Outage]:
    """(a) Kill -9 of the server."""
    site.view.step("kill -9; its service manager starts it again")
    fault = await site.kill_server()
    down_s = await site.server.until("active") - fault
    return [Outage(NOBODY, down_s, down_s, targets.killed_s)]


async def locked(site: Site, targets: Targets) -> list[Outage]:
    """(b) The server restarts while kluis is locked by hand, and its disk is out."""
    site.view.step("kluis is locked by hand, its disk taken out")
    site.take_anchor()
    await site.lock()
    site.view.step("kill -9 of the server; its service manager starts it again")
    fault = await site.kill_server()
    sealed = await site.server.until("sealed")
    site.view.step("people are on their way")
    await asyncio.sleep(AWAY_S)
    outage = await _opened_by(site, targets, ("alice", "bob"), fault)
    seen = site.server.states_since(sealed)
    site.check(DOWN not in seen, "the server stayed up, and said 503 until it was active")
    site.return_anchor()
    return [outage]


async def away(site: Site, targets: Targets) -> list[Outage]:
    """(c) A power cut while the disk is away; then the disk is back."""
    site.view.step("the disk is taken out; a power cut: kluis and the server start again")
    site.take_anchor()
    fault = await site.power_cut()
    await _all_locked(site)
    site.check(await site.anchor_state() == "missing", "kluis status names the disk as missing")
    await asyncio.sleep(AWAY_S)
    site.check(site.server.state == "sealed", "the server waits, sealed and listening")
    site.view.step("the disk is back; nobody does anything else")
    site.return_anchor()
    back = now()
    active = await site.server.until("active")
    counted = "after the disk is back"
    return [Outage(NOBODY, active - fault, active - back, targets.anchor_back_s, counted)]


async def lost(site: Site, targets: Targets) -> list[Outage]:
    """(d) The disk is lost for good: paper, then a new disk, then a power cut."""
    site.view.step("the disk is destroyed; a power cut: kluis and the server start again")
    site.lose_anchor()
    fault = await site.power_cut()
    await _all_locked(site)
    by_paper = await _opened_by(site, targets, ("bob", "carol"), fault)
    await site.read_back(site.server)
    site.view.step("a new disk; kluis apply seals it")
    site.make_anchor()
    done = await site.apply()
    site.check(done["shares"] == {} and done["tokens"] == {}, "paper and tokens stay as they are")
    site.view.step("a power cut: kluis and the server start again")
    fault = await site.power_cut()
    down_s = await site.server.until("active") - fault
    what = "power cut, new disk anchor"
    return [by_paper, Outage(NOBODY, down_s, down_s, targets.restarted_s, what=what)]


async def second_init(site: Site, targets: Targets) -> list[Outage]:
    """(e) ``operator init`` of a second server, while kluis is locked and when it is open.

    A stock server that is refused in the middle of its init gives nobody a key, but it has made
    an empty barrier, whose key it forgot. Only clearing its storage lets it begin anew.
    """
    site.view.step("kluis is locked by hand; a second, new server starts")
    began = now()
    await site.lock()
    await site.start_second()
    await site.second.until("new")
    site.view.step("operator init of the second server")
    site.check(await _init_fails(site), "operator init fails: nobody got keys that open nothing")
    site.check(site.wraps_refused(SECOND) > 0, "it failed because kluis refused the wrap")
    site.view.step("the second server begins anew, with empty storage")
    await site.empty_second()
    await site.second.until("new")
    site.view.step("kluis unlock; operator init of the second server")
    await site.ask_anchors()
    await site.init(site.second)
    await site.read_back(site.second)
    site.found("operator init works once kluis is open")
    down_s = site.server.down_since(began)
    return [Outage("an operator", down_s, down_s, targets.untouched_s)]


async def _init_fails(site: Site) -> bool:
    try:
        await site.init(site.second)
    except ServerError:
        return site.second.name not in site.held.root_tokens
    return False


async def _all_locked(site: Site) -> None:
    await asyncio.gather(site.kluis.until("locked"), site.server.until("sealed"))
    site.found("kluis and the server came up locked, and wait")


async def _opened_by(site: Site, targets: Targets, names: tuple[str, str], fault: float) -> Outage:
    """Two people enter a share each, and end the outage."""
    first, last = names
    site.view.step(f"{first} enters a share")
    await site.enter_share(first, opens=False)
    site.check(site.server.state == "sealed", "one share opens nothing")
    site.view.step(f"{last} enters a share")
    await site.enter_share(last, opens=True)
    active = await site.server.until("active")
    took_s = active - site.kluis.last_seen("locked")
    who, counted = f"{first} and {last}", "after the last share"
    return Outage(who, active - fault, took_s, targets.shares_s, counted)


ACTS: Final = (
    Act("a", "kill -9 of the server", killed),
    Act("b", "kill -9, kluis locked by hand", locked),
    Act("c", "power cut, disk anchor away", away),
    Act("d", "power cut, disk anchor lost", lost),
    Act("e", "second server's init while locked", second_init),
)
TARGETS: Final = Targets()
