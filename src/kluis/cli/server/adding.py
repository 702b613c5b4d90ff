"""``kluis server add``: a look at a server, and what was found written into kluis.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.server import candidate, declaring, found
from kluis.cli.session import Session
from kluis.errors import ChangeRefused, KluisError

if TYPE_CHECKING:
    from kluis.configuration import ConfigurationFile
    from kluis.servers.declared import Server
    from kluis.servers.looking import Look
    from kluis.servers.pinning import Choice
    from kluis.settings.editing import Value
    from kluis.settings.servers import ServerSettings

Found = Mapping[str, "Look | KluisError"]
_ASKED = ("addresses", "dns", "server_name", "ca", "unseal", "recovery")
_FOUND = ("pin", "user", "cluster_id", "threshold", "shares")


@dataclass(frozen=True, slots=True)
class _Task:
    """A server as it will be declared, what was seen of it, and what follows from that."""

    name: str
    file: ConfigurationFile
    old: ServerSettings | None
    server: Server
    found: Found
    choice: Choice
    fields: Mapping[str, Value]

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.fields or self.choice.certificates)

    @property
    def own_file(self) -> Path:
        """Where a certificate is kept that nobody vouches for."""
        return self.file.path.parent / f"{self.name}.crt"


def add(  # noqa: PLR0913, PLR0917 - one for each option
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    address: Annotated[
        list[str] | None,
        typer.Option("--address", metavar="URL", help="A node; give it once for each node."),
    ] = None,
    dns: Annotated[
        str | None,
        typer.Option("--dns", metavar="HOST:PORT", help="A name whose every address is a node."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Its certificate authority, in PEM.")
    ] = None,
    server_name: Annotated[
        str | None,
        typer.Option("--server-name", metavar="NAME", help="The name that its certificate has."),
    ] = None,
    unseal: Annotated[
        str | None,
        typer.Option("--unseal", metavar="KEYRING/KEY", help="Where its shares are kept."),
    ] = None,
    recovery: Annotated[
        str | None,
        typer.Option("--recovery", metavar="KEYRING/KEY", help="Where its recovery keys are kept."),
    ] = None,
    pin_ca: Annotated[
        bool, typer.Option("--pin-ca", help="Pin the authority of --ca, not the server's own key.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
) -> None:
    """Look at a server, show what was found, and pin it in kluis.toml when you say yes.

    Shares go only to a server whose key is pinned. It is asked for nothing but the state of its
    seal, and told nothing. Run it again when its certificate has another key, or once it is open:
    a sealed server does not tell its cluster id.

    Example: kluis server add old-vault --address https://vault.example:8200 --ca ca.crt
    """
    session = Session(config)
    asked = candidate.Options(tuple(address or ()), dns, ca, server_name, unseal, recovery)
    declared, server = candidate.declared(session.file, name, asked)
    seen = _looked(server)
    task = _task(session.file, name, declared, server, seen, pin_ca)
    if not terminal.as_json():
        _show_changes(task)
    if task.changes:
        _confirm(task, yes)
        _write(task)
    reloaded = task.changes and declaring.reload(session)
    if terminal.as_json():
        terminal.data(_data(task, reloaded))
    elif task.changes:
        user, pin = task.choice.user, task.choice.pin
        how = "pinned" if pin else "declared, with its user," if user is not None else "declared"
        terminal.line(f"{name} is {how} in {task.file.path.name}")
        _hint(task, reloaded)


def _looked(server: Server) -> Found:
    """What its nodes show and say; shown to a person."""
    import asyncio

    from kluis.servers import looking

    seen = asyncio.run(looking.look(server))
    if not terminal.as_json():
        found.show(server, seen)
    return seen


def _task(
    file: ConfigurationFile,
    name: str,
    said: ServerSettings,
    server: Server,
    seen: Found,
    pin_ca: bool,
) -> _Task:
    """What follows from what was seen, with a warning of what must not be overlooked."""
    from kluis.servers import pinning

    own = candidate.has_own_file(file, name, said)
    choice = pinning.choose(server, seen, own_file=own, pin_authority=pin_ca)
    new = said.model_copy(update={"cluster_id": choice.cluster_id or said.cluster_id})
    all_of_them = {**file.settings.servers, name: new}
    for words in (*found.warnings(server, choice, seen), *found.contested(all_of_them, name)):
        terminal.note(words)
    will = {field: getattr(said, field) for field in _ASKED}
    will |= {field: getattr(choice, field) for field in _FOUND}
    will |= {"ca": f"{name}.crt"} if choice.certificates else {}
    old = file.settings.servers.get(name)
    fields = {
        field: value if isinstance(value, tuple | int) else str(value)
        for field, value in will.items()
        if value not in (None, ()) and (old is None or str(value) != str(getattr(old, field)))
    }
    return _Task(name, file, old, server, seen, choice, fields)


def _show_changes(task: _Task) -> None:
    from kluis.settings.editing import shown

    terminal.line()
    if not task.changes:
        terminal.line(f"{task.file.path.name} has all of it already; there is nothing to write.")
        return
    terminal.line(f"To be written into {task.file.path}:")
    terminal.line(f"  [servers.{task.name}]")
    for field, words in zip(task.fields, shown(task.fields), strict=True):
        was = None if task.old is None else candidate.text(getattr(task.old, field))
        terminal.line(f"  {words}" + (f"   (it was {was})" if was else ""))
    if task.choice.certificates:
        terminal.line(f"and its certificate into {task.own_file}")


def _confirm(task: _Task, yes: bool) -> None:
    if task.choice.certificates:
        question = "is that the server's own fingerprint, and shall all this be written?"
    else:
        question = "shall this be written?"
    if not yes and not terminal.confirm(question):
        raise ChangeRefused(
            "nothing was written", "you did not say yes", "run it again and say y, or add --yes"
        )


def _write(task: _Task) -> None:
    """The certificate if need be, then kluis.toml; after a proof that it will be believed."""
    import asyncio

    from kluis import configuration
    from kluis.servers import looking
    from kluis.settings import editing
    from kluis.store import files

    text = editing.with_server(task.file.text, task.name, task.fields)
    configuration.parse(task.file.path, text)
    old, user = task.server.tls, task.choice.user
    user = old.user if user is None else user
    pinned = replace(old, pin=task.choice.pin or old.pin, user=user)
    seen = [address for address, one in task.found.items() if not isinstance(one, KluisError)]
    if not task.choice.certificates:
        asyncio.run(looking.prove(pinned, seen))
    else:
        _refuse_foreign(task)
        pem = "".join(task.choice.certificates).encode("ascii")
        new = files.prepare(task.own_file, candidate.OWN_FILE_MARK + pem)
        try:
            asyncio.run(looking.prove(replace(pinned, ca=new), seen))
        except KluisError:
            new.unlink(missing_ok=True)
            raise
        new.chmod(0o644)
        files.put(new, task.own_file)
    configuration.write(task.file, text)


def _refuse_foreign(task: _Task) -> None:
    if not candidate.may_be_written(task.own_file):
        raise ChangeRefused(
            f"{task.own_file} is there already",
            "its certificate is to be written there, and what is there is not of kluis",
            "move it away, or choose another name for the server",
        )


def _hint(task: _Task, reloaded: bool) -> None:
    if reloaded:
        terminal.line("the running service took it")
    looks = [one for one in task.found.values() if not isinstance(one, KluisError)]
    if not any(one.status.initialized for one in looks):
        terminal.line(f"it was never initialised: kluis server init {task.name} does that")
        return
    if task.choice.cluster_id is None and task.server.identity.cluster_id is None:
        terminal.line(
            "it is sealed and does not tell its cluster id: run this again once it is open"
        )
    unseal, recovery = task.server.unseal, task.server.recovery
    if unseal is not None:
        terminal.line(f"its shares, if they are not kept yet: kluis key import {unseal} --shares -")
    if recovery is not None:
        command = f"kluis key import {recovery} --shares - --recovery"
        terminal.line(f"its recovery keys, if they are not kept yet: {command}")


def _data(task: _Task, reloaded: bool) -> dict[str, Any]:
    before = {} if task.old is None else {field: getattr(task.old, field) for field in task.fields}
    return {
        "server": task.name,
        **found.data(task.found),
        "changed": task.changes,
        "written": {
            field: list(value) if isinstance(value, tuple) else value
            for field, value in task.fields.items()
        },
        "was": {field: str(value) for field, value in before.items() if value is not None},
        "certificate_file": str(task.own_file) if task.choice.certificates else None,
        "reloaded": reloaded,
    }
