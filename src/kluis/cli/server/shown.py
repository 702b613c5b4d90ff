"""Servers, and what their hooks did, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kluis.cli import terminal


def servers(found: Mapping[str, Any], *, watched: bool) -> None:
    """Every server with its nodes. ``watched``: since when it is so is known."""
    for name, server in found.items():
        terminal.line(summary(name, server))
        if server["seen"]:
            terminal.line(f"  {server['seen']}")
            terminal.line(f"  next: {server['next']}")
        terminal.entries(
            (address, node["condition"], _sentences(node, watched))
            for address, node in server["nodes"].items()
        )


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
    """Until when a server is held."""
    if hold["seen"]:
        return f"held, for the record of holds can't be read: {hold['seen']}"
    return f"held until {hold['until']}" if hold["until"] else "held until it is released"


def _sentences(node: Mapping[str, Any], watched: bool) -> list[str]:
    facts = [f"since {node['since']}"] if watched else []
    facts += ["active"] if node["active"] else []
    facts += [f"version {node['version']}"] if node["version"] else []
    ends = node["certificate_ends"]
    facts += [f"certificate until {ends}"] if ends else []
    lines = [", ".join(facts)] if facts else []
    lines += [f"alarm: {node['alarm']}"] if node["alarm"] else []
    lines += [node["seen"]] if node["seen"] else []
    lines += [f"why:  {node['means']}"] if node["means"] else []
    lines += [f"next: {node['next']}"] if node["next"] else []
    return lines or [""]


def outcomes(found: list[dict[str, Any]]) -> None:
    """What each hook did."""
    for woken in found:
        how = "woken" if woken["ok"] else "not woken"
        terminal.line(f"{woken['hook']} ({woken['kind']}): {how}, in {woken['seconds']} s")
        for words in woken["words"]:
            terminal.line(f"  {words}")
        if failure := woken.get("failure"):
            terminal.line(f"  {failure['seen']}")
            terminal.line(f"  why:  {failure['means']}")
            terminal.line(f"  next: {failure['next']}")
