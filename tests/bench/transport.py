"""What a 2 kB mail costs over a connection that is reused, from the envelope to the report, without any database."""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import time
from collections.abc import Iterator, Sequence

from outbox.core.outcome import Envelope
from outbox.core.render import Rendered
from outbox.smtp.connection import Connection, Relay
from outbox.smtp.pool import Pool
from tests.bench.content import SHOP, TEXT
from tests.bench.figures import Bench, Figure
from tests.bench.ground import Sink

TOPIC = "transport"
CONNECTIONS = 32
TIMES = 3
KEY = ("bench", 1)
HEADER = (
    "Date: Sun, 01 Mar 2026 09:05:07 +0000\r\nFrom: {sender}\r\nTo: {to}\r\nSubject: Order {number}\r\n"
    "Message-ID: <{number}.bench@example.com>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n\r\n"
)


def measure(bench: Bench) -> Iterator[Figure]:
    mails = written(bench.size(20_000, 4_000))
    with Sink(bench) as sink:
        relay = Relay("127.0.0.1", sink.port, "none", max_messages=len(mails) * TIMES)
        seconds = min(asyncio.run(delivered(relay, mails)) for _ in range(TIMES))
        profile = cProfile.Profile()
        asyncio.run(delivered(relay, mails[:2_000], profile))
        note = f"{sink.name}, {CONNECTIONS} connections, pipelined; the mark is given at once"
    yield Figure(TOPIC, "CPU of a mail", seconds / len(mails) * 1e6, "µs", note=f"user and system; {note}")
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]  # the stubs do not know it
    yield Figure(TOPIC, "calls of a mail", calls / 2_000, "calls", note="of functions, asyncio's and built-in ones too")


def written(count: int) -> list[tuple[Envelope, Rendered]]:
    """So many mails as they are handed to the transport."""
    body = TEXT.replace("\n", "\r\n")
    made = []
    for number in range(count):
        to = f"customer{number}@example.net"
        content = HEADER.format(sender=SHOP, to=to, number=number) + body
        made.append((Envelope(SHOP, (to,)), Rendered(content.encode(), smtputf8=False, eight_bit=False)))
    return made


async def delivered(
    relay: Relay, mails: Sequence[tuple[Envelope, Rendered]], profile: cProfile.Profile | None = None
) -> float:
    """CPU seconds of this thread, from the first mail to the last, with all connections open before. Raises
    RuntimeError where the relay takes one not.
    """
    pool = Pool()
    opened = [await pool.take(KEY, relay) for _ in range(CONNECTIONS)]
    for each in opened:
        if not isinstance(each, Connection):
            raise RuntimeError(f"no connection: {each}")
        await pool.give(KEY, each)
    waiting = iter(mails)
    began = time.thread_time()
    if profile is not None:
        profile.enable()
    await asyncio.gather(*[carry(pool, relay, waiting) for _ in range(CONNECTIONS)])
    if profile is not None:
        profile.disable()
    spent = time.thread_time() - began
    await pool.close()
    return spent


async def carry(pool: Pool, relay: Relay, waiting: Iterator[tuple[Envelope, Rendered]]) -> None:
    for envelope, rendered in waiting:
        connection = await pool.take(KEY, relay)
        if not isinstance(connection, Connection):
            raise RuntimeError(f"no connection: {connection}")
        report = await connection.deliver(envelope, rendered, given)
        if report.reply is None or not report.reply.positive:
            raise RuntimeError(f"not accepted: {report}")
        await pool.give(KEY, connection)


async def given() -> bool:
    """The dot mark."""
    return True
