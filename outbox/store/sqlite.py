"""The store on SQLite: one file, one writer at a time, one host.

SQLite needs no SKIP LOCKED: there is one writer, and BEGIN IMMEDIATE makes it us. The lock is taken without waiting;
the clerk waits in its own rhythm, because SQLite's busy handler starves (DESIGN §3.6).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import peewee

from outbox.clock import Clock
from outbox.core.batches import in_powers
from outbox.core.settlement import Claim
from outbox.errors import InvalidMessage, UnusableDatabase
from outbox.store import LARGE, Content, Lane, Mark, Pick, TransientError
from outbox.store.database import connect, sqlite_path
from outbox.store.engine import sqlite3
from outbox.store.identity import OpenFile
from outbox.store.presence import absent
from outbox.store.queue import BODIES, SUSPECTS, SqlStore
from outbox.store.rows import CLAIMED, as_claim, as_lane, content_of, moment, sender_value
from outbox.store.sets import in_sets
from outbox.store.statements import origin_of

# Other applications can store any bytes as TEXT, and one undecodable sender would hide all that wait beside it.
_CLAIMED = CLAIMED.replace("sender", "CAST(sender AS BLOB)")

# The sender's next lane, else the next sender's first. (Of a row value SQLite seeks the first column only, and would
# walk through all the mail of the lane.)
_LANE = """
SELECT * FROM (SELECT CAST(sender AS BLOB), priority, due_at FROM outbox_delivery
  WHERE state = 'queued' AND sender = CAST(?1 AS TEXT) AND priority > ?2 ORDER BY priority, due_at, message_id LIMIT 1)
UNION ALL
SELECT * FROM (SELECT CAST(sender AS BLOB), priority, due_at FROM outbox_delivery
  WHERE state = 'queued' AND sender > CAST(?1 AS TEXT) ORDER BY sender, priority, due_at, message_id LIMIT 1)
LIMIT 1"""

_FILES = "SELECT message_id, sum(length(content)) FROM outbox_attachment WHERE message_id IN {} GROUP BY message_id"

# Octets of each body. Only of a BLOB SQLite knows them without loading it.
_OCTETS_OF = {each: f"length({each})" if each == "raw" else f"length(CAST({each} AS BLOB))" for each in BODIES}
# Instead of a large body a number, which none is.
_SMALL_BODIES = ", ".join(
    f"CASE WHEN {octets} >= {LARGE} THEN 1 ELSE {each} END AS {each}" for each, octets in _OCTETS_OF.items()
)
_OCTETS = f"SELECT {' + '.join(f'coalesce({each}, 0)' for each in _OCTETS_OF.values())} FROM outbox WHERE id = ?"

_CLAIM = f"""
UPDATE outbox_delivery SET state = 'sending', claim_no = claim_no + 1, lease_owner = ?,
  dot_at = NULL, dot_through = NULL
WHERE state = 'queued' AND message_id IN (SELECT message_id FROM outbox_delivery
  WHERE state = 'queued' AND sender = CAST(? AS TEXT) AND priority = ? AND due_at <= ? AND crashes = 0
  ORDER BY due_at, message_id LIMIT ?)
RETURNING {_CLAIMED}"""

_CLAIM_ONE = f"""
UPDATE outbox_delivery SET state = 'sending', claim_no = claim_no + 1, lease_owner = ?,
  dot_at = NULL, dot_through = NULL
WHERE message_id = ? AND state = 'queued' AND due_at <= ?
RETURNING {_CLAIMED}"""

_SUSPECTS = f"""
SELECT {_CLAIMED} FROM outbox_delivery
WHERE state = 'queued' AND crashes > 0 AND due_at <= ? AND message_id > ?
ORDER BY message_id LIMIT ?"""

_MARK = """
UPDATE outbox_delivery SET dot_at = ?, dot_through = ?
WHERE message_id = ? AND claim_no = ? AND state = 'sending' RETURNING message_id"""

# The database is busy or unwell, and may be better in a moment. SQLITE_FULL and SQLITE_IOERR are here because a runner
# does not end for a full disk: what it knows is kept until it can be written.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
    }
)
_RECONNECT = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY}
)
LOG_EMPTIED_AT_ONCE = 20 * 1024 * 1024
"""Octets of a log that whoever commits may copy into the file, in some 20 ms. As a rule it has 4 MiB, and more than 16
only while somebody reads for long.
"""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_RECOVER = "stop all that writes to it; restore a backup, or `sqlite3 FILE .recover`: docs/operate.md#a-damaged-file"


class SqliteStore(SqlStore):
    """See `outbox.store.Store`."""

    # An application may have written any spelling of a date that SQLite understands.
    created_column = "strftime('%Y-%m-%dT%H:%M:%fZ', created_at, '+0 seconds')"
    sender_column = "CAST(sender AS BLOB)"

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url)
        self._clock = clock
        self._contents = self._content_where("IN ", _SMALL_BODIES)

    def open(self) -> None:
        if self.is_open:
            return
        with _translated():
            file = OpenFile(sqlite_path(self.url))
            self.db = connect(self.url, create=False, threads=True)
            self.db.execute_sql("PRAGMA busy_timeout = 0")  # never wait inside SQLite: the clerk waits
            self._synchronous = ""  # as it was opened
            self._recognise()
            self._looking = self.db.connection().cursor()
            if not file.settle():
                self.close()
                raise TransientError(f"{file.path} was replaced while it was opened", reconnect=True)
            self._file = file

    def close(self) -> None:
        if self.is_open:
            with suppress(peewee.PeeweeException, sqlite3.Error):
                self.db.close()

    def transaction(self) -> AbstractContextManager[None]:
        return self._transaction("FULL")

    def single(self, *, durable: bool = True) -> AbstractContextManager[None]:
        return self._transaction("FULL" if durable else "NORMAL")

    @contextmanager
    def _transaction(self, synchronous: str) -> Iterator[None]:
        """NORMAL leaves its sync to the next FULL one: the log is synced from its beginning."""
        with _translated():
            connection = self._cursor().connection
            if synchronous != self._synchronous:
                connection.execute(f"PRAGMA synchronous = {synchronous}")
                self._synchronous = synchronous
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._must_be_in_place()
                connection.execute("COMMIT")
            except BaseException:
                # A failed COMMIT (disk full) may have ended the transaction by itself.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        with _translated():
            self._must_be_in_place()
            yield

    def _must_be_in_place(self) -> None:
        """Nothing is committed to a file that nobody else sees, and nothing believed that it says."""
        if not self._file.is_in_place():
            path = self._file.path
            words = f"{path} or its log was renamed, deleted or replaced under this runner; nothing is sent from it"
            raise TransientError(words, reconnect=True)

    def is_prompt(self) -> bool:
        return self.is_open and self._file.log_size() <= LOG_EMPTIED_AT_ONCE

    def log_has_grown(self) -> int:
        return self._file.has_grown() if self.is_open else 0

    def now(self) -> datetime:
        return self._clock.now()

    def changes(self) -> int | None:
        """`PRAGMA data_version`: it moves when another connection commits, and not on our own commits."""
        try:  # asked dozens of times a second: no more than it takes
            return int(self._looking.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            with _translated():
                return int(self._all("PRAGMA data_version")[0][0])

    def lanes(self, after: str, limit: int) -> list[Lane]:
        """One seek a lane. `after` is the last sender of the previous call; a lane's priorities stay together."""
        found: list[Lane] = []
        cursor = self._cursor()
        seek = (sender_value(after), 10)  # beyond every priority of that sender
        while len(found) < limit:
            row = cursor.execute(_LANE, seek).fetchone()
            if row is None:
                break
            found.append(as_lane(row))
            seek = (row[0], row[1])
        return found

    def _many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        for statement, parameters in in_sets(sql, rows):
            self._cursor().execute(statement, parameters)

    def _matched(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[bool]:
        """All of them, as a rule. Where some did not match, it is undone, and done row by row to find out which."""
        if len(rows) < 2:
            return super()._matched(sql, rows)
        cursor = self._cursor()
        cursor.execute("SAVEPOINT rows")
        matched = sum(cursor.execute(*each).rowcount for each in in_sets(sql, rows))
        if matched == len(rows):
            cursor.execute("RELEASE rows")
            return [True] * matched
        cursor.execute("ROLLBACK TO rows")
        cursor.execute("RELEASE rows")
        return super()._matched(sql, rows)

    def contents(self, claims: Sequence[Claim]) -> Iterator[tuple[Claim, Content | int]]:
        """Row by row from one statement; by itself, what is large, has attachments or earlier fates, or cannot be read,
        and what comes after it.
        """
        left = {each.message_id: each for each in claims}
        for plain in in_powers([each.message_id for each in claims if each.claim_no == 1]):
            marks = f"({','.join('?' * len(plain))})"
            files = {row[0] for row in self._all(_FILES.format(marks), plain)}
            with closing(self._cursor()) as cursor:
                for row in _readable(cursor, self._contents + marks, plain):
                    if int in map(type, row[-4:-1]):
                        break  # its body is in SQLite's memory as long as this statement runs
                    if row[0] not in files and row[-1] is None:
                        yield left.pop(row[0]), content_of(row[:-1])
        for message_id, claim in left.items():
            octets = self._measured(message_id)
            yield claim, octets if octets >= LARGE else self.content(claim)

    def _measured(self, message_id: int) -> int:
        rows = self._all(_OCTETS, (message_id,)) + [row[1:] for row in self._all(_FILES.format("(?)"), (message_id,))]
        return sum(octets for (octets,) in rows)

    def _rows_of_one_message(self, sql: str, message_id: int) -> list[Any]:
        try:
            return super()._rows_of_one_message(sql, message_id)
        except sqlite3.OperationalError as error:
            column = _undecodable_column(error)
            if not column:
                raise
            raise InvalidMessage("5.6.0", f"column {column} holds bytes that are not UTF-8") from None

    def _lane_value(self, sender: str) -> str | bytes:
        return sender_value(sender)

    def suspects(self, after: int, now: datetime) -> list[Claim]:
        return [as_claim(row)[2] for row in self._all(_SUSPECTS, (moment(now), after, SUSPECTS))]

    def _claim_tier(self, runner: str, picks: Sequence[Pick], now: datetime) -> list[Claim]:
        at = moment(now)
        claims: list[Claim] = []
        for pick in picks:
            rows = self._all(_CLAIM, (runner, sender_value(pick.sender), pick.priority, at, pick.count))
            claims.extend(claim for _, _, claim in sorted(map(as_claim, rows), key=lambda row: row[:2]))
        return claims

    def _claim_single(self, runner: str, message_id: int, now: datetime) -> list[Claim]:
        return [as_claim(row)[2] for row in self._all(_CLAIM_ONE, (runner, message_id, moment(now)))]

    absent_for = 0.0

    def absent(self, runners: Sequence[str]) -> list[str]:
        """The lock file is free: dead."""
        return absent(Path(sqlite_path(self.url)), runners)

    def mark(self, marks: Sequence[Mark], now: datetime) -> list[bool]:
        at = moment(now)
        matched = self._matched(_MARK, [(at, each.through, each.message_id, each.claim_no) for each in marks])
        self._record_marked((each for each, ok in zip(marks, matched, strict=True) if ok), now)
        return matched


def _undecodable_column(error: sqlite3.OperationalError) -> str:
    """Other applications can store any bytes as TEXT. The driver's error has no code for that; "" for any other."""
    reason = str(error)
    return reason.partition("column ")[2].partition(" with")[0] if "decode to UTF-8" in reason else ""


def _readable(cursor: sqlite3.Cursor, sql: str, parameters: Sequence[int]) -> Iterator[Any]:
    """The rows before the first that cannot be read."""
    try:
        yield from cursor.execute(sql, parameters)
    except sqlite3.OperationalError as error:
        if not _undecodable_column(error):
            raise


@contextmanager
def _translated() -> Iterator[None]:
    """The errors that pass, as TransientError; damage as UnusableDatabase; the others as they are."""
    try:
        yield
    except (peewee.PeeweeException, sqlite3.Error) as error:
        code = getattr(origin_of(error), "sqlite_errorcode", None)
        code = None if code is None else code & 0xFF
        if code in _PASSING:
            grave = code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            raise TransientError(str(error), reconnect=code in _RECONNECT, grave=grave) from error
        if code in _DAMAGED:
            raise UnusableDatabase(f"the database is damaged: {error}", hint=_RECOVER) from error
        raise
