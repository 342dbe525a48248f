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
    from outbox.config import Config, shown
    from outbox.config.settings import fields
    from outbox.store.database import safe_url

    config, default = session_of(ctx).config, Config()
    rows = [
        {
            "setting": key,
            "value": safe_url(shown(key, config)) if key == "database" else shown(key, config),
            "default": shown(key, default),
            "source": config.origin(key),
            "meaning": field.description or "",
        }
        for key, field in fields()
    ]
    if as_json:
        output.show_json(rows)
        return
    for row in rows:
        otherwise = f"; default {output.cell(row['default'])}" if row["source"] != "default" else ""
        output.say(f"{row['setting']} = {output.cell(row['value'])}  ({row['source']}{otherwise})")
        output.say(f"    {row['meaning']}")
