"""The seam between the runner and the database: verbs of the protocol, as statements in the clerk's open transaction.

    Store, the protocol: sqlite.py and postgres.py, over the shared statements of queue.py and reclaim.py (run by
                   statements.py) and the records of rows.py; sets.py and arrays.py, many rows in one statement
    floors.py      from where on a lane of PostgreSQL is read
    runners.py     leases, and who is dead; presence.py and listener.py, the locks that show it
    faults.py      pauses that a settlement carries; accounts.py, senders.py, journal.py, what they are written to
    probes.py      one message at a time tries what was paused, over all runners
    events.py      what the application hears of; telling.py, how the verbs write it; leases.py, who passes it on
    limits.py      how much may be sent, and how much has been, by all runners together
    rules.py       what operators know better than the table of replies
    operate.py     what operators do (changes.py), to which messages (filters.py)
    audit.py       what operators ask; statistics.py, health.py
    database.py    opens a database by its URL (opened.py: for a command; borrowed.py, over_psycopg2.py: for pages of an
                   application); migrate.py applies schema/; identity.py, is the file that is open still the one at its
                   path
    tables.py      peewee's map of the tables

Only the clerk writes. A verb takes and returns records; it opens no transaction, decides nothing and never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from outbox.core.message import Message
from outbox.core.record import record
from outbox.core.settlement import Claim, Fate, RecipientFate, Settlement
from outbox.errors import InvalidMessage

if TYPE_CHECKING:
    import peewee

    from outbox.clock import Clock
    from outbox.store.events import Recording


@dataclass(frozen=True, slots=True)
class Lane:
    """One sender's mail of one priority that waits; `due_at` is the earliest due time in it."""

    sender: str
    priority: int
    due_at: datetime


Place = tuple[Any, int]
"""Of a message in its lane: its due time, as the database has it, and its id."""


@dataclass(frozen=True, slots=True)
class Pick:
    """A request to claim at most `count` due messages of a lane. The lanes of one sender share one count."""

    sender: str
    priority: int
    count: int


@record
class Mark:
    """A request for the dot mark: from its commit on, a crash is a doubt.

    `through` is the highest recipient position that the coming dot covers (None: all of them). `fates` are those of
    the transactions before this one in the same attempt, committed together with the mark.
    """

    message_id: int
    claim_no: int
    through: int | None = None
    fates: tuple[RecipientFate, ...] = ()


LARGE = 64 * 1024
"""Octets of a content that is measured before it is read."""


@record
class Content:
    """What a claimed message says, read after the claim; `fates` by position, of earlier attempts. `size` in bytes."""

    message: Message | InvalidMessage
    fates: dict[int, Fate]
    size: int


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A message taken back from a dead runner; `dotted`: its dot may have been written, so it is a doubt."""

    message_id: int
    claim_no: int
    dotted: bool
    held: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """Queued mail of one sender: how much, the earliest due time, and why it stays (empty: it only waits for that)."""

    sender: str
    count: int
    due_at: datetime
    reason: str = ""

    def because(self, reason: str) -> Waiting:
        return replace(self, reason=reason)


class Settled(StrEnum):
    """What became of a settlement: WRITTEN, now or before a lost acknowledgement; LATE, the claim was lost, and what
    is true all the same was kept.
    """

    WRITTEN = "written"
    LATE = "late"


class TransientError(Exception):
    """The database could not serve the whole group just now (locked, restarting, serialization): the same group may be
    tried again. `reconnect` says that the connection is of no more use. `grave`: somebody should know of it at once.
    """

    def __init__(self, message: str, *, reconnect: bool = False, grave: bool = False) -> None:
        super().__init__(message)
        self.reconnect = reconnect
        self.grave = grave or reconnect


class DeclaredDeadError(Exception):
    """This runner has been declared dead, and must come again under a new id before it claims anything: what a dead
    runner holds is taken back, again and again.
    """


class Store(Protocol):
    """The database, as the runner sees it. Writes belong inside `transaction`, reads inside `reading` or there.

    Both translate: TransientError for what may be tried again, UnusableDatabase for what must end us; anything else
    comes through as it is.
    """

    db: peewee.Database
    who: str
    """Who the journal says has paused an account."""
    database_uuid: str
    """Which database it is, once it has been opened."""
    recording: Recording
    """Which events are written with settlements, and who is to hear of them."""

    def open(self) -> None:
        """Connect, or connect again, in this thread; on SQLite other threads may use it, too, one at a time. Raises
        DatabaseError when that cannot be, UnusableDatabase when it is not the database of the first time.
        """

    def close(self) -> None: ...

    def transaction(self) -> AbstractContextManager[None]:
        """BEGIN (on SQLite with the write lock, at once or not at all), then COMMIT, or ROLLBACK if anything raises."""

    def single(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """A transaction of one `claim` or one `mark` and nothing else. Not `durable`: a loss of power may undo it, if
        nothing durable has been committed since. So it is good enough for a claim: nothing is sent before a mark.
        """

    def reading(self) -> AbstractContextManager[None]: ...

    def now(self) -> datetime:
        """The database's clock; on SQLite the host's."""

    def changes(self) -> int | None:
        """A number that moves when another connection has committed (SQLite); None where NOTIFY says so."""

    def is_prompt(self) -> bool:
        """Whether a short transaction, begun now, would be over in a moment: it waits for no server, for no lock and
        not for a large log to be emptied; only for the disk (SQLite).
        """

    def log_has_grown(self) -> int:
        """The octets of the write-ahead log when something keeps it from being emptied, and it has not been said of
        this size (SQLite); else 0.
        """

    # reads

    def lanes(self, after: str, limit: int) -> list[Lane]:
        """The next lanes of senders beyond `after`, by sender and priority. Costs a seek a lane, whatever they hold."""

    def suspects(self, after: int, now: datetime) -> list[Claim]:
        """Due messages with an id beyond `after` whose last attempt ended with their runner's death; a few, by id."""

    def look(self, after: str, limit: int, suspect: int, now: datetime) -> tuple[list[Lane], list[Claim]]:
        """`lanes(after, limit)` and `suspects(suspect, now)`."""

    def content(self, claim: Claim) -> Content: ...

    def contents(self, claims: Sequence[Claim]) -> Iterator[tuple[Claim, Content | int]]:
        """`content` of each, in any order; of a LARGE one, only how many octets it has. Whoever stops taking reads no
        more.
        """

    def overdue(self, lane: Lane, after: Place | None, until: datetime, limit: int) -> list[Place]:
        """The next of a lane's messages that have been due since `until` or before."""

    def sending(self) -> int:
        """How many messages are being sent, by any runner."""

    def waiting(self) -> list[Waiting]:
        """What is queued, by sender. Reads every queued row: not for the hot path."""

    def held(self) -> int: ...

    def my_claims(self, runner: str) -> list[tuple[int, int]]: ...

    def expirable(self, now: datetime) -> bool: ...

    # writes

    def claim(self, runner: str, picks: Sequence[Pick], now: datetime) -> list[Claim]:
        """Take due messages, in the order of the picks and of their due times, and open an attempt for each. Raises
        DeclaredDeadError.
        """

    def claim_one(self, runner: str, message_id: int, now: datetime) -> list[Claim]:
        """Take this message, suspect or not, if it is still waiting and due. Raises DeclaredDeadError."""

    def mark(self, marks: Sequence[Mark], now: datetime) -> list[bool]:
        """Set dot marks. False where the claim was lost: that dot must not be written."""

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> list[Settled]: ...

    def reclaim(self, max_doubts: int, now: datetime) -> list[Reclaimed]:
        """Take back what runners declared dead were sending; a batch."""

    def reclaim_stray(self, message_id: int, claim_no: int, max_doubts: int, now: datetime) -> list[Reclaimed]:
        """Take back one claim of our own that we know nothing of."""

    def expire(self, now: datetime) -> int: ...

    def tell_delayed(self, messages: Iterable[int], reason: str, now: datetime) -> None:
        """Record that these are delayed: those that still wait, and of which it was not recorded before."""

    def absent(self, runners: Sequence[str]) -> list[str]:
        """Which of these runners do not hold the lock that each holds while it lives."""

    absent_for: float
    """For how many seconds a runner must be seen absent to be certainly dead: a connection that breaks comes back."""


class Presence(Protocol):
    """The lock that shows a runner to be alive."""

    def take(self, runner: str) -> None: ...

    def release(self, *, departed: bool = True) -> None:
        """Let go of it. `departed`: the database says that we have left."""

    def sweep(self, dead: Iterable[str]) -> None:
        """Clear away what runners that were declared dead have left."""


def open_store(url: str, clock: Clock) -> Store:
    """The store for this URL, not yet connected: `Store.open` does that."""
    from outbox.store.database import dialect_of

    if dialect_of(url) == "postgres":
        from outbox.store.postgres import PostgresStore

        return PostgresStore(url, clock)
    from outbox.store.sqlite import SqliteStore

    return SqliteStore(url, clock)


def open_presence(url: str, on_notify: Callable[[], object], on_lost: Callable[[], object]) -> Presence:
    """`on_notify` is called when the database announces mail, `on_lost` when others may think that we are dead."""
    from outbox.store.database import dialect_of, sqlite_path

    if dialect_of(url) == "postgres":
        from outbox.store.listener import Listener

        return Listener(url, on_notify, on_lost)
    from outbox.store.presence import FilePresence

    return FilePresence(Path(sqlite_path(url)))
