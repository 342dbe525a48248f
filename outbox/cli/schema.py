"""``outbox schema apply | status | show | check``: the tables of Outbox in a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli.session import session_of
from outbox.errors import DatabaseError, SchemaError

if TYPE_CHECKING:
    import peewee

app = typer.Typer(
    name="schema", help="Create the tables in a database, and keep them up to date.", no_args_is_help=True
)

Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        help="sqlite:///outbox.db, postgresql://user@host/database; else OUTBOX_DATABASE, or the configuration's.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class DialectName(StrEnum):
    SQLITE = "sqlite"
    POSTGRES = "postgres"


@app.command()
def apply(ctx: typer.Context, database: Database = None, as_json: Json = False) -> None:
    """Apply the migrations that are missing. Safe to run again, and by many at once."""
    from outbox.store import migrate

    with _opened(ctx, database, create=True) as opened:
        applied = migrate.apply(opened)
        version = migrate.status(opened).version
    if as_json:
        typer.echo(json.dumps({"applied": applied, "version": version}))
    elif applied:
        typer.echo(f"applied {', '.join(f'{number:04}' for number in applied)}; the schema is at version {version}")
    else:
        typer.echo(f"nothing to do; the schema is at version {version}")


@app.command()
def status(ctx: typer.Context, database: Database = None, as_json: Json = False) -> None:
    """Show how far the database is. Changes nothing, and ends with 0 whatever it finds (`check` does not)."""
    from dataclasses import asdict

    from outbox.store import migrate

    with _opened(ctx, database, create=False) as opened:
        now = migrate.status(opened)
    if as_json:
        typer.echo(json.dumps(asdict(now)))
        return
    typer.echo(f"dialect        {now.dialect}")
    typer.echo(f"version        {now.version or 'none: there are no tables of Outbox'}")
    typer.echo(f"newest known   {now.latest}")
    typer.echo(f"pending        {', '.join(f'{number:04}' for number in now.pending) or 'nothing'}")
    typer.echo(f"database uuid  {now.database_uuid or '-'}")


@app.command()
def show(
    dialect: Annotated[DialectName, typer.Option("--dialect", help="Whose SQL to print.")],
    roles: Annotated[bool, typer.Option("--roles", help="Print the grants for PostgreSQL's roles instead.")] = False,
) -> None:
    """Print the schema as one SQL script: to read, or for another migration program to run on an empty database."""
    from outbox.store import migrate

    if roles and dialect is DialectName.SQLITE:
        raise typer.BadParameter("SQLite has no roles: who can open the file can do everything", param_hint="--roles")
    typer.echo(migrate.roles_sql() if roles else migrate.show(dialect.value), nl=False)


@app.command()
def check(ctx: typer.Context, database: Database = None, as_json: Json = False) -> None:
    """Make sure that the tables are those of this program; end with 4 if they are missing, older, newer or damaged."""
    from outbox.store import migrate

    with _opened(ctx, database, create=False) as opened:
        migrate.check(opened)
        version = migrate.status(opened).version
    typer.echo(json.dumps({"ok": True, "version": version}) if as_json else f"ok: the schema is at version {version}")


@contextmanager
def _opened(ctx: typer.Context, database: str | None, *, create: bool) -> Iterator[peewee.Database]:
    """The database that the option or the configuration names. Raises ConfigError, DatabaseError."""
    from outbox.cli import origin
    from outbox.config import load
    from outbox.store.database import connect

    session = session_of(ctx)
    typed = database or session.database_url
    config = load(session.config_path, database=typed or None)
    if not config.database:
        raise origin.none_configured(config)
    try:
        opened = connect(config.database, application_name="outbox schema", create=create)
    except DatabaseError as error:
        raise origin.located(error, config, typed) from error
    try:
        yield opened
    except SchemaError as error:
        if create:
            raise
        raise origin.located(error, config, typed) from error
    finally:
        opened.close()
