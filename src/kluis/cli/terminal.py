"""All that kluis prints, and all that it asks a person. Nothing else writes to the terminal.

Sentences are folded to the width of the terminal that they go to, or to ``COLUMNS`` where that is
set. In a pipe or a file each stays on one line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TextIO

from kluis.errors import KluisError, UsageError

_LABEL: Final = re.compile(r" *(?:error: |why:  |next: )")
_UNFOLDED: Final = 1000


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
    """A line beside the output: progress, a hint. On standard error."""
    print(_folded(_printable(text), sys.stderr), file=sys.stderr, flush=True)


def _printable(text: str) -> str:
    """One line that can do nothing to a terminal, whatever was in a file or a name."""
    return "".join(c if c.isprintable() else " " for c in text)


def error(failure: KluisError) -> None:
    """What happened, why, and the next step. In JSON it is on standard output too."""
    if as_json():
        name = type(failure).__name__
        said = {"class": name, "seen": failure.seen, "means": failure.means}
        data({"error": {**said, "next": failure.next_step}})
    error_beside(failure)


def error_beside(failure: KluisError) -> None:
    """An error in words only, for a command that printed its data already."""
    note(f"error: {failure.seen}")
    if failure.means:
        note(f"  why:  {failure.means}")
    if failure.next_step:
        note(f"  next: {failure.next_step}")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for a person."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(*headings, box=box.SIMPLE, pad_edge=False, show_edge=False)
    for row in rows:
        shown.add_row(*row)
    Console(width=_columns(sys.stdout) or _UNFOLDED).print(shown)


def entries(rows: Iterable[tuple[str, str, Sequence[str]]]) -> None:
    """A name, a word and some sentences each, in columns."""
    shown = list(rows)
    names = max((len(name) for name, _, _ in shown), default=0)
    words = max((len(word) for _, word, _ in shown), default=0)
    margin = " " * (2 + names + 2 + words + 2)
    for name, word, sentences in shown:
        first = f"  {name:{names}}  {word:{words}}  "
        for number, sentence in enumerate(sentences):
            print(_folded((margin if number else first) + sentence, sys.stdout, margin))


def folded(lines: Iterable[str]) -> None:
    """Sentences; what is indented stays indented."""
    for text in lines:
        print(_folded(text, sys.stdout))


def _folded(text: str, stream: TextIO, margin: str = "") -> str:
    """A sentence as a stream shows it. ``margin`` is before all lines but the first."""
    columns = _columns(stream)
    if columns is None or len(text) <= columns:
        return text.rstrip()
    import textwrap

    if not margin:
        label = _LABEL.match(text)
        margin = " " * (label.end() if label else len(text) - len(text.lstrip()) + 2)
    return textwrap.fill(
        text,
        max(len(margin) + 24, columns),
        subsequent_indent=margin,
        break_on_hyphens=False,  # a path is copied whole
        break_long_words=False,
    )


def _columns(stream: TextIO) -> int | None:
    """How wide a stream is shown; None where nothing tells."""
    said = os.environ.get("COLUMNS", "")
    if re.fullmatch("[0-9]{1,5}", said) and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # no terminal, or no file at all
        return None


def interactive() -> bool:
    """Whether a person sits at standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def shown_to_person() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def confirm(question: str) -> bool:
    """Whether a person says yes. Raises UsageError when there is nobody to ask."""
    if not interactive():
        raise UsageError(
            "there is nobody to ask: standard input is not a terminal",
            "a change is confirmed by a person",
            "add --yes if you mean it",
        )
    print(_folded(f"{question} [y/N]", sys.stderr), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def secret_lines(prompt: str) -> Iterable[str]:
    """Secrets, one a line: from a prompt without echo, or from standard input.

    An empty line ends the prompt, and so does the end of the input.
    """
    if not interactive():
        for text in sys.stdin:
            if text.strip():
                yield text.rstrip("\r\n")
        return
    while text := _hidden(prompt):
        yield text


def _hidden(prompt: str) -> str:
    from getpass import getpass

    try:
        return getpass(prompt)
    except EOFError:
        note("")
        return ""


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
    first = _hidden(f"new passphrase for {name}: ")
    if first != _hidden("the same again: "):
        raise UsageError(
            f"the two passphrases for {name} differ",
            "one was mistyped; nothing was changed",
            "run the command again",
        )
    return first
