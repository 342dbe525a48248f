"""``outbox doctor``: is everything as it should be, and what to do where it is not.

Checks go from the outside in: configuration, key, database, schema, and then what is in it (see `outbox.cli.checks`).
One that cannot be made because an earlier one failed is left out. It changes nothing, sends nothing, looks no name up
and shows no secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import origin, output
from outbox.cli.checks import (
    Check,
    Result,
    database,
    failed,
    pauses,
    pickups,
    policy,
    relays,
    rescued,
    running,
    sealed,
    telling,
)
from outbox.cli.session import Session, session_of
from outbox.errors import DatabaseError, OutboxError

if TYPE_CHECKING:
    import peewee

    from outbox.store.migrate import SchemaStatus

app = typer.Typer()


@app.command()
def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check configuration, key, database, accounts, runners and the queue; say what to do. Ends with 1 on a failure."""
    checks = list(examine(session_of(ctx)))
    failures = sum(check.result is Result.FAIL for check in checks)
    warnings = sum(check.result is Result.WARN for check in checks)
    if as_json:
        output.show_json({"ok": not failures, "failures": failures, "warnings": warnings, "checks": checks})
    else:
        _draw(checks, failures, warnings)
    if failures:
        raise typer.Exit(1)


def examine(session: Session) -> Iterator[Check]:
    """All the checks, in order."""
    try:
        config = session.config
    except OutboxError as error:
        yield failed("configuration", error)
        return
    where = f"database from {origin.source(config)}" if config.database else "no database in it"
    yield Check("configuration", Result.OK, f"{config.file or 'no file'}; {where}")
    if not config.database:
        yield failed("database", origin.none_configured(config))
        return
    from outbox.store.database import connect
    from outbox.store.opened import refusals

    try:
        db = connect(config.database, create=False)
    except DatabaseError as error:
        yield failed("database", origin.located(error, config, session.database_url))
        return
    try:
        with refusals():
            yield from _examine_database(session, db)
    except DatabaseError as error:
        yield failed("database", error)
    finally:
        db.close()


def _examine_database(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.store import migrate

    yield from database.examine(session, db)
    try:
        migrate.check(db)
    except DatabaseError as error:
        yield failed("schema", origin.located(error, session.config, session.database_url))
        return
    yield from _identity(session, migrate.status(db))
    for each in (sealed, relays, pauses, policy, telling, rescued, pickups, running):
        yield from each.examine(session, db)


def _identity(session: Session, status: SchemaStatus) -> Iterator[Check]:
    another = origin.another_database(session.config, status.database_uuid)
    if another is not None:
        yield failed("schema", another)
    else:
        yield Check("schema", Result.OK, f"version {status.version}")


def _draw(checks: Sequence[Check], failures: int, warnings: int) -> None:
    from outbox.cli.phrases import STYLES, counted, print_hanging, print_line

    width = max(len(check.check) for check in checks)
    for check in checks:
        result = (f"{check.result:<4}  ", STYLES[check.result])
        print_hanging([result, (f"{check.check:<{width}}  ", "bold")], check.words)
        if check.hint:
            print_hanging([(" " * (6 + width), ""), ("→ ", "bright_black")], check.hint, "bright_black")
    print_line()
    if failures:
        print_line((f"{counted(failures, 'failure')}, {counted(warnings, 'warning')}", "bold red"))
    elif warnings:
        print_line((f"works, with {counted(warnings, 'warning')}", "yellow"))
    else:
        print_line(("all is well", "green"))
