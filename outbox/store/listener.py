"""How a runner on PostgreSQL shows that it lives, and hears of new mail."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import peewee
import psycopg
from psycopg import errors

from outbox.errors import DatabaseError
from outbox.store import TransientError
from outbox.store.database import connect
from outbox.store.queue import origin_of

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


def advisory_key(runner: str) -> int:
    """A runner's advisory lock: the first 63 bits of its random id."""
    return int(runner[:16], 16) >> 1


class Listener(threading.Thread):
    """A connection of its own that waits for NOTIFY, and holds the runner's advisory lock while it lives.

    The lock is free exactly when this connection is gone, so any other runner, on any host, that can take it knows that
    its owner is dead. `on_notify` and `on_lost` are called from this thread.
    """

    def __init__(self, url: str, on_notify: Callable[[], object], on_lost: Callable[[], object]) -> None:
        super().__init__(name="outbox-listener", daemon=True)
        self._url = url
        self._on_notify = on_notify
        self._on_lost = on_lost
        self._stopping = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._runner = ""

    def take(self, runner: str) -> None:
        """Connect, hold the lock of this runner and begin to listen. Raises TransientError when that cannot be."""
        self._runner = runner
        self._connect()
        self.start()

    def _connect(self) -> None:
        with translated():
            db = connect(self._url, application_name="outbox listener")
            connection = db.connection()
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (advisory_key(self._runner),)).fetchone()
            if not row[0]:
                # Our own previous session, which the server has not given up yet: we still count as alive through it.
                db.close()
                raise TransientError("the advisory lock of this runner is still held")
            connection.execute("LISTEN outbox")
            self._connection = connection

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                assert self._connection is not None
                for _ in self._connection.notifies(timeout=0.5, stop_after=1):
                    self._on_notify()
            except (psycopg.Error, peewee.PeeweeException, OSError):
                if self._stopping.is_set():
                    return
                self._on_lost()
                self._reconnect()

    def _reconnect(self) -> None:
        while not self._stopping.wait(0.5):
            with suppress(TransientError, DatabaseError, peewee.PeeweeException, psycopg.Error):
                self._connect()
                self._on_notify()
                return

    def release(self) -> None:
        """Stop, and let go of the lock."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout=2)
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()


@contextmanager
def translated() -> Iterator[None]:
    """The errors that pass, as TransientError; the others as they are."""
    try:
        yield
    except (peewee.PeeweeException, psycopg.Error) as error:
        origin = origin_of(error)
        if isinstance(origin, _PASSING):
            raise TransientError(str(error)) from error
        if isinstance(origin, psycopg.OperationalError | psycopg.InterfaceError):
            raise TransientError(str(error), reconnect=True) from error
        raise
