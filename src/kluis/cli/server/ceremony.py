"""``kluis server init``: a new server, whose shares are kept before anything else happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from kluis.cli import terminal
from kluis.cli.options import Config, Format
from kluis.cli.session import Session
from kluis.errors import ChangeRefused, KluisError, UsageError

Name = Annotated[str, typer.Argument(help="The server, as [servers.NAME] declares it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Shares = Annotated[int | None, typer.Option(help="How many shares to make.", show_default=False)]
Threshold = Annotated[
    int | None, typer.Option(help="How many of them are enough.", show_default=False)
]


@dataclass
class _Wanted:
    """What a new server shall have besides its shares."""

    audit: str | None
    admin_policy: str | None
    admin_token: bool
    transit_roles: list[str]

    def __bool__(self) -> bool:
        return bool(self.audit or self.admin_policy or self.transit_roles)


@dataclass
class _Made:
    """What was done, for the answer in JSON; the tokens are shown once."""

    steps: list[str] = field(default_factory=list)
    tokens: dict[str, Any] = field(default_factory=lambda: {"admin": "", "transit": {}})

    def step(self, words: str) -> None:
        """One step is done."""
        self.steps.append(words)
        if not terminal.as_json():
            terminal.line(words)


def init(  # noqa: PLR0913, PLR0917 - each is an option
    name: Name,
    config: Config = None,
    output: Format = terminal.Output.TEXT,
    shares: Shares = None,
    threshold: Threshold = None,
    audit: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its audit log, a file of its machine.")
    ] = None,
    admin_policy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write a policy for administrators.")
    ] = None,
    admin_token: Annotated[
        bool, typer.Option("--admin-token", help="Print a token with that policy, for 24 h.")
    ] = False,
    transit_role: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A Transit key for a server's seal, and its token."),
    ] = None,
    revoke_root: Annotated[
        bool, typer.Option("--revoke-root", help="Revoke the root token at the end.")
    ] = False,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print the shares and the root token.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Initialise a new server, and keep its shares in a keyring before anything else happens.

    The keyring is the one that unseal (Shamir) or recovery (auto seal) of [servers.NAME] names.
    Without --shares and --threshold 5 shares are made, of which 3 are enough. Nothing secret is
    printed unless asked for. Interrupted anywhere, run the same command again.

    Example: kluis server init old-vault --yes
    """
    wanted = _Wanted(audit, admin_policy, admin_token, list(transit_role or ()))
    if admin_token and not admin_policy:
        raise UsageError(
            "--admin-token needs the policy that the token shall have",
            "no policy was named",
            "add --admin-policy NAME",
        )
    session, numbers = Session(config), {"shares": shares, "threshold": threshold}
    found = session.call("server-init", server=name, step="look", **numbers)
    if _nothing_to_do(found, wanted, revoke_root, show_secrets):
        return
    _confirm_init(found, yes)
    if revoke_root and not admin_token:
        _caution(name)
    made = _Made()
    failure = None
    try:
        if found["stand"] != "done":
            _bring_up(session, name, numbers, made, show_secrets=show_secrets)
        if found["stand"] != "done" or found["root_token"]:
            _add(session, name, wanted, made)
    except KluisError as error:
        if not any(made.tokens.values()):
            raise
        failure = error
    _end(session, name, made, failure, revoke_root=revoke_root, show_secrets=show_secrets)


def _nothing_to_do(
    found: dict[str, Any], wanted: _Wanted, revoke_root: bool, show_secrets: bool
) -> bool:
    """Say so, where the server is made already and nothing more is asked for, or can be had."""
    more = found["root_token"] and (bool(wanted) or revoke_root)
    if found["stand"] != "done" or more or show_secrets:
        return False
    if terminal.as_json():
        terminal.data({**_told(found), "steps": [], "tokens": _Made().tokens, "error": None})
        return True
    kept = f"{found['shares']} shares, {found['threshold']} needed"
    terminal.line(f"{found['server']} is initialised already; {found['custody']} keeps {kept}")
    if wanted:
        terminal.line(
            "its root token is not kept any more, so policies and devices stay as they are"
        )
    return True


def _told(found: dict[str, Any]) -> dict[str, Any]:
    names = ("server", "stand", "custody", "shares", "threshold", "cluster_id", "root_token")
    return {name: found[name] for name in names}


def _confirm_init(found: dict[str, Any], yes: bool) -> None:
    if found["stand"] not in ("new", "begun"):
        return
    kind = "shares" if found["seal"] == "shamir" else "recovery keys"
    question = (
        f"initialise {found['server']} at {found['address']} (seal {found['seal']})?"
        f" {found['shares']} {kind}, {found['threshold']} needed, kept in {found['custody']}."
    )
    if not yes and not terminal.confirm(question):
        raise ChangeRefused(
            "nothing was done", "you did not say yes", "run it again and say y, or add --yes"
        )


def _caution(name: str) -> None:
    terminal.note(
        f"without --admin-token nobody has a token of {name} in the end: kluis server"
        f" generate-root {name} makes a root token, and a newer OpenBao wants a token for that"
    )


def _bring_up(
    session: Session, name: str, numbers: dict[str, int | None], made: _Made, *, show_secrets: bool
) -> None:
    """The init, if it is still to come, and the unseal after it."""
    from kluis.cli.server import rescue

    def step(what: str) -> dict[str, Any]:
        return session.call("server-init", server=name, step=what, **numbers)

    intent = step("intend")
    if intent["changed"]:
        made.step(f"{intent['custody']} can be written; {intent['proof']}")
    if intent["changed"] and not terminal.as_json():
        terminal.note("it is being initialised, which may take 10 s and more: do not interrupt it")
    init_answer = step("make")
    if not init_answer["kept"]:
        rescue.keep(session, name, init_answer, show_secrets=show_secrets)
    if init_answer["changed"]:
        found = step("look")
        kept = f"{found['shares']} shares, {found['threshold']} needed"
        made.step(f"initialised: {kept}, kept in {found['custody']}")
    cluster_id = step("unseal")["cluster_id"]
    made.step(f"unsealed and active: cluster {cluster_id}")


def _add(session: Session, name: str, wanted: _Wanted, made: _Made) -> None:
    """The audit log, the policies and the tokens. A token is printed as soon as it is there."""
    if wanted.audit:
        new = session.call("server-init", server=name, step="audit", file=wanted.audit)["new"]
        made.step(f"audit log: {wanted.audit}{'' if new else ' (was there)'}")
    if policy := wanted.admin_policy:
        found = session.call(
            "server-init", server=name, step="admin", policy=policy, token=wanted.admin_token
        )
        made.step(f"policy for administrators: {policy}{_was_there(found, wanted.admin_token)}")
        made.tokens["admin"] = found["token"]
        _show_token(f"token with {policy}, for 24 h", found["token"])
    for role in wanted.transit_roles:
        found = session.call("server-init", server=name, step="transit-role", role=role)
        made.step(f"Transit key transit/{role}, policy {found['policy']}{_was_there(found, True)}")
        if found["token"]:
            made.tokens["transit"][role] = found["token"]
        _show_token(f"token for the seal with key_name {role}, renewed or 30 days", found["token"])


def _was_there(found: dict[str, Any], token: bool) -> str:
    if found["new"]:
        return ""
    return " (was there)" if found["token"] or not token else " (was there; no further token)"


def _show_token(what: str, token: str) -> None:
    if token and not terminal.as_json():
        terminal.line(f"{what}: {token}")


def _end(
    session: Session,
    name: str,
    made: _Made,
    failure: KluisError | None,
    *,
    revoke_root: bool,
    show_secrets: bool,
) -> None:
    """The secrets, if asked for; the root token's end; and the whole answer in JSON."""
    from kluis.service.house import explain_error

    secrets = None
    try:
        if failure is None and show_secrets:
            secrets = session.call("server-init", server=name, step="secrets")
            _show_secrets(name, secrets)
        if failure is None:
            ended = session.call("server-init", server=name, step="finish", revoke_root=revoke_root)
            made.step(_words_of_end(ended))
    except KluisError as error:
        failure = error
    if terminal.as_json():
        found = session.call("server-init", server=name, step="look")
        said = {**_told(found), "steps": made.steps, "tokens": made.tokens}
        if secrets is not None:
            said["secrets"] = secrets
        terminal.data({**said, "error": explain_error(failure) if failure else None})
        if failure is not None:
            terminal.error_beside(failure)
            raise typer.Exit(1)
    elif failure is not None:
        raise failure


def _words_of_end(ended: dict[str, Any]) -> str:
    if ended["revoked"]:
        return "the root token is revoked; the server takes it no more"
    return "the root token is kept; --revoke-root ends it" if ended["root_token"] else "done"


def _show_secrets(name: str, secrets: dict[str, Any]) -> None:
    if terminal.as_json():
        return
    if terminal.shown_to_person():
        terminal.note("warning: standard output is a terminal, which keeps what it showed")
    terminal.line(f"the shares of {name}, {secrets['threshold']} needed:")
    for share in secrets["shares"]:
        terminal.line(share)
    if secrets["root_token"]:
        terminal.line(f"root token: {secrets['root_token']}")
