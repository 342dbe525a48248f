"""One connection of the scripted relay, and the answers a script is made of. See `tests.relay`."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Union

from tests.relay_auth import MECHANISMS, Exchange

if TYPE_CHECKING:
    from tests.relay import Relay


class Act(Enum):
    DROP = "drop"
    RST = "rst"
    HANG = "hang"


DROP, RST, HANG = Act.DROP, Act.RST, Act.HANG
GARBAGE = b"\x00\xff2_0 what\r\n"
FLOOD = 64 * 1024 * 1024


@dataclass(frozen=True)
class Drip:
    """`text` and CRLF, one byte every `pause` seconds."""

    text: str
    pause: float = 0.02


@dataclass(frozen=True)
class Accept:
    """At the dot: the message counts as accepted, whatever `answer` then says."""

    answer: Answer = None


@dataclass(frozen=True)
class Plus:
    """The honest reply and `text`, in one segment."""

    text: str


@dataclass(frozen=True)
class Flood:
    """`octets`, again and again, until the client closes, or 64 MB are said."""

    octets: bytes


Answer = Union[
    None, str, bytes, Act, Drip, Plus, Flood, Accept, "tuple[Answer, ...]", "Callable[[Session, str], Answer]"
]


@dataclass(frozen=True)
class Received:
    """A message the relay accepted. Addresses are bare; `parameters` followed MAIL's; `content` is unstuffed."""

    sender: str
    recipients: tuple[str, ...]
    parameters: str
    content: bytes
    session: Session

    @property
    def message_id(self) -> str:
        found = re.search(rb"(?im)^Message-ID:\s*(\S+)", self.content.partition(b"\r\n\r\n")[0])
        return found[1].decode() if found else ""


class Gone(Exception):
    pass


class _NotHonest(Exception):
    """An exchange that did not come to its honest end, and was answered."""


class Session:
    """`commands` (every line read), `clear` (every byte read before TLS), `tls`, `tls_error`, `user` (signed in as)."""

    def __init__(self, relay: Relay, connected: socket.socket) -> None:
        self.relay, self.socket = relay, connected
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.commands: list[str] = []
        self.clear = bytearray()
        self.tls, self.tls_error, self.user = False, "", ""
        self.thread = threading.Thread(target=self._run, name="relay session", daemon=True)
        self.sender: str | None = None
        self.parameters = ""
        self.recipients: list[str] = []
        self._buffer = bytearray()

    def send(self, content: str | bytes) -> None:
        self.socket.sendall(content if isinstance(content, bytes) else content.encode() + b"\r\n")

    def line(self) -> str:
        """The next line the client sends; recorded."""
        while b"\r\n" not in self._buffer:
            self._read()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        self.commands.append(line.decode("utf-8", "surrogateescape"))
        return self.commands[-1]

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        with contextlib.suppress(Gone, OSError):
            self._answer("connect", b"")
            if self.relay.tls == "implicit":
                self._secure()
            self._answer("banner", "220 relay.example ESMTP scripted")
            while True:
                line = self.line()
                handler = getattr(self, f"_on_{line.partition(' ')[0].lower()}", None)
                if handler:
                    handler(line)
                else:
                    self.send("500 5.5.2 what?")
        self.socket.close()

    def _read(self) -> None:
        chunk = self.socket.recv(65536)
        if not chunk:
            raise Gone
        if not self.tls:
            self.clear += chunk
        self._buffer += chunk

    def _secure(self) -> None:
        assert self.relay.context is not None
        self._answer("tls", b"")
        with self.socket.dup() as beside:
            try:
                self.socket = self.relay.context.wrap_socket(self.socket, server_side=True)
            except OSError as error:  # ssl.SSLError is one
                self.tls_error = str(error)
                self.drain(beside)
                raise Gone from error
        self.tls = True

    def drain(self, connected: socket.socket) -> None:
        """Whatever still comes, in clear, until the client closes."""
        connected.settimeout(5)
        with contextlib.suppress(OSError):
            while chunk := connected.recv(65536):
                self.clear += chunk

    def _answer(self, stage: str, honest: str | bytes, line: str = "", address: str = "") -> str:
        """What the script says for this stage, or else the honest reply. Returns the reply sent."""
        return self._perform(self._settle(self.relay.answer_for(f"{stage}:{address}", stage), line), honest, line)

    def _settle(self, answer: Answer, line: str) -> Answer:
        """Functions called, HANG waited for: something that can be sent, or None for the honest reply."""
        while callable(answer):
            answer = answer(self, line)
        if answer is HANG:
            self.relay.released.wait()
            return None
        return answer

    def _perform(self, answer: Answer, honest: str | bytes, line: str) -> str:
        if isinstance(answer, tuple):
            return [self._perform(self._settle(part, line), honest, line) for part in answer][-1]
        if answer is DROP or self.relay.closing.is_set():
            raise Gone
        if answer is RST:
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise Gone
        if isinstance(answer, Drip):
            for octet in answer.text.encode() + b"\r\n":
                if self.relay.closing.wait(answer.pause):
                    raise Gone
                self.send(bytes([octet]))
            return answer.text
        if isinstance(answer, Flood):
            for _ in range(FLOOD // len(answer.octets)):
                self.send(answer.octets)
            raise Gone
        if isinstance(answer, Plus):
            answer = f"{honest if isinstance(honest, str) else honest.decode()}\r\n{answer.text}"
        reply = honest if answer is None else answer
        assert isinstance(reply, str | bytes)
        self.send(reply)
        return reply if isinstance(reply, str) else reply.decode("latin-1")

    def _on_ehlo(self, line: str) -> None:
        offers = ["relay.example", *self.relay.extensions]
        if self.relay.tls == "starttls" and not self.tls:
            offers.append("STARTTLS")
        if self.relay.credentials:
            offers.append(" ".join(("AUTH", *self.relay.mechanisms)))
        self._reset()
        stage = "ehlo-tls" if self.tls and "ehlo-tls" in self.relay.script else "ehlo"
        self._answer(stage, "".join(f"250-{offer}\r\n" for offer in offers[:-1]) + f"250 {offers[-1]}", line)

    def _on_helo(self, line: str) -> None:
        self._reset()
        self._answer("helo", "250 relay.example", line)

    def _on_starttls(self, line: str) -> None:
        offered = self.relay.tls == "starttls" and not self.tls
        said = self._answer("starttls", "220 2.0.0 go on" if offered else "502 5.5.1 no", line)
        if offered and said.startswith("220"):
            self._secure()
            self._buffer.clear()

    def _on_auth(self, line: str) -> None:
        scripted = self._settle(self.relay.answer_for("auth"), line)
        if scripted is not None:
            self._perform(scripted, "", line)
            return
        _, mechanism, initial, *_ = [*line.split(" "), "", ""]
        if mechanism.upper() not in self.relay.mechanisms:
            self.send("504 5.5.4 what?")
            return
        given = base64.b64decode(initial) if initial else None
        with contextlib.suppress(_NotHonest):
            self.user = MECHANISMS[mechanism.upper()](Exchange(self.relay.credentials, given, self._challenge))
            self.send("235 2.7.0 welcome" if self.user else "535 5.7.8 wrong credentials")

    def _challenge(self, prompt: bytes) -> bytes:
        self.send("334 " + base64.b64encode(prompt).decode())
        given = self.line()
        scripted = self._settle(self.relay.answer_for("response"), given)
        if scripted is not None:
            self._perform(scripted, "", given)
            raise _NotHonest
        if given == "*":
            self.send("501 5.7.0 called off")
            raise _NotHonest
        return base64.b64decode(given)

    def _on_mail(self, line: str) -> None:
        address, _, parameters = line.partition("<")[2].partition(">")
        if self.relay.credentials and not self.user:
            self.send("530 5.7.0 authentication required")
        elif self.sender is not None:
            self.send("503 5.5.1 nested MAIL")
        elif self._answer("mail", "250 2.1.0 ok", line, address).startswith("2"):
            self.sender, self.parameters = address, parameters.strip()

    def _on_rcpt(self, line: str) -> None:
        address = line.partition("<")[2].partition(">")[0]
        honest = "503 5.5.1 need MAIL" if self.sender is None else "250 2.1.5 ok"
        if self._answer("rcpt", honest, line, address).startswith("2"):
            self.recipients.append(address)

    def _on_data(self, line: str) -> None:
        honest = "354 go on" if self.recipients else "503 5.5.1 need RCPT"
        if not self._answer("data", honest, line).startswith("354"):
            return
        if not self._buffer:
            self._read()
        early = self._settle(self.relay.answer_for("body"), "")
        if early is not None:
            self._perform(early, "", "")
        content = self._body()
        self.commands.append(".")
        if early is None:
            self._dot(content)
        self._reset()

    def _body(self) -> bytes:
        self._buffer[:0] = b"\r\n"  # so that a lone dot ends an empty body
        start = 0
        while (end := self._buffer.find(b"\r\n.\r\n", start)) < 0:
            start = max(0, len(self._buffer) - 4)
            self._read()
        content = bytes(self._buffer[: end + 2])
        del self._buffer[: end + 5]
        return content.replace(b"\r\n..", b"\r\n.")[2:]

    def _dot(self, content: bytes) -> None:
        answer = self._settle(self.relay.answer_for("dot"), ".")
        said = answer[0] if isinstance(answer, tuple) else answer
        said = said.text if isinstance(said, Drip) else said
        said = None if isinstance(said, Plus) else said
        positive = bool(self.recipients) if said is None else isinstance(said, str) and said.startswith("2")
        if positive or isinstance(answer, Accept):
            message = Received(self.sender or "", tuple(self.recipients), self.parameters, content, self)
            self.relay.accept(message)
        answer = self._settle(answer.answer, ".") if isinstance(answer, Accept) else answer
        queued = f"250 2.0.0 Ok: queued as {len(self.relay.messages):06X}"
        self._perform(answer, queued if self.recipients else "554 5.5.1 no valid recipients", ".")

    def _on_rset(self, line: str) -> None:
        self._answer("rset", "250 2.0.0 ok", line)
        self._reset()

    def _on_noop(self, line: str) -> None:
        self._answer("noop", "250 2.0.0 ok", line)

    def _on_quit(self, line: str) -> None:
        self._answer("quit", "221 2.0.0 bye", line)
        raise Gone

    def _reset(self) -> None:
        self.sender, self.parameters, self.recipients = None, "", []


def server_context(certificate: object) -> ssl.SSLContext:
    """The server's side of TLS, with a certificate made by `trustme.CA().issue_cert(...)`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)  # type: ignore[attr-defined]
    return context
