"""How many buffers the statements of the store touch on PostgreSQL: a cost that does not depend on the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from outbox.clock import Clock
from outbox.store import runners
from outbox.store.database import connect
from outbox.store.postgres import PostgresStore


class Counted(PostgresStore):
    """Runs what it reads twice while `counting`: the first time to count, and undone. Only in a transaction."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url, clock or Clock())
        self._buffers: int | None = None

    def counting(self, verb: Callable[[], object]) -> int:
        """The buffers that all SELECTs and RETURNINGs of this verb touch."""
        self._buffers = 0
        verb()
        buffers, self._buffers = self._buffers, None
        return buffers

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        if self._buffers is not None:
            cursor = self._cursor()
            cursor.execute("SAVEPOINT counted")
            explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {self.translate(sql)}"
            ((plan,),) = cursor.execute(explain, parameters, prepare=False).fetchone()
            cursor.execute("ROLLBACK TO counted")
            self._buffers += plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        return super()._all(sql, parameters)


@contextmanager
def counted_store(url: str, runner: str, clock: Clock | None = None) -> Iterator[Counted]:
    """Open, with a registered runner."""
    store = Counted(url, clock)
    store.open()
    with store.transaction():
        now = store.now()
        runners.register(store, runner, host="web1", pid=1, version="0", now=now, lease=timedelta(days=1))
    yield store
    store.close()


def fill(url: str, count: int, *, sender: str = "shop@example.com", text: str = "Thanks") -> None:
    """INSERT mails in one statement."""
    database = connect(url)
    database.execute_sql(
        "INSERT INTO outbox (sender, recipients, subject, text_body)"
        " SELECT %s, 'customer' || n || '@example.net', 'Order ' || n, %s FROM generate_series(1, %s) AS n",
        (sender, text, count),
    )
    database.close()


@contextmanager
def pinned_snapshot(url: str) -> Iterator[None]:
    """Somebody has an old snapshot: from now on VACUUM may remove nothing."""
    database = connect(url)
    connection = database.connection()
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    connection.execute("SELECT count(*) FROM outbox_runner")
    yield
    database.close()
