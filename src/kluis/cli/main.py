"""The ``kluis`` command."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from kluis import __version__
from kluis.cli import (
    anchor,
    apply,
    audit,
    backup,
    bootstrap,
    client,
    demo,
    explain,
    heal,
    key,
    serve,
    server,
    sidecar,
    simulate,
    status,
    terminal,
    unlock,
    watch,
)
from kluis.errors import KluisError, UsageError

app = typer.Typer(
    help="Keeps stock OpenBao and Vault servers unsealed: by anchors in the ordinary case,"
    " by people's paper shares in the worst one.",
    epilog="Example: kluis demo",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # lets paragraphs flow with the width of the terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        terminal.line(f"kluis {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


app.command()(apply.apply)
app.command()(serve.serve)
app.command()(serve.run)
app.command()(watch.watch)
app.command()(sidecar.sidecar)
app.command()(unlock.unlock)
app.command()(unlock.lock)
app.command()(status.status)
app.command()(explain.explain)
app.command()(simulate.simulate)
app.command()(status.verify)
app.command()(heal.heal)
app.command()(bootstrap.bootstrap)
app.command()(demo.demo)
app.add_typer(anchor.app, name="anchor")
app.add_typer(key.app, name="key")
app.add_typer(backup.app, name="backup")
app.add_typer(server.app, name="server")
app.add_typer(client.app, name="client")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run the command line. Exit codes: 0 done or open, 2 locked, 1 error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a path may hold what the terminal can't show
            stream.reconfigure(errors="backslashreplace")
    if _asks_for_json(sys.argv[1:]):
        terminal.choose(terminal.Output.JSON)
    sys.exit(guarded(lambda: app(standalone_mode=False, prog_name="kluis")))


def _asks_for_json(arguments: list[str]) -> bool:
    """Whether a program reads the answer: also where the arguments can't be understood."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    words = " ".join(own).replace("=", " ")
    return re.search(r"(^| )(--output|-o) ?json( |$)", words) is not None


def guarded(call: Callable[[], Any]) -> int:
    """The exit code of a call; a mistake becomes an error message, never a traceback."""
    try:
        code = call()
        sys.stdout.flush()
    except KluisError as error:
        terminal.error(error)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        terminal.note("interrupted")
        return 130
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        _discard_output()
        terminal.error(_refused(error))
        return 1
    except typer.TyperException as error:
        return _misused(error)
    return code if isinstance(code, int) else 0


def _discard_output() -> None:
    """What still waits for standard output can't be written: it must not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(error: OSError) -> KluisError:
    what = f"{error.filename}: " if error.filename else ""
    return KluisError(
        f"{what}{error.strerror or error}",
        "the system refused something that kluis needs",
        "mend that, then try again; kluis status shows what is there now",
    )


def _misused(error: typer.TyperException) -> int:
    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    if not message:  # a group without a command: its help was shown
        return 0
    command = context.command_path if context else "kluis"
    terminal.error(UsageError(message, "the command was called wrongly", f"{command} --help"))
    return 1
