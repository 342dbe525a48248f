"""An SMTP server on loopback that takes mail for everybody, but for the few addresses its script is about.

It speaks enough of RFC 5321 for one honest client: EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, QUIT, and PIPELINING. It
keeps who got what, never the bodies. `outbox.testing` derives a relay from it that answers by a script.

LIMITS: no TLS, no AUTH, no deadlines. It is for a demonstration, not a relay for anything.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

HOST = "127.0.0.1"
NAME = "relay.example"
MAX_SIZE = 50 * 1024 * 1024
GREYLISTED = "450 4.2.0 greylisted, come back later"
REFUSED = "550 5.1.1 no such mailbox"

_PATH = re.compile(rb"(?:FROM|TO):\s*<([^>]*)>", re.IGNORECASE)
_EXTENSIONS = ("PIPELINING", f"SIZE {MAX_SIZE}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one recipient was answered in the end: the reply to its RCPT when that was no, else the reply to the dot."""

    address: str
    reply: str

    @property
    def code(self) -> int:
        return int(self.reply[:3])


@dataclass(frozen=True, slots=True)
class Received:
    """A mail that was accepted, and for whom."""

    recipients: tuple[str, ...]
    subject: str
    message_id: str


class Relay:
    """A context manager; `port` once entered. `answers` and `received` grow in the order of events.

    greylisted  addresses that are told to come back, the first time
    refused     addresses that do not exist
    on_answer   called for every Answer, as it is given
    on_mail     called for every mail, when its acceptance has been sent
    """

    def __init__(
        self,
        *,
        greylisted: frozenset[str] = frozenset(),
        refused: frozenset[str] = frozenset(),
        on_answer: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        self.answers: list[Answer] = []
        self.received: list[Received] = []
        self.on_mail: Callable[[Received], None] = lambda _: None
        self.on_answer = on_answer
        self._greylisted, self._refused = set(greylisted), refused
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def answer_to_sender(self, address: str) -> str:
        """The reply to MAIL."""
        return "250 2.1.0 go on"

    def answer_to(self, address: str) -> str:
        """The reply to RCPT."""
        if address in self._refused:
            return REFUSED
        if address in self._greylisted:
            self._greylisted.discard(address)
            return GREYLISTED
        return "250 2.1.5 go on"

    def answered(self, address: str, reply: str) -> None:
        self.answers.append(Answer(address, reply))
        self.on_answer(self.answers[-1])

    def accept(self, sender: str, recipients: list[str], content: bytes) -> str:
        """Take a mail, or not. Returns the reply to its dot."""
        header = email.message_from_bytes(content.partition(b"\r\n\r\n")[0], policy=email.policy.default)
        mail = Received(tuple(recipients), str(header["Subject"] or ""), str(header["Message-ID"] or ""))
        self.received.append(mail)
        reply = f"250 2.0.0 queued as {len(self.received):04}"
        for address in recipients:
            self.answered(address, reply)
        return reply

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._conversations.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):  # it hung up, or it is no SMTP client
                await _Conversation(self, reader, writer).hold()
        finally:
            self._conversations.discard(task)
            writer.close()


class _Conversation:
    """One connection: a command, an answer, until QUIT."""

    def __init__(self, relay: Relay, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relay, self._reader, self._writer = relay, reader, writer
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def hold(self) -> None:
        await self._say(f"220 {NAME} ESMTP, the relay of the Outbox demo")
        while True:
            line = await self._line()
            verb = line[:4].upper()
            if verb == b"DATA":
                await self._data()
            else:
                await self._say(self._reply(verb, line))
            if verb == b"QUIT":
                return

    def _reply(self, verb: bytes, line: bytes) -> str:
        if verb == b"EHLO":
            self._forget()
            offers = [NAME, *_EXTENSIONS]
            return "\r\n".join([*(f"250-{each}" for each in offers[:-1]), f"250 {offers[-1]}"])
        if verb in (b"HELO", b"RSET"):
            self._forget()
            return f"250 {NAME}"
        if verb in (b"MAIL", b"RCPT"):
            return self._mail(line) if verb == b"MAIL" else self._rcpt(line)
        return {b"NOOP": "250 2.0.0 still here", b"QUIT": "221 2.0.0 bye"}.get(verb, "502 5.5.1 not known here")

    def _mail(self, line: bytes) -> str:
        path = _PATH.search(line)
        if path is None:
            return "501 5.5.4 MAIL FROM:<address>"
        if self._sender is not None:
            return "503 5.5.1 one MAIL at a time"
        sender = path[1].decode("utf-8", "replace")
        reply = self._relay.answer_to_sender(sender)
        if reply.startswith("250"):
            self._sender = sender
        return reply

    def _rcpt(self, line: bytes) -> str:
        path = _PATH.search(line)
        if path is None or self._sender is None:
            return "503 5.5.1 after MAIL, RCPT TO:<address>"
        address = path[1].decode("utf-8", "replace")
        reply = self._relay.answer_to(address)
        if reply.startswith("250"):
            self._recipients.append(address)
        else:
            self._relay.answered(address, reply)
        return reply

    async def _data(self) -> None:
        if not self._recipients:
            await self._say("554 5.5.1 no valid recipients")
            return
        await self._say("354 end with a dot")
        sender, recipients, content = self._sender or "", self._recipients, await self._content()
        self._forget()
        if content is None:
            await self._say("552 5.3.4 too large")
            return
        reply = self._relay.accept(sender, recipients, content)
        await self._say(reply)
        if reply.startswith("250"):
            self._relay.on_mail(self._relay.received[-1])

    async def _content(self) -> bytes | None:
        """Everything up to the dot; None when it is too large."""
        lines, size = [], 0
        while (line := await self._line()) != b".":
            size += len(line) + 2
            if size <= MAX_SIZE:
                lines.append(line.removeprefix(b"."))
        return b"".join(line + b"\r\n" for line in lines) if size <= MAX_SIZE else None

    async def _line(self) -> bytes:
        return (await self._reader.readuntil(b"\r\n"))[:-2]

    async def _say(self, reply: str) -> None:
        self._writer.write(reply.encode() + b"\r\n")
        await self._writer.drain()

    def _forget(self) -> None:
        self._sender, self._recipients = None, []
