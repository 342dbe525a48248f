"""The keys that sign a sender's mail, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import peewee
import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.core.dkim import Algorithm
from outbox.core.dkim_key import SealedKey
from outbox.errors import Refused
from outbox.store import accounts, senders, tables
from outbox.store.dkim import add_key, check_unused, key, keys, remove_key, reseal
from outbox.store.journal import Act

NOW = datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=UTC)
ANN = Act("ann", NOW)
SHOP = SealedKey("shop@example.com", "s1", "example.com", Algorithm.RSA, "gAAAA-token", "0123abcd", NOW)
WHOLE = SealedKey("*@example.com", "e1", "example.com", Algorithm.ED25519, "gAAAA-other", "0123abcd", NOW)


@pytest.fixture
def db(database: peewee.Database) -> peewee.Database:
    with database.atomic():
        accounts.add_account(database, Account("main", "127.0.0.1", 25, Tls.NONE), ANN)
        for address in ("shop@example.com", "*@example.com"):
            senders.add_sender(database, Sender(address, "main"), ANN)
    return database


def test_a_key_is_read_as_it_was_added(db: peewee.Database) -> None:
    second = replace(SHOP, selector="s0", algorithm=Algorithm.ED25519)
    with db.atomic():
        for each in (SHOP, WHOLE, second):
            add_key(db, each, ANN)

    assert set(keys(db)) == {SHOP, WHOLE, second}
    assert keys(db, "shop@example.com") == (second, SHOP)
    assert key(db, "shop@example.com", "s1") == SHOP
    assert "token" not in repr(SHOP)


def test_who_adds_and_removes_keys_is_in_the_journal(db: peewee.Database) -> None:
    with db.atomic():
        add_key(db, SHOP, ANN)
        remove_key(db, "shop@example.com", "s1", ANN)

    query = tables.Journal.select().order_by(tables.Journal.id.desc()).limit(2)
    assert [(line.who, line.verb, line.matching, line.detail) for line in query.execute(db)] == [
        ("ann", "sender dkim remove", "sender=shop@example.com", "selector=s1 rsa-sha256"),
        ("ann", "sender dkim add", "sender=shop@example.com", "selector=s1 rsa-sha256"),
    ]
    assert keys(db) == ()


def test_what_cannot_be_added_or_removed_is_refused_with_what_to_do(db: peewee.Database) -> None:
    with db.atomic():
        add_key(db, SHOP, ANN)
    with pytest.raises(Refused, match=r"shop@example.com has a DKIM key with the selector s1 already") as caught:
        add_key(db, replace(SHOP, algorithm=Algorithm.ED25519), ANN)
    assert "outbox sender dkim 'shop@example.com' --remove s1" in caught.value.hint
    with pytest.raises(Refused, match=r"x@example.org is not a registered sender"):
        add_key(db, replace(SHOP, sender="x@example.org"), ANN)
    with pytest.raises(Refused, match=r"\*@example.com has no DKIM key with the selector s1"):
        remove_key(db, "*@example.com", "s1", ANN)
    assert keys(db) == (SHOP,)


def test_a_selector_that_another_sender_of_the_domain_has_is_in_use(db: peewee.Database) -> None:
    with db.atomic():
        add_key(db, SHOP, ANN)

    check_unused(db, "s2", "example.com")
    check_unused(db, "s1", "example.org")
    with pytest.raises(Refused, match=r"shop@example.com has a DKIM key with the selector s1"):
        check_unused(db, "s1", "example.com")


def test_keys_go_with_their_sender(db: peewee.Database) -> None:
    with db.atomic():
        add_key(db, SHOP, ANN)
        add_key(db, WHOLE, ANN)
        senders.remove_sender(db, "shop@example.com", ANN)

    assert keys(db) == (WHOLE,)


def test_a_key_is_sealed_again_only_if_it_is_still_the_same(db: peewee.Database) -> None:
    with db.atomic():
        add_key(db, SHOP, ANN)

        assert reseal(db, SHOP, "gAAAA-new", "89abcdef")
        assert not reseal(db, SHOP, "gAAAA-late", "00000000")
    assert keys(db) == (replace(SHOP, secret="gAAAA-new", key_id="89abcdef"),)
