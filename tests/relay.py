"""A scripted SMTP relay on loopback, for every test that needs something to send to.

    with Relay() as relay:                                   # an honest ESMTP relay in threads of its own
        ... send to 127.0.0.1, relay.port ...
        relay.wait(1)                                        # until one message was accepted; raises after 10 s
        assert relay.messages[0].recipients == ("ann@example.net",)

    with Relay({"rcpt:bob@example.net": "550 5.1.1 no such user",        # always, for that address
                "mail": ["451 4.3.0 later", None],                       # the first time; then the honest answer
                "dot": Accept(DROP)}) as relay:                          # takes the mail, then the line goes dead

**Script.** A mapping from a stage to an answer. Stages: connect (before the banner, and before TLS where it is
implicit), banner, ehlo, ehlo-tls (after STARTTLS, instead of ehlo), helo, starttls, tls (instead of the handshake),
auth, response (to what the client answers to a 334 of AUTH), mail, rcpt, data, body (the first bytes of a body
arrived), dot, rset, noop, quit; ``mail:ADDRESS`` and ``rcpt:ADDRESS`` win over mail and rcpt.

    None                    what an honest relay says
    "250 ok"                a reply; CRLF is added (several lines: "250-a\\r\\n250 b")
    b"\\xff\\x00"             exactly these bytes (GARBAGE is such an answer)
    DROP, RST               close the connection with FIN, or with a reset
    HANG                    say nothing until `release()`, then go on with the honest answer
    Drip("250 ok", 0.05)    the reply, one byte at a time with a pause between
    Plus("250 more")        the honest reply, and one more at once
    Flood(b"250-x\\r\\n")    these bytes without end
    Accept(answer)          dot only: record the message as accepted, then answer
    ("250 ok", RST)         a tuple: one after the other
    [a, b, None]            a list: the first time, the second …; honest after its end. Counts over all connections
    function(session, line) called; returns an answer. The way to kill a runner before its dot is answered

A message counts as accepted (`messages`, the ledger) when the answer to its dot starts with 2, or by `Accept`, and
*before* that answer is sent. An answer to `body` is a premature reply: the dot that may follow is not answered.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.relay_session import (
    DROP,
    GARBAGE,
    HANG,
    RST,
    Accept,
    Answer,
    Drip,
    Flood,
    Plus,
    Received,
    Session,
    server_context,
)

__all__ = [
    "DROP",
    "EXTENSIONS",
    "GARBAGE",
    "HANG",
    "RST",
    "Accept",
    "Answer",
    "Drip",
    "Flood",
    "Plus",
    "Received",
    "Relay",
    "Session",
    "server_context",
]

EXTENSIONS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Relay:
    """The server. A context manager; `host` and `port` once entered. Parameters:

    script          stage → Answer or list of them, see above; `relay.script[...]` may be changed between messages
    extensions      what EHLO offers (AUTH and STARTTLS are added by themselves)
    tls             None, "starttls" or "implicit"; then `context` is a server-side ssl.SSLContext (`server_context`)
    credentials     user → password or token; offers AUTH with `mechanisms`, and wants it before MAIL
    ledger          a file: one JSON line per accepted message (sender, recipients, message_id, sha256), fsynced
    receive_buffer  SO_RCVBUF in bytes, small for a relay that does not read
    """

    def __init__(
        self,
        script: Mapping[str, Any] | None = None,
        *,
        extensions: tuple[str, ...] = EXTENSIONS,
        tls: str | None = None,
        context: ssl.SSLContext | None = None,
        credentials: Mapping[str, str] | None = None,
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN"),
        ledger: Path | None = None,
        receive_buffer: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.script: dict[str, Any] = dict(script or {})
        self.extensions, self.tls, self.context = extensions, tls, context
        self.credentials, self.mechanisms = dict(credentials or {}), mechanisms
        self.messages: list[Received] = []
        self.sessions: list[Session] = []
        self.host, self.port = host, 0
        self.released, self.closing = threading.Event(), threading.Event()
        self._ledger, self._receive_buffer = ledger, receive_buffer
        self._turns: dict[str, int] = {}
        self._arrived = threading.Condition()

    def __enter__(self) -> Relay:
        self._listener = socket.socket()
        if self._receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._listener.bind((self.host, 0))
        self._listener.listen(128)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="relay", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.released.set()
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            pass  # wakes accept(), which closing the socket does not do everywhere
        self._thread.join(5)
        self._listener.close()
        for session in self.sessions:
            session.hang_up()
        for session in self.sessions:
            session.thread.join(5)

    @property
    def commands(self) -> list[str]:
        """Every line of every connection, connection by connection; ``"."`` for a final dot."""
        return [line for session in self.sessions for line in session.commands]

    def wait(self, count: int, timeout: float = 10.0) -> list[Received]:
        """Until `count` messages were accepted. Raises TimeoutError."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.messages) >= count, timeout):
                raise TimeoutError(f"{len(self.messages)} of {count} messages after {timeout} s")
        return self.messages

    def release(self) -> None:
        """Let every HANG go on, those to come too."""
        self.released.set()

    def answer_for(self, *keys: str) -> Answer:
        """The script's answer for the first of `keys` it names; a list is consumed one by one."""
        with self._arrived:
            for key in keys:
                if key in self.script:
                    scripted: Answer | list[Answer] = self.script[key]
                    if not isinstance(scripted, list):
                        return scripted
                    turn = self._turns[key] = self._turns.get(key, -1) + 1
                    return scripted[turn] if turn < len(scripted) else None
        return None

    def accept(self, message: Received) -> None:
        with self._arrived:
            if self._ledger:
                digest = hashlib.sha256(message.content).hexdigest()
                entry = {"sender": message.sender, "recipients": message.recipients}
                line = json.dumps(entry | {"message_id": message.message_id, "sha256": digest})
                with self._ledger.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            self.messages.append(message)
            self._arrived.notify_all()

    def _listen(self) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            if self.closing.is_set():
                connected.close()
                return
            session = Session(self, connected)
            self.sessions.append(session)
            session.thread.start()
