"""SQL for the tests of both databases: statements are written with `?`, and times come back as text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import peewee
import pytest

from outbox.store.database import dialect

MAIL: dict[str, Any] = {
    "sender": "shop@example.com",
    "recipients": "ann@example.net",
    "subject": "Order 7",
    "text_body": "Thanks",
}
FINAL = ("sent", "failed", "expired", "cancelled")
MOMENT = "2026-03-01T09:30:00.000Z"


def run(database: peewee.Database, sql: str, *values: Any) -> Any:
    """Execute one statement; return its cursor."""
    if dialect(database) == "postgres":
        sql = sql.replace("%", "%%").replace("?", "%s")
    return database.execute_sql(sql, values)


def rows(database: peewee.Database, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What a SELECT returns, alike in both dialects: times as 24 characters, sums as int."""
    return [tuple(map(_alike, row)) for row in run(database, sql, *values).fetchall()]


def one(database: peewee.Database, sql: str, *values: Any) -> Any:
    """The only column of the only row."""
    ((value,),) = rows(database, sql, *values)
    return value


def insert(database: peewee.Database, **columns: Any) -> int:
    """INSERT a mail (`MAIL`, with `columns` besides; None leaves one out) as an application would; return its id."""
    given = {name: value for name, value in {**MAIL, **columns}.items() if value is not None}
    names, marks = ", ".join(given), ", ".join("?" * len(given))
    return int(one(database, f"INSERT INTO outbox ({names}) VALUES ({marks}) RETURNING id", *given.values()))


def bring(database: peewee.Database, message: int, state: str) -> None:
    """Put a message into a state, as the runner or an operator would."""
    if state == "queued":
        return
    if state == "cancelled":
        run(
            database,
            "UPDATE outbox_delivery SET state = 'cancelled', final_at = ? WHERE message_id = ?",
            MOMENT,
            message,
        )
        return
    run(
        database,
        "UPDATE outbox_delivery SET state = 'sending', claim_no = claim_no + 1, lease_owner = 'r1'"
        " WHERE message_id = ?",
        message,
    )
    if state != "sending":
        run(
            database,
            "UPDATE outbox_delivery SET state = ?, lease_owner = NULL, final_at = ? WHERE message_id = ?",
            state,
            MOMENT if state in FINAL else None,
            message,
        )


@contextmanager
def refused(words: str) -> Iterator[None]:
    """The statement inside fails, and its error says `words`: a constraint's name, or part of a trigger's sentence."""
    with pytest.raises(peewee.DatabaseError) as caught:
        yield
    assert isinstance(caught.value, peewee.IntegrityError), caught.value
    assert words in str(caught.value)


def until_blocked(database: peewee.Database) -> None:
    """Return when another session waits for a lock (PostgreSQL)."""
    for _ in range(20_000):
        if one(database, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
            return
    raise AssertionError("nobody waits")


def _alike(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"
    if type(value).__name__ == "Decimal":
        return int(value)
    return value
