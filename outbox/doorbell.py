"""The doorbell: how `enqueue()` tells a runner on the same host that a commit is coming, so that it looks closely.

A SQLite database says nothing to those who wait for it: a runner looks 50 times a second whether somebody has
committed. So it also hangs a socket beside the file, ``shop.db.doorbell`` for ``shop.db``, and whoever sends it a
datagram has it look several times a millisecond for a moment. PostgreSQL needs none of this: there NOTIFY does it.

**It is rung before the commit**, because nobody tells us of the commit: it is the application's, and comes after
`enqueue()`. The runner's looks become rarer with the time since the ring, so what a mail waits for is an eighth of the
time from `enqueue()` to the commit, and a transaction that takes long, or rolls back, costs 60 looks in all.

**Nothing depends on it.** It carries nothing, so that whoever is let in can only have a runner look: and let in is who
may write the database file. It never blocks and never raises; where nobody listens, and on systems that have no such
sockets (Windows), the runner's own looks find the mail.

This module is the side of the application, `outbox.runner.waking.doorbell` that of the runner.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

SUFFIX = b".doorbell"

LONGEST = 100
"""Bytes that the address of a socket may have on every system; Linux takes 108, others 104."""

_NOT_OURS = (errno.EBADF, errno.ENOTSOCK, errno.EAFNOSUPPORT)
"""What is said of a descriptor that the application has closed (a daemon closes all it finds), and opened anew."""


def ring(connection: Any) -> None:
    """Ring at the database of this sqlite3.Connection, peewee.SqliteDatabase or SQLAlchemy Connection. It costs 6 µs.
    Never raises.
    """
    with suppress(Exception):
        ring_at(_file_of(connection))


def ring_at(file: bytes) -> None:
    """Ring at the database in this file; an empty name is one in memory."""
    if file:
        _ring_at(file + SUFFIX)


def _file_of(connection: Any) -> bytes:
    """The main database's file, whatever the current directory was when it was opened; empty for one in memory."""
    if hasattr(connection, "execute_sql"):  # peewee's
        connection = connection.connection()
    elif hasattr(connection, "exec_driver_sql"):  # SQLAlchemy's
        connection = connection.connection
    cursor = connection.cursor()
    if hasattr(cursor, "row_factory"):  # that of SQLAlchemy over aiosqlite has none
        cursor.row_factory = None
    cursor.execute("PRAGMA database_list")  # in two steps: what execute() returns differs
    row = cursor.fetchone()
    cursor.close()
    return os.fsencode(row[2] or b"")


def _ring_at(address: bytes) -> None:
    bell = _socket()
    try:
        if len(address) <= LONGEST:
            bell.sendto(b"", address)
        else:
            with Shortened(address) as short:
                bell.sendto(b"", short)
    except OSError as error:
        if error.errno in _NOT_OURS:
            bell.detach()
            _socket.cache_clear()


@cache
def _socket() -> socket.socket:
    """One for the process, and for those it forks. Left to the system to close: see `_NOT_OURS`."""
    import atexit
    import socket

    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    atexit.register(made.detach)
    return made


class Shortened:
    """The address of a socket, by way of its folder where it is too long: ``/proc/self/fd/7/shop.db.doorbell``. Raises
    OSError where there is no /proc.
    """

    def __init__(self, address: bytes) -> None:
        self._address = address
        self._folder = -1

    def __enter__(self) -> bytes:
        if len(self._address) <= LONGEST:
            return self._address
        folder, name = os.path.split(self._address)
        self._folder = os.open(folder, os.O_DIRECTORY | getattr(os, "O_PATH", os.O_RDONLY))
        return b"/proc/self/fd/%d/%s" % (self._folder, name)

    def __exit__(self, *_: object) -> None:
        if self._folder >= 0:
            os.close(self._folder)
