"""SMTP on standard input and output (`sendmail -bs`): the same dialogue, for the user who started it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading

from aiosmtpd.smtp import SMTP

from outbox.configfile import setting
from outbox.doors.smtpd.counter import Counter
from outbox.doors.smtpd.handler import Handler
from outbox.errors import ConfigError
from outbox.mail import MAX_CONTENT


def serve() -> None:
    """Until QUIT, or the end of the input. Raises ConfigError, DatabaseError."""
    url = setting("database")
    if not url:
        raise ConfigError("no database is configured", hint="set OUTBOX_DATABASE")
    ours, theirs = socket.socketpair()
    copier = threading.Thread(target=_copy_in, args=(theirs,), daemon=True)
    copier.start()
    writer = threading.Thread(target=_copy_out, args=(theirs,), daemon=True)
    writer.start()
    asyncio.run(_speak(url, ours))
    writer.join(5)


async def _speak(url: str, end: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    counter = Counter(url, "sendmail")
    over = loop.create_future()

    class Spoken(SMTP):
        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            if not over.done():
                over.set_result(None)

    def protocol() -> SMTP:
        handler = Handler(counter)
        return Spoken(handler, data_size_limit=MAX_CONTENT, enable_SMTPUTF8=True, ident="Outbox", loop=loop)

    await loop.connect_accepted_socket(protocol, end)
    await over
    await counter.close()


def _copy_in(end: socket.socket) -> None:
    while octets := os.read(sys.stdin.fileno(), 65536):
        end.sendall(octets)
    end.shutdown(socket.SHUT_WR)


def _copy_out(end: socket.socket) -> None:
    while octets := end.recv(65536):
        sys.stdout.buffer.write(octets)
        sys.stdout.buffer.flush()
