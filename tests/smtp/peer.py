"""A relay as a table of octets, played against a dialogue without sockets, in any fragmentation."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from outbox.core.outcome import Envelope, Report
from outbox.core.render import Rendered
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.features import Features
from outbox.smtp.relay import Relay
from outbox.smtp.session import Action, Body, Derive, Done, Say, Session, Steps
from outbox.smtp.transaction import stuffed, transaction

HONEST = {
    b"": b"220 relay.example\r\n",
    b"EHLO": b"250-relay.example\r\n250 PIPELINING\r\n",
    b"MAIL": b"250 2.1.0 ok\r\n",
    b"RCPT": b"250 2.1.5 ok\r\n",
    b"DATA": b"354 go on\r\n",
    b".": b"250 2.0.0 queued\r\n",
    b"RSET": b"250 ok\r\n",
}
"""What an honest relay answers to each verb; ``b""`` is the banner."""

Cut = Callable[[bytes], Iterable[bytes]]


def whole(octets: bytes) -> Iterable[bytes]:
    return [octets]


def singly(octets: bytes) -> Iterable[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def at(edges: Iterable[int]) -> Cut:
    """Cut at these places, counted from the start of each answer."""
    chosen = sorted(edges)

    def cut(octets: bytes) -> Iterable[bytes]:
        inside = [0, *(edge for edge in chosen if 0 < edge < len(octets)), len(octets)]
        return [octets[start:end] for start, end in itertools.pairwise(inside)]

    return cut


class Peer:
    """`answers` by verb: octets, or a list of them for the first time, the second …, honest after its end. A verb that
    is answered with b"" is met with the end of the connection. `said` is what the client wrote, without the body;
    `body` is that, as it goes over the wire, and None where none was begun.
    """

    def __init__(self, answers: Mapping[bytes, bytes | list[bytes]] | None = None, cut: Cut = whole) -> None:
        self.said: list[bytes] = []
        self.body: bytes | None = None
        self._answers = {verb: list(said) if isinstance(said, list) else said for verb, said in (answers or {}).items()}
        self._cut = cut
        self._arriving: deque[bytes] = deque()

    def play(self, dialogue: Dialogue, steps: Steps) -> Report | None:
        """The whole conversation. What has arrived is read before a body is finished and TLS begins."""
        action: Action | Done | None = dialogue.begin(steps)
        while True:
            if isinstance(action, Done):
                return action.report
            if isinstance(action, Say):
                self._hear(action.octets)
            going_on = isinstance(action, Body | Derive)
            if isinstance(action, Derive):
                action.run()
            if isinstance(action, Body):
                self.body = stuffed(action.content)
            action = None
            while action is None and self._arriving:
                action = dialogue.received(self._arriving.popleft())
            if action is None:
                action = dialogue.resume() if going_on else None
            if action is None:
                action = dialogue.failed("closed")

    def _hear(self, octets: bytes) -> None:
        if self.body == b"" and octets.endswith(b".\r\n"):
            self.body, octets = octets[:-3], octets[-3:]  # it comes with its dot
        if octets:
            self.said.append(octets)
        commands = octets.split(b"\r\n")[:-1] if octets else [b""] if not self.said else []
        answers = [self._answer(command.split(b" ")[0]) for command in commands]
        self._arriving.extend(self._cut(b"".join(itertools.takewhile(bool, answers))))

    def _answer(self, verb: bytes) -> bytes:
        scripted = self._answers.get(verb)
        if isinstance(scripted, list):
            return scripted.pop(0) if scripted else HONEST[verb]
        return HONEST[verb] if scripted is None else scripted


def session(
    *,
    pipelining: bool = True,
    size: int | None = None,
    eight_bit: bool = False,
    smtputf8: bool = False,
    dsn: bool = False,
    reused: bool = False,
) -> Session:
    """An open session, as far as a transaction can tell."""
    opened = Session(Relay("relay.example", 25, "none", helo="client.example"), loopback=True)
    opened.features = Features(pipelining=pipelining, size=size, eight_bit=eight_bit, smtputf8=smtputf8, dsn=dsn)
    opened.transactions = int(reused)
    return opened


def transact(peer: Peer, opened: Session, envelope: Envelope, message: Rendered) -> Report:
    """One transaction of an open session."""
    report = peer.play(Dialogue(opened), transaction(opened, envelope, message))
    assert report is not None
    return report
