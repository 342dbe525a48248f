"""What one SMTP session knows, and the small steps its conversation is made of.

A conversation is a generator of *actions*: it yields what is to be done (`Say`, `SECURE`, `Derive`, `Body`) and is sent
what came of it, a complete reply (`Reading`) or None. It ends by returning a `Report`, or None when it went well and
has nothing to report. A broken connection is thrown into it as a `Fault`. So the rules of SMTP are written top to
bottom, without sockets, tasks or clocks; `dialogue.Dialogue` turns octets into replies for it, `connection.Connection`
does the I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple

from outbox.core.outcome import Report, Stage
from outbox.core.reply import Reading, Reply
from outbox.smtp.features import Features
from outbox.smtp.relay import Relay


@dataclass(slots=True)
class Say:
    """Write `octets` (perhaps none), then wait for one reply, as long as `stage` allows."""

    octets: bytes
    stage: Stage


class Secure(NamedTuple):
    """Begin TLS."""


class Derive:
    """Work out `key` from a password, the slow way on purpose (PBKDF2 with SHA-256, RFC 8018 §5.2)."""

    __slots__ = ("_iterations", "_password", "_salt", "key")

    def __init__(self, password: bytes, salt: bytes, iterations: int) -> None:
        self._password, self._salt, self._iterations = password, salt, iterations
        self.key = b""

    def run(self) -> None:
        """Takes up to some tenths of a second, on any thread."""
        self.key = hashlib.pbkdf2_hmac("sha256", self._password, self._salt, self._iterations)


@dataclass(slots=True)
class Body:
    """Write `content`; ask for the dot mark when little is left; go on when all is written and the mark was given.

    A reply that arrives before that is sent into the conversation instead of None: the relay gave up on the body.
    """

    content: bytes


@dataclass(slots=True)
class Done:
    """The conversation is over."""

    report: Report | None


SECURE = Secure()
LISTEN = {stage: Say(b"", stage) for stage in Stage}
"""Wait for one more reply."""

Action = Say | Secure | Derive | Body
Sent = Reading | None
Steps = Generator[Action, Sent, Report | None]


class Fault(Exception):
    """The connection cannot go on: closed, silent, or not speaking SMTP. `str()` is for people."""


class Fenced(Fault):
    """We ourselves may not go on: the dot mark was not given."""


class Session:
    """State of one connection, shared by its conversations.

    usable   another transaction may begin on it (after RSET, where `dirty`)
    dirty    the last transaction did not end with a 2yz to its dot
    broken   in the middle of something: not even QUIT can be said
    bare     the relay refused optional parameters of MAIL or RCPT: no more of them
    starttls_offered  in clear, at the last look: whoever has offered it once must not be believed when it is gone
    """

    def __init__(self, relay: Relay, *, loopback: bool = False, relay_name: str = "") -> None:
        self.relay = relay
        self.loopback = loopback
        self.relay_name = relay_name
        self.tls_name = ""
        self.encrypted = False
        self.features = Features()
        self.stage = Stage.BANNER
        self.usable = True
        self.dirty = False
        self.broken = False
        self.bare = False
        self.starttls_offered = False
        self.transactions = 0
        self.heard = 0  # replies of the present conversation
        self.unsayable: tuple[str, ...] = ()  # what we have signed in with, should the relay repeat it later

    def ask(self, octets: bytes, stage: Stage) -> Generator[Action, Sent, Reply]:
        """Say something and hear the answer."""
        self.stage = stage
        return self.hear((yield Say(octets, stage) if octets else LISTEN[stage]))

    def hear(self, reading: Sent) -> Reply:
        assert reading is not None, "only Say is answered with a reply"
        self.heard += 1
        reply = reading.reply
        for each in self.unsayable:
            if each in reply.text:
                reply = Reply(reply.code, reply.status, reply.text.replace(each, "<secret>"))
        if reply.code == 421:  # closing, whatever it was the answer to
            self.usable, self.broken = False, True
        return reply

    def report(self, stage: Stage, reply: Reply | None = None, fault: str = "") -> Report:
        """Where it ended, and why; with the names of the peer."""
        offered = self.starttls_offered
        return Report(stage, reply, fault, relay=self.relay_name, tls=self.tls_name, starttls_offered=offered)


def ours(code: int, status: str, why: str) -> Reply:
    """A refusal that no relay said."""
    return Reply(code, status, f"not sent, says Outbox: {why}")
