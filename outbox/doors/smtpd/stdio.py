"""SMTP on standard input and output (`sendmail -bs`): the same dialogue, for the user who started it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from contextlib import suppress

from outbox.doors.sendmail.submit import database
from outbox.doors.smtpd.counter import Counter
from outbox.doors.smtpd.dialogue import Dialogue
from outbox.doors.smtpd.handler import Handler
from outbox.doors.smtpd.server import quiet


def serve() -> None:
    """Until QUIT, or the end of the input: what came before it is answered. Raises ConfigError, and BrokenPipeError
    when nobody reads the answers.

    Files, pipes and terminals are read and written by two threads: an event loop cannot wait for all of them.
    """
    url = database()
    quiet()
    ours, theirs = socket.socketpair()
    # Whoever started us may leave the input open after QUIT: nothing waits for its reader.
    threading.Thread(target=_copy_in, args=(theirs,), daemon=True).start()
    fault: list[OSError] = []
    writer = threading.Thread(target=_copy_out, args=(theirs, fault), daemon=True)
    writer.start()
    asyncio.run(_speak(url, ours))
    writer.join()
    if fault:
        raise fault[0]


async def _speak(url: str, end: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    counter = Counter(url, "sendmail")
    over = loop.create_future()

    class Spoken(Dialogue):
        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            if not over.done():
                over.set_result(None)

    def dialogue() -> Dialogue:
        return Spoken(Handler(counter), set(), hostname=socket.gethostname(), loop=loop)

    await loop.connect_accepted_socket(dialogue, end)
    await over
    await counter.close()


def _copy_in(end: socket.socket) -> None:
    with suppress(OSError):  # the dialogue is over
        while octets := os.read(sys.stdin.fileno(), 65536):
            end.sendall(octets)
    with suppress(OSError):
        end.shutdown(socket.SHUT_WR)


def _copy_out(end: socket.socket, fault: list[OSError]) -> None:
    try:
        while octets := end.recv(65536):
            sys.stdout.buffer.write(octets)
            sys.stdout.buffer.flush()
    except OSError as error:
        fault.append(error)
        end.close()  # whom nobody hears stops speaking
