"""Servers, and what their hooks did, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kluis.addresses import is_plain_loopback
from kluis.cli import terminal


def servers(found: Mapping[str, Any], *, watched: bool) -> None:
    """Every server with its nodes. ``watched``: since when it is so is known."""
    for name, server in found.items():
        terminal.folded([summary(name, server), *_said(server, "  ")])
        terminal.folded(_nodes(name, server, watched))


def summary(name: str, server: Mapping[str, Any]) -> str:
    """A server in one line."""
    nodes = server["nodes"].values()
    working = sum(node["condition"] == "unsealed" for node in nodes)
    alarms = sorted({node["alarm"] for node in nodes if node["alarm"]})
    told = [f"{working} of {len(nodes)} nodes unsealed" if nodes else "no node is known"]
    told += [f"alarm: {', '.join(alarms)}"] if alarms else []
    told += [f"down since {server['down_since']}"] if server["down_since"] else []
    told += [held(server["hold"])] if server["hold"] else []
    return f"{name}: {server['condition']} ({'; '.join(told)})"


def held(hold: Mapping[str, Any]) -> str:
    """Until when a server is held, or why although nobody said so."""
    if hold["seen"]:
        return f"held: {hold['seen']}"
    return f"held until {hold['until']}" if hold["until"] else "held until it is released"


def _nodes(name: str, server: Mapping[str, Any], watched: bool) -> Iterator[str]:
    """A row for each node, in columns, and below it what else there is; its address once."""
    nodes = server["nodes"]
    addresses = max(map(len, nodes), default=0)
    conditions = max((len(node["condition"]) for node in nodes.values()), default=0)
    for address, node in nodes.items():
        facts = ["active"] if node["active"] else []
        facts += [f"version {node['version']}"] if node["version"] else []
        row = f"  {address:{addresses}}  {node['condition']:{conditions}}"
        yield f"{row}  {', '.join(facts)}"
        times = [f"since {node['since']}"] if watched else []
        ends = node["certificate_ends"]
        times += [f"certificate until {ends}"] if ends else []
        if times:
            yield f"    {', '.join(times)}"
        if is_plain_loopback(address) and server.get("user", "") is None:
            yield f"    nothing proves who listens there; kluis server add {name} pins its user"
        if node["alarm"]:
            yield f"    alarm: {node['alarm']}"
        yield from _said({**node, "seen": node["seen"].replace(address, "this node")}, "    ")


def _said(what: Mapping[str, Any], indent: str) -> Iterator[str]:
    """What was seen, why, and what to do next, as far as there is anything."""
    for label, part in (("", "seen"), ("why:  ", "means"), ("next: ", "next")):
        if what[part]:
            yield f"{indent}{label}{what[part]}"


def declared(server: Mapping[str, Any], kinds: Mapping[str, str]) -> Iterator[str]:
    """What kluis.toml says of a server; of its hooks the kinds, where they are known."""
    needs = f"{server['threshold']} of {server['shares']}" if server["threshold"] else "not known"
    by_hand = "it is let be" if server["on_seal"] == "hold" else "it is unsealed all the same"
    hooks = [f"{hook} ({kinds[hook]})" if hook in kinds else hook for hook in server["wake"]]
    yield f"shares from:      {server['unseal'] or 'nowhere: it is only watched'}"
    if server["recovery"]:
        yield f"recovery keys in: {server['recovery']}"
    yield f"shares needed:    {needs}"
    yield f"pinned key:       {server['pin'] or 'none'}"
    if server["user"] is not None:
        yield f"its user:         {server['user']}"
    yield f"cluster id:       {server['cluster_id'] or 'not known yet'}"
    yield f"sealed by hand:   {by_hand}"
    yield f"wakes:            {', '.join(hooks) or 'nothing'}"


def outcomes(found: list[dict[str, Any]]) -> None:
    """What each hook did."""
    for woken in found:
        how = "woken" if woken["ok"] else "not woken"
        lines = [f"{woken['hook']} ({woken['kind']}): {how}, in {woken['seconds']} s"]
        lines += [f"  {words}" for words in woken["words"]]
        if failure := woken.get("failure"):
            lines += _said(failure, "  ")
        terminal.folded(lines)
