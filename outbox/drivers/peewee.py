"""peewee, over either database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from outbox.core.batches import flat
from outbox.drivers.held import savepoint, transaction
from outbox.drivers.protocols import IDLE, RETURNING, PeeweeDatabase, first
from outbox.insert import Dialect, Insert, Row


class Peewee:
    """A peewee Database, always in autocommit outside of its atomic() and manual_commit(). All statements go through
    it, so that its exceptions and query hooks are what its application expects.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    @contextmanager
    def together(self, database: PeeweeDatabase, many: bool) -> Iterator[None]:
        def is_open() -> bool:
            connection = database.connection()
            if self.dialect.returning:
                return bool(connection.info.transaction_status != IDLE)
            return bool(connection.in_transaction)

        if not many:
            yield
        elif not is_open():
            with transaction(database.execute_sql, is_open):
                yield
        elif self.dialect.returning:
            yield
        else:
            with savepoint(database.execute_sql, is_open):
                yield

    def insert_one(self, database: PeeweeDatabase, insert: Insert, row: Row) -> int | None:
        with closing(database.execute_sql(insert.one(), row)) as cursor:
            if self.dialect.returning:
                return first(cursor.fetchone())
            return cursor.lastrowid if cursor.rowcount == 1 else None

    def insert(self, database: PeeweeDatabase, insert: Insert, rows: Sequence[Row]) -> list[int | None]:
        if not self.dialect.returning and database.server_version < RETURNING:
            return [self.insert_one(database, insert, row) for row in rows]
        ids: list[int | None] = []
        for some in insert.sets(rows):
            with closing(database.execute_sql(insert.many(len(some)), flat(some))) as cursor:
                if not self.dialect.returning:
                    cursor.row_factory = None
                ids += insert.ids(some, cursor.fetchall())
        return ids

    def insert_all(self, database: PeeweeDatabase, sql: str, rows: Sequence[Row]) -> None:
        for row in rows:
            database.execute_sql(sql, row).close()
