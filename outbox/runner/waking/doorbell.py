"""The runner's side of `outbox.doorbell`: the socket beside a SQLite file that applications ring."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from outbox.doorbell import SUFFIX, Shortened
from outbox.runner.waking.hearing import Ear, Place, place_of

log = logging.getLogger("outbox.doorbell")

AT_ONCE = 100
"""Rings that are taken together."""


class Doorbell:
    """One file has one bell. Of several runners the first has it; when that one ends or dies, another takes it with its
    next `attend`. That one hears it suffices: the others find what it leaves by looking, as ever.

    `on_ring` is called on the event loop.
    """

    def __init__(self, database: Path, on_ring: Callable[[], None]) -> None:
        self._address = os.fsencode(database.resolve()) + SUFFIX
        self._database = database
        self._on_ring = on_ring
        self._socket: socket.socket | None = None
        self._ear: Ear | None = None
        self._place: Place | None = None

    def attend(self) -> None:
        """See that somebody hears the bell. To be called every few seconds. Never raises."""
        if not hasattr(socket, "AF_UNIX"):
            return
        try:
            if self._socket is not None and place_of(self._address) == self._place:
                return
            self._put_down()
            if not self._is_heard():
                self._hang()
        except OSError as error:
            log.debug("no doorbell at %s: %s", os.fsdecode(self._address), error)

    def close(self) -> None:
        """Take it away, if it is ours."""
        if self._socket is not None:
            with suppress(OSError):
                if place_of(self._address) == self._place:
                    os.unlink(self._address)
        self._put_down()

    def _is_heard(self) -> bool:
        """Whether there is a bell that somebody hears. One that a dead runner has left is taken away."""
        with Shortened(self._address) as address, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect(address)
            except FileNotFoundError:
                return False
            except ConnectionRefusedError:
                if stat.S_ISSOCK(os.lstat(self._address).st_mode):
                    os.unlink(self._address)
                return False
            return True

    def _hang(self) -> None:
        with Shortened(self._address) as address:
            bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                bell.setblocking(False)
                bell.bind(address)
                self._let_in()
                self._place = place_of(self._address) or (0, 0)  # gone already: it is hung again
            except BaseException:
                bell.close()
                raise
        self._socket, self._ear = bell, Ear(bell.fileno(), self._hear)

    def _let_in(self) -> None:
        """Those who may write the database: its owner, group and mode, as SQLite has it for the files it adds."""
        like = os.stat(self._database)
        os.chmod(self._address, stat.S_IMODE(like.st_mode) & 0o666)
        owner = like.st_uid if os.geteuid() == 0 else -1
        with suppress(PermissionError):  # a group that is not ours to give
            os.chown(self._address, owner, like.st_gid, follow_symlinks=False)

    def _hear(self) -> None:
        assert self._socket is not None
        with suppress(BlockingIOError):
            for _ in range(AT_ONCE):
                self._socket.recv(1)
        self._on_ring()

    def _put_down(self) -> None:
        if self._ear is not None:
            self._ear.close()
        if self._socket is not None:
            self._socket.close()
        self._ear = self._socket = None
