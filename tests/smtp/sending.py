"""Sending from tests: accounts of the scripted relay, messages, dot marks and deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from outbox.core.outcome import Envelope, Report
from outbox.core.render import Rendered
from outbox.core.secret import Secret
from outbox.smtp.connection import Connection, Deadlines, Relay
from tests import relay as scripted

T = TypeVar("T")

SENDER = "shop@example.com"
ANN, BOB, CYD = "ann@example.net", "bob@example.net", "cyd@example.net"
TO_ANN = Envelope(SENDER, (ANN,))
TO_ALL = Envelope(SENDER, (ANN, BOB, CYD))
HELLO = Rendered(b"Subject: hello\r\nMessage-ID: <1.a@example.com>\r\n\r\nHello\r\n.\r\n..dots\r\n", False, False)
LONG = Rendered(b"Subject: long\r\n\r\n" + (b"z" * 70 + b"\r\n") * 500, False, False)
"""36 kB: one chunk, and too much to be written together with its dot."""
BIG = Rendered(b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 150_000, False, False)
"""10 MB: more than the buffers of a loopback connection hold."""

PATIENT = 20.0


def deadlines(**short: float) -> Deadlines:
    """Patient at every stage but the ones named, because a test must not depend on how busy the machine is."""
    stages = ("connect", "banner", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "body", "dot", "rset")
    return Deadlines(**(dict.fromkeys(stages, PATIENT) | {"quit": 1.0} | short))


def account(
    relay: scripted.Relay,
    *,
    tls: str = "none",
    username: str = "",
    password: str = "",
    host: str = "127.0.0.1",
    mechanism: str = "auto",
    ca_file: str = "",
) -> Relay:
    """The settings of an account at the scripted relay."""
    return Relay(
        host,
        relay.port,
        tls,
        helo="client.example",
        ca_file=ca_file,
        mechanism=mechanism,
        username=username,
        password=Secret(password),
    )


@dataclass
class Mark:
    """A dot mark that is granted, refused, or raises; `asked` counts."""

    answer: bool | Exception = True
    asked: int = 0
    meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = field(default=None)

    async def __call__(self) -> bool:
        self.asked += 1
        if self.meanwhile is not None:
            await self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """In an event loop of its own, in debug mode: a coroutine never awaited or a transport never closed is an error."""
    return asyncio.run(coroutine)


async def connect(relay: Relay, limits: Deadlines | None = None) -> Connection:
    """Open, or fail the test with the report."""
    connection = await Connection.open(relay, limits or deadlines())
    assert isinstance(connection, Connection), connection
    return connection


async def send(
    relay: Relay,
    envelope: Envelope = TO_ANN,
    message: Rendered = HELLO,
    *,
    mark: Mark | None = None,
    limits: Deadlines | None = None,
) -> Report:
    """One message over a connection of its own."""
    connection = await Connection.open(relay, limits or deadlines())
    if isinstance(connection, Report):
        return connection
    try:
        return await connection.deliver(envelope, message, mark or Mark())
    finally:
        await connection.close()
