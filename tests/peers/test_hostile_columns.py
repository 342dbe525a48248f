"""What a row says of a name, a subject or a header stays one, on the far side of a relay that is not ours."""

from __future__ import annotations

import json
import random

import peewee
import pytest

from outbox.core.address import Address
from tests.core.injection import EVIL, payloads
from tests.peers.mails import accepted, copies, same_bytes
from tests.peers.test_smuggling import Peer
from tests.running import SHOP, Site, eventually

ANN = "ann@example.net"
EACH = 30


def columns(text: str) -> list[dict[str, str]]:
    """One row for each column that takes the text."""
    named = str(Address(text, "ann", "example.net"))
    return [
        {"recipients": ANN, "subject": text},
        {"recipients": ANN, "sender_name": text},
        {"recipients": ANN, "headers": json.dumps({"X-Note": text})},
        {"recipients": ANN, "headers": json.dumps({f"X-Note{text}": "1"})},
        {"recipients": ANN, "return_path": f"shop{text}@example.com"},
        {"recipients": ANN, "dsn_envid": text},
        {"recipients": ANN, "reply_to": named},
        {"recipients": ANN, "text_body": text},
        {"recipients": named},
        {"recipients": ANN, "cc": named},
        {"bcc": named, "recipients": ANN},
        {"recipients": f"ann{text}@example.net"},
    ]


@pytest.mark.parametrize("name", ["postfix", "smtp_server"])
def test_no_column_adds_a_recipient_a_sender_or_a_field(
    sqlite_site: Site, request: pytest.FixtureRequest, name: str
) -> None:
    site = sqlite_site
    peer: Peer = request.getfixturevalue(name)
    site.register(peer.port)
    inserted = 0
    with site.db.atomic():
        for text in payloads(random.Random(7), EACH):
            for row in columns(text):
                try:
                    with site.db.atomic():
                        site.insert_one(**row)
                    inserted += 1
                except (peewee.IntegrityError, UnicodeEncodeError):
                    pass  # refused at the INSERT, where the application sees it
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    states = site.states()
    assert set(states) == {"sent", "failed"}
    assert states["sent"] + states["failed"] == inserted
    assert states["sent"] > EACH * 3, "what is refused proves little"
    unsent = site.query("SELECT DISTINCT substr(last_status, 1, 4) FROM outbox_delivery WHERE state = 'failed'")
    assert {row[0] for row in unsent} <= {"5.1.", "5.6.", "5.7."}
    expected = accepted(site)
    eventually(lambda: len(copies(site, peer.deliveries)) >= len(expected), "everything has arrived")
    assert copies(site, peer.deliveries) == expected
    assert same_bytes(site, peer.deliveries)
    ours = envelopes(site, peer)
    assert {sender for sender, _ in ours} == {SHOP}
    assert {recipient.rpartition("@")[2] for _, recipient in ours} == {"example.net"}
    assert [each for each in peer.deliveries if EVIL in (each.sender, *each.recipients)] == []


def envelopes(site: Site, peer: Peer) -> set[tuple[str, str]]:
    """(sender, recipient) of what a peer has of this site."""
    tokens = [str(row[0]).encode() for row in site.query("SELECT token FROM outbox")]
    return {
        (each.sender, recipient)
        for each in peer.deliveries
        if any(token in each.content for token in tokens)
        for recipient in each.recipients
    }
