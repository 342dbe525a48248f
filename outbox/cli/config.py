"""``outbox config show``: every setting, its value, where it came from, and what it means."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox.cli import output
from outbox.cli.session import session_of

app = typer.Typer(help="What is configured, and where it came from.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """What is configured, and where it came from."""


@app.command()
def show(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print every setting with its value, default, source and meaning. The password of a database URL is not shown."""
    from outbox.config import settings

    found = settings(session_of(ctx).config)
    if as_json:
        output.show_json(found)
        return
    columns = ("setting", "value", "default", "source", "meaning")
    output.show_table(columns, [(each.key, each.value, each.default, each.origin, each.meaning) for each in found])
