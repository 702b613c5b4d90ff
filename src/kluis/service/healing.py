"""``heal``: what a survey finds of leaves that sealing anew would heal, and doing it."""

from __future__ import annotations

from kluis.engine.guard import Guard
from kluis.errors import UsageError
from kluis.keyring import tree
from kluis.keyring.strict import JSON
from kluis.service.house import House
from kluis.service.operations import Args, said, text, texts


async def heal(house: House, args: Args) -> dict[str, JSON]:
    """Survey open keyrings, and seal anew what that heals; with ``dry_run`` only say what.

    A person asks: so also anchors that wait for a person's word are healed. ``keyring`` and
    ``anchors`` narrow it down.
    """
    if not house.serving:
        await house.open_once()
    named = args.get("keyring")
    guards = [house.guard(text(args, "keyring"))] if named else [*house.guards.values()]
    only = set(texts(args, "anchors"))
    _refuse_unknown(guards, only)
    healed: dict[str, JSON] = {}
    for guard in guards:
        if named:
            guard.require_open()
        if guard.is_open:
            healed[guard.name] = await _heal_one(guard, only, args.get("dry_run") is True)
    locked: list[JSON] = [guard.name for guard in guards if not guard.is_open]
    return {"keyrings": healed, "locked": locked}


async def _heal_one(guard: Guard, only: set[str], dry_run: bool) -> JSON:
    found = {
        name: finding.ailment
        for name, finding in (await guard.survey()).items()
        if finding.ailment and (not only or name in only)
    }
    shown: dict[str, JSON] = {**dict(sorted(found.items()))}
    if dry_run or not found:
        return {"found": shown, "healed": [], "failed": {}, "revision": guard.document.revision}
    done = await guard.heal(found)
    return {
        "found": shown,
        "healed": [*done.names],
        "failed": said(done.failures),
        "revision": guard.document.revision,
    }


def _refuse_unknown(guards: list[Guard], names: set[str]) -> None:
    known = {leaf.name for g in guards for _, leaf in tree.machine_leaves(g.document.tree)}
    for name in sorted(names - known):
        raise UsageError(
            f"{name} is no anchor that could be healed",
            f"those are: {', '.join(sorted(known)) or 'none'}",
            "correct the name; new paper comes by kluis apply --reissue",
        )
