"""A PostgreSQL database for an operator who clicks in the pages of an application that has psycopg2 and no psycopg 3.

Only what `operate` and `audit` do is done so; a runner pipelines, and needs psycopg 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peewee

from outbox.store.migrate import check
from outbox.store.opened import refusals


class _OverPsycopg2(peewee.PostgresqlDatabase):
    """As `database.connect` opens it: every connection in UTC."""

    def _connect(self) -> Any:
        connection = super()._connect()  # type: ignore[misc]  # not in peewee's stubs
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def opened(url: str) -> Iterator[peewee.Database]:
    """`opened.opened`, for a ``postgresql://`` URL."""
    database = _OverPsycopg2(url, autoconnect=False)
    with refusals():
        try:
            database.connect()
            check(database)
            yield database
        finally:
            database.close()
