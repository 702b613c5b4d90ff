"""``kluis audit``: checking the log's chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kluis.cli import terminal
from kluis.cli.options import Format
from kluis.errors import AuditError

app = typer.Typer(help="The audit log.", no_args_is_help=True)


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Oldest first.")],
    output: Format = terminal.Output.TEXT,
    head: Annotated[
        str, typer.Option(help="The digest that was noted elsewhere: the chain must contain it.")
    ] = "",
) -> None:
    """Check that no record was changed, lost or added.

    Cut-off last records show only with --head: note the head elsewhere from time to time.

    Example: kluis audit verify state/audit.jsonl
    """
    from kluis.facade.audit import Chain

    chain = Chain(head)
    for path in files:
        chain.check(path)
    if head and not chain.met:
        raise AuditError(
            f"no record has the digest {head[:16]}…",
            "the log was cut before it, or is another one",
            "compare with a copy",
        )
    first, last = chain.first, chain.head
    if terminal.as_json():
        terminal.data({"first": first, "last": last.seq, "head": last.digest})
        return
    terminal.line(f"the chain holds: records {first} to {last.seq}, head {last.digest}")
    if first > 1:
        terminal.line(f"records before {first} are in older files, which were not given")
