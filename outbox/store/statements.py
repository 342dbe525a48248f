"""How statements run, in both dialects: constant SQL, written with `?` and translated once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import peewee

from outbox.errors import DatabaseError, InvalidMessage, UnusableDatabase
from outbox.store import TransientError

# A group whose COMMIT was not acknowledged is written again: its rows are there already.
RECORD_RECIPIENT = """
INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate, code, status, reply, at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (message_id, position, claim_no) DO NOTHING"""


class Statements(ABC):
    """An open database, and what runs constant SQL on it. How many rows go in one statement: sets.py, arrays.py."""

    created_column = "created_at"
    headers_column = "headers"
    sender_column = "sender"
    skip_locked_of: Callable[[str], str] = staticmethod(lambda table: "")
    translate: Callable[[str], str] = staticmethod(lambda sql: sql)

    db: peewee.Database

    def __init__(self, url: str) -> None:
        self.url = url
        self.who = "runner"
        self.database_uuid = ""

    @property
    def is_open(self) -> bool:
        return hasattr(self, "db") and not self.db.is_closed()

    def _cursor(self) -> Any:
        if not self.is_open:  # peewee would open it again by itself: a new, empty file, where the old one is gone
            raise TransientError("not connected", reconnect=True)
        return self.db.connection().cursor()

    def _recognise(self) -> None:
        """That what was opened is the database of the first time. Raises UnusableDatabase."""
        try:  # through peewee, which makes one kind of the drivers' errors
            rows = self.db.execute_sql("SELECT value FROM outbox_meta WHERE key = 'database_uuid'").fetchall()
        except peewee.PeeweeException as error:
            if "outbox_meta" not in str(error):
                raise
            raise DatabaseError(f"the database has no tables of Outbox: {error}") from error
        [[uuid]] = rows or [[""]]
        if self.database_uuid not in ("", uuid):
            self.close()
            raise UnusableDatabase(
                f"this is database {uuid}, and the one that this runner serves is {self.database_uuid}: another has"
                " taken its place",
                hint="put the right one back; or, if this is it, start the runner again",
            )
        self.database_uuid = uuid

    def is_prompt(self) -> bool:
        return False

    def log_has_grown(self) -> int:
        return 0

    @abstractmethod
    def close(self) -> None: ...

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        cursor = self._cursor()
        cursor.execute(self.translate(sql), parameters)
        rows: list[Any] = cursor.fetchall()
        return rows

    @abstractmethod
    def _many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """One statement for many rows, whose results nobody needs."""

    def _matched(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        """One fenced UPDATE … RETURNING per row: which of them matched."""
        statement = self.translate(sql)
        cursor = self._cursor()
        return [cursor.execute(statement, row).fetchone() is not None for row in rows]

    def _columns(self, sql: str, message_id: int) -> list[Any]:
        """The row of a message, for `as_message`. Raises InvalidMessage when it says nothing any more."""
        rows = self._rows_of_one_message(sql, message_id)
        if not rows:
            raise InvalidMessage("5.6.0", "the message has been deleted")
        columns: list[Any]
        *columns, erased_at = rows[0]
        if erased_at is not None:
            raise InvalidMessage("5.6.0", "the content of the message has been erased")
        return columns

    def _rows_of_one_message(self, sql: str, message_id: int) -> list[Any]:
        return self._all(sql, (message_id,))


def origin_of(error: BaseException) -> BaseException:
    """The driver's own error, which has the code; peewee wraps it."""
    while isinstance(error, peewee.PeeweeException) and (inner := error.__cause__ or error.__context__):
        error = inner
    return error
