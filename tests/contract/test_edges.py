"""What hardly ever happens in a database: found where a mutant lived."""

from __future__ import annotations

import peewee
import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.core.message import Message
from outbox.core.settlement import Claim, Fate
from outbox.errors import InvalidMessage
from outbox.store import Content, Store, health
from outbox.store.accounts import add_account, pause_account, resume_account
from outbox.store.engine import has_wal_reset_bug
from outbox.store.journal import Act
from outbox.store.senders import add_sender, pause_sender, resume_sender
from tests.contract.stores import LATER, NOW, SHOP, add, claim, deferred, sent, settle, write
from tests.statements import MOMENT, rows, run


def read(store: Store, claims: list[Claim]) -> dict[int, Content]:
    return {each.message_id: content for each, content in store.contents(claims) if isinstance(content, Content)}


def test_of_a_batch_each_says_what_its_own_row_says(store: Store, database: peewee.Database) -> None:
    """Plain ones together; by itself, what has files, was erased or is gone."""
    plain, filed, erased, another, also = add(database, 5)
    sql = "INSERT INTO outbox_attachment (message_id, position, filename, content) VALUES (?, 0, ?, ?)"
    run(database, sql, filed, "a.txt", b"abc")
    run(database, sql, also, "b.txt", b"of somebody else")
    claims = claim(store)
    (ended,) = [each for each in claims if each.message_id == erased]  # by somebody else, behind our back
    settle(store, sent(ended))
    run(database, "UPDATE outbox SET erased_at = ?, text_body = NULL WHERE id = ?", MOMENT, erased)

    found = read(store, claims)

    assert found.keys() == {plain, filed, erased, another, also}
    assert isinstance(found[erased].message, InvalidMessage)
    for number in (plain, another):
        message = found[number].message
        assert isinstance(message, Message)
        assert (message.id, message.attachments) == (number, ())
    for number, name, content in ((filed, "a.txt", b"abc"), (also, "b.txt", b"of somebody else")):
        message = found[number].message
        assert isinstance(message, Message)
        assert [(each.filename, each.content) for each in message.attachments] == [(name, content)]


def test_of_a_batch_that_was_tried_each_knows_its_fates(store: Store, database: peewee.Database) -> None:
    (tried,) = add(database, recipients="ann@example.net, bob@example.net")
    settle(store, deferred(claim(store)[0]))
    (fresh,) = add(database)
    again = write(store, lambda: store.claim_one("a" * 32, tried, LATER)) + claim(store)

    assert {number: each.fates for number, each in read(store, again).items()} == {tried: {0: Fate.DEFERRED}, fresh: {}}


def test_what_an_operator_holds_is_not_in_doubt(database: peewee.Database) -> None:
    add(database, 3)
    run(database, "UPDATE outbox_delivery SET state = 'held', hold_reason = 'a look first' WHERE message_id < 3")
    run(database, "UPDATE outbox_delivery SET doubts = 1 WHERE message_id = 1")
    queue = health.queue(database)
    assert (queue.held, queue.in_doubt) == (2, 1)


def test_the_journal_says_why(database: peewee.Database) -> None:
    ann = Act("ann@web1", NOW)
    with database.atomic():
        add_account(database, Account("main", "127.0.0.1", 25, Tls.NONE), ann)
        add_sender(database, Sender(SHOP, "main"), ann)
        pause_account(database, "main", "the bill", None, ann)
        resume_account(database, "main", ann)
        pause_sender(database, SHOP, "the flood", None, ann)
        resume_sender(database, SHOP, ann)
    written = rows(database, "SELECT verb, filter, detail FROM outbox_journal WHERE verb LIKE '%e' ORDER BY id")
    assert [(verb, about, (why or "").rpartition(": ")[2]) for verb, about, why in written] == [
        ("account pause", "account=main", "the bill"),
        ("account resume", "account=main", "the bill"),
        ("sender pause", f"sender={SHOP}", "the flood"),
        ("sender resume", f"sender={SHOP}", "the flood"),
    ]


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 49, 9), True),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_which_versions_of_sqlite_have_the_wal_reset_bug(version: tuple[int, int, int], has_it: bool) -> None:
    assert has_wal_reset_bug(version) is has_it


def test_an_account_that_says_nothing_has_what_the_columns_say(database: peewee.Database) -> None:
    said = Account("main", "127.0.0.1", 25, Tls.NONE)
    run(
        database, "INSERT INTO outbox_account (name, relay_host, relay_port, tls) VALUES ('a', '127.0.0.1', 25, 'none')"
    )
    (found,) = rows(database, "SELECT max_connections, max_messages FROM outbox_account")
    assert found == (said.max_connections, said.max_messages) == (3, 100)
