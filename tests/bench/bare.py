"""The least that keeps the promise: how fast this machine sends where nothing else is done.

    python -m tests.bench.bare URL PORT CONNECTIONS

An engine for one account, on one thread, over SQLite: the runner's own statements and composition, and a state machine
of callbacks for each connection. MAIL, RCPT and DATA go out in one write; a mark is committed before each dot, and what
came of it is settled under its fence. It knows no limit and no pause, no TLS and no time limit, no second runner and no
signal, and believes every relay: nobody should send with it. What a runner takes longer is what all that costs.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
from collections import deque
from datetime import datetime, timedelta
from enum import Enum, auto

from outbox.clock import Clock
from outbox.core.message import Message, recipients_of
from outbox.core.outcome import Report, Stage
from outbox.core.policy import Policy
from outbox.core.render import render
from outbox.core.reply import Reply
from outbox.core.settlement import Attempt, Claim, Sent, Settlement, Trial, decide, fates_of
from outbox.store import Content, Mark, Pick, runners
from outbox.store.sqlite import SqliteStore
from tests.bench.content import SHOP

ME = "b" * 32
ACCEPTED = Reply(250, "2.0.0", "Ok")
POLICY = Policy()


class Engine:
    """Claims, marks and settles for its connections: all that they have asked for in one transaction."""

    def __init__(self, store: SqliteStore, connections: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.over = self.loop.create_future()
        self._store, self._connections = store, connections
        self._marks: list[tuple[Mark, Line]] = []
        self._settlements: list[Settlement] = []
        self._idle: list[Line] = []
        self._loads: deque[tuple[Claim, Content]] = deque()
        self._seen = -1  # of what was asked, a turn of the loop ago; -1: no turn is planned
        self._exhausted = False

    def mark(self, mark: Mark, line: Line) -> None:
        self._marks.append((mark, line))
        self._plan()

    def settle(self, settlement: Settlement, line: Line) -> None:
        self._settlements.append(settlement)
        self.serve(line)

    def serve(self, line: Line) -> None:
        """This connection is free."""
        if self._loads:
            line.carry(*self._loads.popleft())
        else:
            self._idle.append(line)
        self._plan()

    def _plan(self) -> None:
        if self._seen < 0:
            self._seen = 0
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Commit, when a turn of the loop has brought nothing more."""
        asked = len(self._marks) + len(self._settlements)
        if self._seen < asked:
            self._seen = asked
            self.loop.call_soon(self._turn)
            return
        self._seen = -1
        marks, self._marks = self._marks, []
        settlements, self._settlements = self._settlements, []
        with self._store.transaction():
            now = self._store.now()
            granted = self._store.mark([mark for mark, _ in marks], now) if marks else []
            if settlements:
                self._store.settle(settlements, now)
            claims = self._claim(now)
        self._loads.extend(self._read(claims))
        for ok, (_, line) in zip(granted, marks, strict=True):
            line.finish(now) if ok else line.hang_up()
        while self._idle and self._loads:
            self._idle.pop().carry(*self._loads.popleft())
        if len(self._idle) == self._connections and self._exhausted and not self.over.done():
            self.over.set_result(None)

    def _claim(self, now: datetime) -> list[Claim]:
        if self._exhausted or len(self._loads) * 2 > self._connections:
            return []
        claims = self._store.claim(ME, [Pick(SHOP, 5, self._connections * 2)], now)
        self._exhausted = not claims
        return claims

    def _read(self, claims: list[Claim]) -> list[tuple[Claim, Content]]:
        return [(claim, read) for claim, read in self._store.contents(claims) if isinstance(read, Content)]


class Heard(Enum):
    """What a connection hears next."""

    BANNER = auto()
    EHLO = auto()
    COMMANDS = auto()
    DOT = auto()


class Line(asyncio.Protocol):
    """A connection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next = Heard.BANNER
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def hang_up(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if not self._heard.endswith(b"\r\n"):
            return
        if self._next is Heard.COMMANDS and self._heard.count(b"\n") < len(self._recipients) + 2:
            return
        heard, self._heard = self._heard, b""
        if self._next is Heard.COMMANDS:
            assert heard[heard.rfind(b"\n", 0, -1) + 1 :].startswith(b"354"), heard
            self._engine.mark(Mark(self._claim.message_id, self._claim.claim_no), self)
        elif self._next is Heard.DOT:
            assert heard.startswith(b"250"), heard
            self._engine.settle(self._settlement(), self)
        elif self._next is Heard.BANNER:
            self._transport.write(b"EHLO bench.example\r\n")
            self._next = Heard.EHLO
        else:
            self._engine.serve(self)

    def carry(self, claim: Claim, content: Content) -> None:
        assert isinstance(content.message, Message)
        self._claim = claim
        self._recipients = recipients_of(content.message)
        self._data = render(content.message).data
        named = [b"RCPT TO:<%b>\r\n" % each.address.encode() for each in self._recipients]
        self._transport.write(b"".join((b"MAIL FROM:<%b>\r\n" % claim.sender.encode(), *named, b"DATA\r\n")))
        self._next = Heard.COMMANDS

    def finish(self, marked_at: datetime) -> None:
        """The mark is committed: the body and its dot."""
        self._marked_at = marked_at
        self._transport.write(self._data.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        self._next = Heard.DOT

    def _settlement(self) -> Settlement:
        report = Report(Stage.DOT, ACCEPTED, recipients=(ACCEPTED,) * len(self._recipients), dotted=True)
        sent = Sent("relay", "", hashlib.sha256(self._data).hexdigest(), "main", 1, self._marked_at)
        attempt = Attempt(self._claim, fates_of(Trial(self._recipients, report)), sent=sent)
        return decide(attempt, POLICY, self._marked_at, 0.0)


async def drain(url: str, port: int, connections: int) -> None:
    """Send all that is due."""
    store = SqliteStore(url, Clock())
    store.open()
    with store.transaction():
        lease = timedelta(hours=1)
        runners.register(store, ME, host="bench", pid=0, version="bare", now=store.now(), lease=lease)
    engine = Engine(store, connections)
    for _ in range(connections):
        await engine.loop.create_connection(lambda: Line(engine), "127.0.0.1", port)
    await engine.over
    store.close()


if __name__ == "__main__":
    gc.freeze()  # as the runner does
    asyncio.run(drain(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
