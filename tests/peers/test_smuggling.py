"""No row becomes two messages: the smuggling matrix, against four servers that read lines in four ways.

Each sequence goes in by every door that takes text as it is: the text of a mail, an attached message, and the header
and the body of a complete one. What cannot be sent safely is refused before anything is said.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

import peewee
import pytest

from outbox import Attachment, Mail, enqueue
from outbox.core.outcome import Envelope, Report, Stage
from outbox.core.render import Rendered
from outbox.smtp.connection import Connection, Relay
from tests.peers.mails import Delivery, accepted, copies, same_bytes
from tests.peers.postfix import Postfix
from tests.peers.sequences import SEQUENCES, SMUGGLED, SMUGGLER, VICTIM
from tests.running import SHOP, Site, eventually

PEERS = ("postfix", "exim", "keeper", "smtp_server")
ANN = "ann@example.net"
DATE = "Date: Sun, 01 Mar 2026 09:05:07 +0000"


class Peer(Protocol):
    @property
    def port(self) -> int: ...

    @property
    def deliveries(self) -> list[Delivery]: ...


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> Peer:
    found: Peer = request.getfixturevalue(request.param)
    return found


def smuggled(peer: Peer) -> list[Delivery]:
    return [each for each in peer.deliveries if each.sender == SMUGGLER or VICTIM in each.recipients]


def doors(site: Site, sequence: str) -> Iterator[Callable[[], object]]:
    """The ways to put a sequence into a row, by INSERT as any language can do it, or by `enqueue`."""
    text = f"Dear Ann,{sequence}{SMUGGLED}"
    header, body = f"From: {SHOP}\r\nTo: {ANN}\r\nSubject: whole".encode(), text.encode()
    note = Attachment("note.eml", header + b"\r\n\r\n" + body, "message/rfc822")
    yield lambda: site.insert_one(recipients=ANN, text_body=text)
    yield lambda: enqueue(site.db, Mail(sender=SHOP, to=ANN, text="attached", attachments=[note]))
    yield lambda: site.insert_one(recipients=ANN, subject=None, text_body=None, raw=header + b"\r\n\r\n" + body)
    odd = header + b"\r\nX-Odd: a" + sequence.encode() + SMUGGLED.encode() + b"\r\n\r\nDear Ann\r\n"
    yield lambda: site.insert_one(recipients=ANN, subject=None, text_body=None, raw=odd)


def test_no_sequence_in_a_row_becomes_a_second_message(sqlite_site: Site, peer: Peer) -> None:
    """Exactly one message of each row arrives, with the bytes that were sent; or none, and the row has failed for what
    is in it, unsent.
    """
    assert len(SEQUENCES) >= 100
    site = sqlite_site
    site.register(peer.port)
    inserted = refused = 0
    with site.db.atomic():
        for sequence in SEQUENCES:
            for insert in doors(site, sequence):
                try:
                    insert()
                    inserted += 1
                except (ValueError, peewee.IntegrityError):
                    assert "\0" in sequence, "what is text is taken"
                    refused += 1
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    states = Counter(site.states())
    assert states["sent"] + states["failed"] == inserted
    assert states["sent"] >= len(SEQUENCES), "the texts at least go out"
    unsent = site.query(
        "SELECT DISTINCT d.last_status, a.relay FROM outbox_delivery d"
        " JOIN outbox_attempt a USING (message_id) WHERE d.state = 'failed'"
    )
    assert {tuple(row) for row in unsent} == {("5.6.0", None), ("5.1.7", None)}
    expected = accepted(site)
    assert len(expected) == states["sent"]
    eventually(lambda: len(copies(site, peer.deliveries)) >= len(expected) or smuggled(peer), "all has arrived")
    assert smuggled(peer) == []
    assert copies(site, peer.deliveries) == expected
    assert same_bytes(site, peer.deliveries)


def test_no_sequence_on_its_way_to_the_wire_becomes_a_second_message(peer: Peer) -> None:
    """The connection does not rely on the renderer: given the octets as they are, it sends them as one message, or
    says nothing.
    """
    contents = [
        f"{DATE}\r\nFrom: {SHOP}\r\nMessage-ID: <{number}.0@wire.example>\r\n\r\na{sequence}{SMUGGLED}".encode()
        for number, sequence in enumerate(SEQUENCES)
    ]
    reports = asyncio.run(deliver(peer.port, contents))
    sent = [content for content, report in zip(contents, reports, strict=True) if report.stage is Stage.DOT]
    for content, report in zip(contents, reports, strict=True):
        assert report.reply is not None
        if content in sent:
            assert report.reply.positive
            assert b"\0" not in content
            assert content.replace(b"\r\n", b"").count(b"\r") == content.replace(b"\r\n", b"").count(b"\n") == 0
        else:
            assert (report.stage, report.dotted, report.reply.status) == (Stage.MAIL, False, "5.6.0")
    assert len(sent) == 3, "one for each run of dots between two CRLFs"

    def arrived() -> list[bytes]:
        return [each.content for each in peer.deliveries if b"@wire.example>" in each.content]

    eventually(lambda: len(arrived()) >= len(sent) or smuggled(peer), "all has arrived")
    assert smuggled(peer) == []
    assert sorted(arrived()) == sorted(sent)


async def deliver(port: int, contents: list[bytes]) -> list[Report]:
    """All of them over one connection."""
    connection = await Connection.open(Relay("127.0.0.1", port, "none", helo="client.example"))
    assert isinstance(connection, Connection), connection

    async def mark() -> bool:
        return True

    try:
        envelope = Envelope(SHOP, (ANN,))
        return [await connection.deliver(envelope, Rendered(content, False, False), mark) for content in contents]
    finally:
        await connection.close()


def test_a_careless_client_would_have_smuggled(postfix: Postfix) -> None:
    """The matrix can fail: the same octets, sent as they are, become two messages."""
    careless_victim = "careless@example.net"
    second = SMUGGLED.replace(SMUGGLER, "careless@example.com").replace(VICTIM, careless_victim)
    with (
        closing(socket.create_connection(("127.0.0.1", postfix.port), 10)) as careless,
        careless.makefile("rb") as said,
    ):
        said.readline()
        for line in ("HELO client.example", f"MAIL FROM:<{SHOP}>", f"RCPT TO:<{ANN}>", "DATA"):
            careless.sendall(f"{line}\r\n".encode())
            said.readline()
        careless.sendall(f"Subject: careless\r\n\r\na\n.\n{second}".encode())
        said.readline()

    def arrived() -> bool:
        return any(careless_victim in each.recipients for each in postfix.deliveries)

    eventually(arrived, "the smuggled message arrives")
