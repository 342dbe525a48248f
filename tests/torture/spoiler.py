"""Whoever reads and then writes in one transaction finds that others have committed in between: SQLITE_BUSY_SNAPSHOT.

    python -m tests.torture.spoiler LOG ARGUMENT…        # `outbox ARGUMENT…`, spoiled; LOG says what came of it

Before every statement of the program another connection commits, where nobody holds the lock. A transaction that has
begun with a read, and a cursor that was not read to its end, are then too old to write: SQLite refuses at once, and
waiting does not help. In `LOG`: ``refused SQL`` for each of these, and ``commits N`` at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import peewee

from outbox.store.engine import sqlite3

MINE = "CREATE TABLE IF NOT EXISTS spoiler (n)"


class Spoiler:
    """Commits to one file. `refused`: the statements that met a snapshot which is too old."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.commits = 0
        self.refused: list[str] = []

    def commit(self) -> None:
        """Nothing where somebody holds the lock. A connection each time: for any thread."""
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(MINE)
            connection.execute("INSERT INTO spoiler VALUES (1)")
            self.commits += 1
        connection.close()

    def watches(self, sql: str, run: Callable[[], Any]) -> Any:
        if not sql.startswith("PRAGMA"):
            self.commit()
        try:
            return run()
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY_SNAPSHOT":
                self.refused.append(" ".join(sql.split()))
            raise

    def spoil(self, database: Any) -> None:
        """Every connection that this `peewee.SqliteDatabase` opens from now on."""
        spoiler = self

        class Cursor(sqlite3.Cursor):
            def execute(self, sql: str, *parameters: Any) -> Any:
                return spoiler.watches(sql, partial(super().execute, sql, *parameters))

            def executemany(self, sql: str, *parameters: Any) -> Any:
                return spoiler.watches(sql, partial(super().executemany, sql, *parameters))

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = Cursor) -> Any:
                return super().cursor(factory)

        database.connect_params["factory"] = Connection


def spoil_all(spoilers: list[Spoiler]) -> Callable[[Any], Any]:
    """A `peewee.SqliteDatabase._connect` under which every file has its spoiler, which is added to `spoilers`."""
    connect: Callable[[Any], Any] = vars(peewee.SqliteDatabase)["_connect"]

    def spoiled(self: Any) -> Any:
        if self.database != ":memory:" and Path(self.database).exists():
            known = next((each for each in spoilers if each.path == self.database), None)
            if known is None:
                known = Spoiler(self.database)
                spoilers.append(known)
            known.spoil(self)
        return connect(self)

    return spoiled


def main() -> None:
    from outbox.cli.main import main as program

    spoilers: list[Spoiler] = []
    vars(peewee)["SqliteDatabase"]._connect = spoil_all(spoilers)
    log = Path(sys.argv[1])
    sys.argv = ["outbox", *sys.argv[2:]]
    try:
        program()
    finally:
        told = [f"refused {sql}" for each in spoilers for sql in each.refused]
        log.write_text("\n".join([*told, f"commits {sum(each.commits for each in spoilers)}"]) + "\n")


if __name__ == "__main__":
    main()
