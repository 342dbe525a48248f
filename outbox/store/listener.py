"""How a runner on PostgreSQL shows that it lives, and hears of new mail."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import peewee
import psycopg
from psycopg import errors

from outbox.clock import Clock
from outbox.errors import DatabaseError
from outbox.store import TransientError
from outbox.store.database import connect
from outbox.store.statements import origin_of

log = logging.getLogger("outbox.listener")

# 40001 also comes from an update that races a row's move between partitions, even under SKIP LOCKED.
_PASSING = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
    errors.DiskFull,
    errors.OutOfMemory,
    errors.ReadOnlySqlTransaction,
)


RECONNECT_EVERY = 0.25
"""Seconds."""


TEND_EVERY = 5.0
"""Seconds between looks at what is dead in the live partition. Autovacuum comes once a minute, in which a busy runner
leaves hundreds of MB behind.
"""

TEND_SHARE = 0.05
"""Of its time at most VACUUM takes: where an old snapshot keeps it from removing anything, it is long and in vain."""

# Only who owns the table may, and since 17 who has been granted MAINTAIN.
_MAY_TEND = """
SELECT s.n_dead_tup >= 20000 AND (pg_has_role(c.relowner, 'USAGE'){maintains})
FROM pg_class c JOIN pg_stat_all_tables s ON s.relid = c.oid WHERE c.oid = to_regclass('outbox_delivery_live')"""
_MAINTAINS = " OR has_table_privilege(c.oid, 'MAINTAIN')"

# TRUNCATE, which autovacuum does, would lock out all claims for a moment.
_TEND = "VACUUM (SKIP_LOCKED, TRUNCATE false) outbox_delivery_live"


def advisory_key(runner: str) -> int:
    """A runner's advisory lock: the first 63 bits of its random id."""
    return int(runner[:16], 16) >> 1


class Listener:
    """A connection of its own that waits for NOTIFY, and holds the runner's advisory lock while it lives.

    The lock is free exactly when this connection is gone, so any other runner, on any host, that can take it knows that
    its owner is dead. Between notifications it keeps the live partition small. `on_notify` and `on_lost` are called
    from a thread of the listener's own.
    """

    def __init__(self, url: str, on_notify: Callable[[], object], on_lost: Callable[[], object]) -> None:
        self._url = url
        self._on_notify = on_notify
        self._on_lost = on_lost
        self._stopping = threading.Event()
        self._end: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._runner = ""
        self._clock = Clock()
        self._tend_at = 0.0

    def take(self, runner: str) -> None:
        """Connect, hold the lock of this runner and begin to listen; after `release`, also for another runner. Raises
        DatabaseError or TransientError when that cannot be.
        """
        self._runner = runner
        connection = self._connect()
        # An event for each thread: one that is late in ending must not be brought back by its successor.
        self._stopping = threading.Event()
        self._end, end = socket.socketpair()
        arguments = (connection, end, self._stopping)
        self._thread = threading.Thread(target=self._listen, args=arguments, name="outbox-listener", daemon=True)
        self._thread.start()

    def sweep(self, dead: Iterable[str]) -> None:
        """The dead leave nothing behind: the server has let go of their locks."""

    def release(self, *, departed: bool = True) -> None:
        """Stop, and let go of the lock; whether the database says that we have `departed` makes no difference here."""
        self._stopping.set()
        if self._end is not None:
            self._end.close()
        if self._thread is not None:
            self._thread.join(timeout=1)
            self._thread = None

    def _connect(self) -> psycopg.Connection[Any]:
        with translated():
            db = connect(self._url, application_name="outbox listener")
            connection: psycopg.Connection[Any] = db.connection()
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (advisory_key(self._runner),)).fetchone()
            if row is None or not row[0]:
                # Our own previous session, which the server has not given up yet: we still count as alive through it.
                db.close()
                raise TransientError("the advisory lock of this runner is still held")
            connection.execute("LISTEN outbox")
            return connection

    def _listen(
        self, connection: psycopg.Connection[Any] | None, end: socket.socket, stopping: threading.Event
    ) -> None:
        with end:
            while connection is not None and not stopping.is_set():
                try:
                    self._attend(connection, end, stopping)
                except (psycopg.Error, OSError):
                    if not stopping.is_set():
                        self._on_lost()
                        connection = self._connect_again(stopping)
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _attend(self, connection: psycopg.Connection[Any], end: socket.socket, stopping: threading.Event) -> None:
        """Until the other side of `end` is closed. The socket itself is waited for: psycopg would wake ten times a
        second.
        """
        with selectors.DefaultSelector() as either:
            either.register(connection.fileno(), selectors.EVENT_READ)
            either.register(end, selectors.EVENT_READ)
            while not stopping.is_set():
                self._tend(connection)
                if list(connection.notifies(timeout=0)):  # also what came while it tended
                    self._on_notify()
                either.select(max(0.0, self._tend_at - self._clock.monotonic()))

    def _tend(self, connection: psycopg.Connection[Any]) -> None:
        """Remove what is dead in the live partition, if there is much."""
        began = self._clock.monotonic()
        if began < self._tend_at:
            return
        try:
            maintains = _MAINTAINS if connection.info.server_version >= 170000 else ""
            if (row := connection.execute(_MAY_TEND.format(maintains=maintains)).fetchone()) and row[0]:
                connection.execute(_TEND)
        except psycopg.Error as error:
            if connection.broken:
                raise
            log.debug("cannot vacuum: %s", error)
        now = self._clock.monotonic()
        self._tend_at = now + max(TEND_EVERY, (now - began) / TEND_SHARE)

    def _connect_again(self, stopping: threading.Event) -> psycopg.Connection[Any] | None:
        wait = 0.0  # at once: until the lock is held again, others may take us for dead
        while not stopping.wait(wait):
            wait = RECONNECT_EVERY
            with suppress(TransientError, DatabaseError, peewee.PeeweeException, psycopg.Error):
                connection = self._connect()
                self._on_notify()  # for what was not announced meanwhile
                return connection
        return None


@contextmanager
def translated() -> Iterator[None]:
    """The errors that pass, as TransientError; the others as they are."""
    try:
        yield
    except (peewee.PeeweeException, psycopg.Error) as error:
        origin = origin_of(error)
        if isinstance(origin, _PASSING):
            raise TransientError(str(error), reconnect=isinstance(origin, errors.ReadOnlySqlTransaction)) from error
        if isinstance(origin, psycopg.OperationalError | psycopg.InterfaceError) or _is_ended(origin):
            raise TransientError(str(error), reconnect=True) from error
        raise


def _is_ended(error: BaseException) -> bool:
    """The server has ended the session for a transaction that took too long: psycopg calls it an internal error."""
    return isinstance(error, psycopg.Error) and error.sqlstate in ("25P03", "25P04")
