"""Who goes next: in the order in which a relay sees them."""

from __future__ import annotations

from pathlib import Path

from outbox.clock import Clock
from outbox.core.account import Sender
from outbox.store import senders
from outbox.store.journal import Act
from tests.relay import Relay
from tests.runner.errands import mail, send
from tests.running import Site

BULK = "bulk@example.com"


def insert_many(site: Site, sender: str, count: int) -> None:
    with site.db.atomic():
        for _ in range(count):
            mail(site, sender=sender)


def register_domain(site: Site, port: int, connections: int = 2) -> None:
    site.register(port, sender="shop@example.com", connections=connections)
    with site.db.atomic():
        senders.add_sender(site.db, Sender("*@example.com", "main"), Act("test", Clock().now()))


def test_a_bulk_sender_starves_nobody(site: Site, tmp_path: Path) -> None:
    """A hundred senders of one mail each, more than are looked at in one pass, beside one with three hundred."""
    with Relay() as relay:
        register_domain(site, relay.port)
        insert_many(site, BULK, 300)
        for place in range(100):
            mail(site, sender=f"s{place:03}@example.com")
        send(site, tmp_path)
        order = [each.sender for each in relay.messages]
    assert len(order) == 400
    last_small = max(place for place, sender in enumerate(order) if sender != BULK)
    assert last_small < 250


def test_two_bulk_senders_share_the_places(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        register_domain(site, relay.port)
        insert_many(site, "a@example.com", 100)
        insert_many(site, "b@example.com", 100)
        send(site, tmp_path)
        order = [each.sender for each in relay.messages]
    half = order[:100].count("a@example.com")
    assert 30 <= half <= 70


def test_urgent_mail_overtakes(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        register_domain(site, relay.port)
        insert_many(site, BULK, 100)
        urgent = mail(site, sender=BULK, priority=0, subject="urgent")
        send(site, tmp_path)
        subjects = [b"Subject: urgent" in each.content for each in relay.messages]
    assert urgent
    assert subjects.index(True) < 10


def test_a_paused_sender_does_not_hold_up_the_others(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        register_domain(site, relay.port)
        with site.db.atomic():
            senders.add_sender(site.db, Sender("a@example.com", "main"), Act("test", Clock().now()))
            senders.pause_sender(site.db, "a@example.com", "vacation", None, Act("test", Clock().now()))
        insert_many(site, "a@example.com", 50)
        mail(site, sender="b@example.com")
        send(site, tmp_path)
        assert [each.sender for each in relay.messages] == ["b@example.com"]


def test_every_one_of_many_senders_has_its_turn(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        register_domain(site, relay.port)
        with site.db.atomic():
            for place in range(520):
                mail(site, sender=f"s{place % 130:03}@example.com")
        send(site, tmp_path)
        order = [each.sender for each in relay.messages]
    assert len(order) == 520
    assert len(set(order[:200])) >= 125
