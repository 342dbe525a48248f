"""outbox.testing: what was enqueued on a connection, seen as the connection sees it; and the real runner over it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import peewee
import psycopg
import pytest
from psycopg.rows import dict_row

from outbox import Attachment, Mail, aenqueue, enqueue
from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.errors import DatabaseError, OutboxError
from outbox.store import accounts, senders
from outbox.store.database import connect
from outbox.store.journal import Act
from outbox.testing import HANG_UP, acaptured, assert_enqueued, captured, drain
from outbox.testing.draining import refuse_uncommitted, url_of
from tests.test_public import NOT_LOADED, loaded_by


def mail(number: int = 7, **fields: Any) -> Mail:
    given = {"sender": "shop@example.com", "to": "ann@example.net", "subject": f"Order {number}", "text": "Thanks\n"}
    return Mail(**{**given, **fields})


@pytest.fixture(params=["sqlite3", "psycopg", "peewee-sqlite", "peewee-postgres"])
def connection(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Of each kind, in no transaction, with a taste of its own in rows."""
    kind = request.param
    url: str = request.getfixturevalue("sqlite_url" if "sqlite" in kind else "postgres_url")
    if kind == "sqlite3":
        opened: Any = sqlite3.connect(url.removeprefix("sqlite:///"))
        opened.row_factory = sqlite3.Row
    elif kind == "psycopg":
        opened = psycopg.connect(url, row_factory=dict_row)
    else:
        opened = connect(url)
    yield opened
    opened.close()


def begin(connection: Any) -> None:
    if isinstance(connection, peewee.Database):
        connection.execute_sql("BEGIN")
    elif isinstance(connection, sqlite3.Connection):
        connection.execute("BEGIN")


def end(connection: Any, how: str) -> None:
    if isinstance(connection, peewee.Database):
        connection.execute_sql(how)
    else:
        connection.execute(how)


def test_mails_are_seen_before_they_are_committed_and_gone_when_they_are_rolled_back(connection: Any) -> None:
    begin(connection)
    enqueue(connection, mail(1))
    end(connection, "COMMIT")
    with captured(connection) as mails:
        assert len(mails) == 0
        begin(connection)
        enqueue(connection, mail(2))
        enqueue(connection, mail(3))
        assert [each.subject for each in mails] == ["Order 2", "Order 3"]
        end(connection, "ROLLBACK")
        assert list(mails) == []
        begin(connection)
        enqueue(connection, mail(4))  # on SQLite, with the id that 2 had
        end(connection, "COMMIT")
    begin(connection)
    enqueue(connection, mail(5))
    end(connection, "COMMIT")
    assert [each.subject for each in mails] == ["Order 4"]


def test_every_field_is_there(connection: Any) -> None:
    due = datetime(2031, 1, 2, 3, 4, 5, tzinfo=UTC)
    begin(connection)
    with captured(connection) as mails:
        enqueue(
            connection,
            mail(
                sender="The Shop <shop@example.com>",
                to=["Ann <ann@example.net>", "bo@example.net"],
                cc="c@example.net",
                bcc="d@example.net",
                html="<p>Thanks",
                headers={"X-Order": "7", "X-Two": ["a", "b"]},
                due_at=due,
                attachments=[Attachment("a.bin", b"\0\xff")],
                dedup_key="order-7",
                tag="t",
                reply_to="r@example.net",
            ),
            source="here",
        )
        (found,) = mails
    assert (found.sender, found.sender_name, found.reply_to) == ("shop@example.com", "The Shop", ("r@example.net",))
    assert (found.to, found.cc, found.bcc) == (
        ("ann@example.net", "bo@example.net"),
        ("c@example.net",),
        ("d@example.net",),
    )
    assert (found.subject, found.text, found.html) == ("Order 7", "Thanks\n", "<p>Thanks")
    assert found.headers == {"X-Order": "7", "X-Two": ["a", "b"]}
    assert found.attachments == (Attachment("a.bin", b"\0\xff"),)
    assert (found.key, found.tag, found.source, found.priority, found.due_at) == ("order-7", "t", "here", 5, due)
    assert found.message["From"] == "The Shop <shop@example.com>"
    assert "Bcc" not in found.message


def test_a_complete_message_is_taken_apart(sqlite_url: str) -> None:
    raw = b"From: shop@example.com\r\nTo: ann@example.net\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nHi\r\n"
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection, captured(connection) as mails:
        enqueue(connection, Mail.from_message(raw))
        (found,) = mails
    connection.close()
    assert (found.subject, found.to, found.text, found.html) == ("Grüße", ("ann@example.net",), "Hi\n", None)
    assert found.headers["From"] == "shop@example.com"


def test_a_look_opens_no_transaction(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection, captured(connection) as mails:
        assert len(mails) == 0
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with connection.transaction():
            enqueue(connection, mail())
            assert len(mails) == 1
        with psycopg.connect(postgres_url) as another:
            assert_enqueued(another, subject="Order 7")


def test_asynchronous_connections_are_looked_at_by_await(postgres_url: str) -> None:
    async def order() -> None:
        async with await psycopg.AsyncConnection.connect(postgres_url, row_factory=dict_row) as connection:
            async with acaptured(connection) as mails:
                assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
                await aenqueue(connection, mail(attachments=[Attachment("a", b"b")]))
                assert_enqueued(await mails.refresh(), subject="Order 7")
                await aenqueue(connection, mail(8))
            (_, _) = mails
            with pytest.raises(TypeError, match="acaptured"), captured(connection):
                pass

    asyncio.run(order())


def test_what_is_missing_is_said_with_what_is_there(sqlite_url: str) -> None:
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    with captured(connection) as mails:
        with pytest.raises(AssertionError, match=r"1 mail with key 'order-7': expected; enqueued: 0\. Nothing was"):
            assert_enqueued(mails, key="order-7")
        enqueue(connection, mail(dedup_key="order-7"))
        enqueue(connection, mail(8, to="bo@example.net"))
        (found,) = assert_enqueued(mails, key="order-7")
        assert found.subject == "Order 7"
        assert_enqueued(mails, to="ANN@example.net", text="hank", sender="shop@example.com", source="python")
        assert_enqueued(mails, subject=re.compile(r"^Order \d$"), count=2)
        assert_enqueued(mails, to="eve@example.net", count=0)
        with pytest.raises(AssertionError) as failed:
            assert_enqueued(connection, to="bo@example.net", subject="Order 7")
    connection.close()
    said = str(failed.value)
    assert "1 mail with to 'bo@example.net' and subject 'Order 7': expected; enqueued: 0" in said
    assert "shop@example.com → ann@example.net: 'Order 7', key 'order-7'" in said
    assert "bo@example.net: 'Order 8'" in said


# -- drain


def enqueued(url: str, *mails: Mail) -> None:
    db = connect(url)
    for each in mails:
        enqueue(db, each)
    db.close()


def rows(url: str, sql: str) -> list[Any]:
    db = connect(url)
    found = list(db.execute_sql(sql).fetchall())
    db.close()
    return found


def test_the_relay_answers_by_the_script_and_nobody_needs_to_be_registered(database_url: str) -> None:
    enqueued(database_url, mail(7), mail(8, to="bo@example.net"), mail(9, to="cy@example.net, bo@example.net"))
    drained = drain(database_url, answers={"rcpt:bo@example.net": "550 5.1.1 no such user"})

    assert sorted(each.subject for each in drained.received) == ["Order 7", "Order 9"]
    assert {each.recipients for each in drained.received} == {("ann@example.net",), ("cy@example.net",)}
    assert {each.sender for each in drained.received} == {"shop@example.com"}
    assert drained.received[0].message.get_content() == "Thanks\n"
    assert drained.done == {"sent": 1, "failed": 2}
    assert rows(database_url, "SELECT count(*) FROM outbox_audit WHERE reply = 'no such user'")[0][0] == 2
    assert rows(database_url, "SELECT count(*) FROM outbox_account")[0][0] == 0
    assert rows(database_url, "SELECT count(*) FROM outbox_sender")[0][0] == 0


def test_registered_accounts_lead_to_the_relay_and_stay_as_they_are(sqlite_url: str) -> None:
    db = connect(sqlite_url)
    act = Act("test", Clock().now())
    accounts.add_account(
        db, Account("main", "smtp.invalid", 587, Tls.STARTTLS, username="shop", secret="sealed", key_id="none"), act
    )
    senders.add_sender(db, Sender("shop@example.com", "main"), act)
    before = accounts.registry(db).accounts
    enqueue(db, mail(7))
    enqueue(db, mail(8, sender="stranger@example.com"))
    drained = drain(sqlite_url)

    assert [each.subject for each in drained.received] == ["Order 7"]
    assert drained.done == {"sent": 1, "failed": 1}
    assert accounts.registry(db).accounts == before
    db.close()


def test_what_comes_due_in_time_is_done_too(sqlite_url: str) -> None:
    enqueued(sqlite_url, mail())
    later = drain(sqlite_url, answers={"rcpt": ["450 4.2.0 later"]})
    assert (later.received, later.done) == ((), {"queued": 1})
    assert [each for each in later.stays if each.startswith("1 from shop@example.com: due ")]

    enqueued(sqlite_url, mail(8))
    fast = {"retry": {"floor": "1s", "ceiling": "1s"}}
    done = drain(sqlite_url, answers={"rcpt": ["450 4.2.0 later"]}, settings=fast, wait=5)
    assert [each.subject for each in done.received] == ["Order 8"]


def test_a_relay_that_hangs_up_at_the_dot_leaves_a_doubt(sqlite_url: str) -> None:
    enqueued(sqlite_url, mail(on_doubt="hold"))
    drained = drain(sqlite_url, answers={"dot": HANG_UP})
    assert (drained.received, drained.done, drained.stays) == ((), {"held": 1}, ("1 held",))
    assert rows(sqlite_url, "SELECT state, doubts FROM outbox_delivery") == [("held", 1)]


def test_a_relay_may_refuse_senders_and_contents(sqlite_url: str) -> None:
    enqueued(sqlite_url, mail())
    refused = drain(sqlite_url, answers={"dot": "554 5.7.1 spam"})
    assert (refused.received, refused.done) == ((), {"failed": 1})


def test_what_is_wrong_is_said(tmp_path: Any, sqlite_url: str) -> None:
    with pytest.raises(ValueError, match="'rctp' is none of"):
        drain(sqlite_url, answers={"rctp": "550 no"})
    with pytest.raises(ValueError, match="'no' is not a reply"):
        drain(sqlite_url, answers={"rcpt": "no"})
    with pytest.raises(DatabaseError, match=r"nowhere\.db"):
        drain(f"sqlite:///{tmp_path}/nowhere.db")
    with pytest.raises(OutboxError, match="settings"):
        drain(sqlite_url, settings={"retry": {"flor": "1s"}})


def test_a_database_that_a_runner_serves_is_left_alone(sqlite_url: str) -> None:
    db = connect(sqlite_url)
    db.execute_sql(
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until)"
        " VALUES ('1', 'h', 1, '0', '2026-01-01T00:00:00.000Z', '2999-01-01T00:00:00.000Z')"
    )
    db.close()
    with pytest.raises(OutboxError, match="a runner serves this database"):
        drain(sqlite_url)


def test_the_url_is_the_connections(connection: Any) -> None:
    begin(connection)
    enqueue(connection, mail())
    with pytest.raises(OutboxError, match="commit first"):
        refuse_uncommitted(connection)
    end(connection, "COMMIT")
    refuse_uncommitted(connection)
    assert [each.subject for each in drain(url_of(connection)).received] == ["Order 7"]


def test_a_database_in_memory_has_no_runner() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(DatabaseError, match="in memory"):
        url_of(connection)


def test_importing_it_loads_neither_pytest_nor_a_driver(tmp_path: Any) -> None:
    loaded = loaded_by("import outbox.testing", tmp_path)
    assert sorted({name.partition(".")[0] for name in loaded} & {*NOT_LOADED.split(), "pytest"}) == []
