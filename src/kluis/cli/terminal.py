"""All that kluis prints, and all that it asks a person. Nothing else writes to the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from kluis.errors import KluisError, UsageError


class Output(StrEnum):
    """How data is printed."""

    TEXT = "text"
    JSON = "json"


class _Form:
    output = Output.TEXT


def choose(output: Output) -> None:
    """Print in this form from now on."""
    _Form.output = output


def as_json() -> bool:
    """Whether the output is for a program."""
    return _Form.output is Output.JSON


def data(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def line(text: str = "") -> None:
    """One line for a person, on standard output."""
    print(text)


def note(text: str) -> None:
    """One line beside the output: progress, a hint. On standard error."""
    print(text, file=sys.stderr, flush=True)


def error(failure: KluisError) -> None:
    """What happened, why, and the next step. In JSON it is on standard output too."""
    if as_json():
        name = type(failure).__name__
        said = {"class": name, "seen": failure.seen, "means": failure.means}
        data({"error": {**said, "next": failure.next_step}})
    print(f"error: {failure.seen}", file=sys.stderr)
    if failure.means:
        print(f"  why:  {failure.means}", file=sys.stderr)
    if failure.next_step:
        print(f"  next: {failure.next_step}", file=sys.stderr)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for a person."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(*headings, box=box.SIMPLE, pad_edge=False, show_edge=False)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def interactive() -> bool:
    """Whether a person sits at standard input."""
    return sys.stdin.isatty()


def confirm(question: str) -> bool:
    """Whether a person says yes. Raises UsageError when there is nobody to ask."""
    if not interactive():
        raise UsageError(
            "there is nobody to ask: standard input is not a terminal",
            "a change is confirmed by a person",
            "add --yes if you mean it",
        )
    note(f"{question} [y/N] ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def secret_lines(prompt: str) -> Iterable[str]:
    """Secrets, one a line: from a prompt without echo, or from standard input."""
    if not interactive():
        for text in sys.stdin:
            if text.strip():
                yield text.rstrip("\r\n")
        return
    from getpass import getpass

    while text := getpass(prompt):
        yield text


def new_passphrase(name: str) -> str:
    """A passphrase, entered twice at a prompt; once on standard input."""
    if not interactive():
        text = sys.stdin.readline().rstrip("\r\n")
        if not text:
            raise UsageError(
                f"standard input has no line for the passphrase of {name}",
                "passphrases are read one a line, in the order of the anchors' names",
                "give it on standard input, or run this in a terminal",
            )
        return text
    from getpass import getpass

    first = getpass(f"passphrase for {name}: ")
    if first != getpass("again: "):
        raise UsageError("the two passphrases differ", "one was mistyped", "try again")
    return first
