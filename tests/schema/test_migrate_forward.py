"""Tables that are full are brought forward without losing a row, over both databases."""

from __future__ import annotations

from collections.abc import Iterator

import peewee
import pytest

from outbox.store import accounts
from outbox.store.database import connect, dialect
from outbox.store.migrate import _exclusive, _run, apply, check, migrations
from tests.statements import insert, rows, run

FIRST = 3
"""The version of the first release: what is there since then is only ever added to."""

MOMENT = "2026-03-01T09:30:00.000Z"
ACCOUNT = "name, relay_host, relay_port, tls, mechanism, username, secret, key_id, paused_until, pause_reason"
SENDER = "address, account, display_name, return_path, paused_until, pause_reason"


@pytest.fixture
def first(empty_url: str) -> Iterator[peewee.Database]:
    """A database of the first release, with mail, accounts and senders in it."""
    database = connect(empty_url)
    for migration in migrations(dialect(database))[:FIRST]:
        with _exclusive(database):
            _run(database, migration)
    insert(database, id=7)
    account = ("main", "smtp.example.com", 587, "starttls", "plain", "shop", "token", "key", MOMENT, "auth: 535 no")
    run(database, f"INSERT INTO outbox_account ({ACCOUNT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", *account)
    sender = ("shop@example.com", "main", "Shop", "bounces@example.com", MOMENT, "operator: moving")
    run(database, f"INSERT INTO outbox_sender ({SENDER}) VALUES (?, ?, ?, ?, ?, ?)", *sender)
    run(database, "INSERT INTO outbox_sender (address, account) VALUES (?, ?)", "*@example.com", "main")
    yield database
    database.close()


def test_what_was_there_is_there_afterwards(first: peewee.Database) -> None:
    queries = (
        f"SELECT {ACCOUNT}, credential_version, max_connections, created_at FROM outbox_account",
        f"SELECT {SENDER}, created_at FROM outbox_sender ORDER BY address",
        "SELECT id, token, sender, recipients, text_body FROM outbox",
        "SELECT message_id, state, due_at FROM outbox_delivery",
        "SELECT id, state, account FROM outbox_status",
    )
    before = [rows(first, query) for query in queries]
    assert apply(first) == [each.number for each in migrations(dialect(first))[FIRST:]]
    check(first)
    assert [rows(first, query) for query in queries] == before
    known = accounts.registry(first)
    assert known.accounts["main"].probes == 0
    assert set(known.senders) == {"shop@example.com", "*@example.com"}


def test_an_account_still_cannot_go_before_its_senders(first: peewee.Database) -> None:
    apply(first)
    with pytest.raises(peewee.IntegrityError):
        first.execute_sql("DELETE FROM outbox_account")
    run(first, "DELETE FROM outbox_sender")
    run(first, "DELETE FROM outbox_account")


def test_the_new_columns_of_a_mail_are_immutable_too(first: peewee.Database) -> None:
    apply(first)
    insert(first, id=8, dsn_notify="failure,delay")
    with pytest.raises(peewee.IntegrityError, match="immutable"):
        first.execute_sql("UPDATE outbox SET dsn_notify = 'never' WHERE id = 8")
