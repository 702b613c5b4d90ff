"""``kluis server``: servers as they are found, made, kept, and moved in and out."""

from __future__ import annotations

import typer

from kluis.cli.server import adding, ceremony, looking, migrate, renewal

app = typer.Typer(
    help="Servers: pinned, watched, made safely, moved in and out.", no_args_is_help=True
)
app.command()(adding.add)
app.command("list")(looking.list_)
app.command()(looking.show)
app.command()(looking.hold)
app.command()(looking.release)
app.command()(looking.wake)
app.command()(ceremony.init)
app.command("generate-root")(renewal.generate_root)
app.command()(renewal.rekey)
app.command()(renewal.rotate)
app.command()(migrate.migrate)
