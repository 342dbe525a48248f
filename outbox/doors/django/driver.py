"""Django's connections, for `enqueue`: every statement through Django's own cursor.

So it is in Django's transactions, seen by its query log and execute wrappers, and refused in Django's own exceptions;
and psycopg 3 and psycopg2 are the same. As with the ORM, what fails within `atomic()` condemns that block, on SQLite,
too: an application that catches the error cannot commit half a mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from django.db import transaction

from outbox.core.batches import flat
from outbox.doorbell import ring
from outbox.drivers import DRIVERS
from outbox.insert import POSTGRES, SQLITE, Dialect, Insert, Row

_DIALECTS = {
    "django.db.backends.sqlite3.base.DatabaseWrapper": replace(SQLITE, marker="%s"),
    "django.db.backends.postgresql.base.DatabaseWrapper": POSTGRES,
}

_RETURNING = (3, 35)
"""The SQLite that has it."""


def register() -> None:
    """Let `enqueue` know them."""
    for kind, dialect in _DIALECTS.items():
        DRIVERS[kind] = Django(dialect)


class Django:
    """A django.db connection, that is, a DatabaseWrapper."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def together(self, connection: Any, many: bool) -> AbstractContextManager[None]:
        if not many:
            return nullcontext()
        block: AbstractContextManager[None] = transaction.atomic(using=connection.alias, savepoint=False)
        return block

    def insert_one(self, connection: Any, insert: Insert, row: Row) -> int | None:
        with transaction.mark_for_rollback_on_error(using=connection.alias), connection.cursor() as cursor:
            cursor.execute(insert.one(), row)
            if self.dialect.returning:
                found = cursor.fetchone()
                return None if found is None else int(found[0])
            # Without a new row, lastrowid is still the one of some earlier INSERT.
            message_id = int(cursor.lastrowid) if cursor.rowcount == 1 else None
        ring(connection.connection)
        return message_id

    def insert(self, connection: Any, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        if not self.dialect.returning and connection.Database.sqlite_version_info < _RETURNING:
            return [self.insert_one(connection, insert, row) for row in rows]
        ids: list[int | None] = []
        with connection.cursor() as cursor:
            for some in insert.sets(rows):
                cursor.execute(insert.many(len(some)), flat(some))
                ids += insert.ids(some, cursor.fetchall())
        if not self.dialect.returning:
            ring(connection.connection)
        return ids

    def insert_all(self, connection: Any, sql: str, rows: Sequence[Row]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(sql, rows)
