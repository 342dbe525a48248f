"""Enqueue: the same promises on every connection, in every transaction mode."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import asyncpg
import peewee
import psycopg
import psycopg2
import pytest
import sqlalchemy.exc

from outbox import Attachment, Mail
from outbox.store.engine import sqlite3
from tests.contract.applications import ALL, AUTOCOMMIT, SQLITE, Application

REFUSED = (
    sqlite3.IntegrityError,
    psycopg.IntegrityError,
    psycopg2.IntegrityError,
    asyncpg.IntegrityConstraintViolationError,
    sqlalchemy.exc.IntegrityError,
    peewee.IntegrityError,
)


@pytest.fixture(params=ALL)
def app(request: pytest.FixtureRequest) -> Iterator[Application]:
    """Each application in turn, on a fresh database."""
    name: str = request.param
    opened = ALL[name](request.getfixturevalue("sqlite_url" if name in SQLITE else "postgres_url"))
    yield opened
    opened.close()


in_autocommit = pytest.mark.parametrize("app", AUTOCOMMIT, indirect=True)


def is_sqlite(app: Application) -> bool:
    return app.url.startswith("sqlite")


def mail(subject: str = "Order 7", **more: object) -> Mail:
    values: dict[str, object] = {"to": "ann@example.net", "text": "Thanks"}
    return Mail(sender="shop@example.com", subject=subject, **(values | more))  # type: ignore[arg-type]


def invoice(filename: str = "invoice.pdf", content: bytes = b"%PDF-\x00\xff") -> Attachment:
    return Attachment(filename=filename, content=content, content_type="application/pdf")


def refuse_attachments(app: Application) -> None:
    """Have the database refuse every attachment that is called refused.pdf."""
    if is_sqlite(app):
        app.sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON outbox_attachment WHEN NEW.filename = 'refused.pdf'"
            " BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    else:
        app.sql("ALTER TABLE outbox_attachment ADD CONSTRAINT refuse CHECK (filename <> 'refused.pdf')")
    if app.begins_itself:
        app.commit()


def allow_each_subject_once(app: Application) -> None:
    """Have the database refuse a second mail with the same subject."""
    app.sql("CREATE UNIQUE INDEX each_subject_once ON outbox (subject)")
    if app.begins_itself:
        app.commit()


def counts(app: Application) -> tuple[int, int, int]:
    """How many mails, deliveries and attachments there are for everybody."""
    tables = ("outbox", "outbox_delivery", "outbox_attachment")
    found = app.seen("SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables))[0]
    return found[0], found[1], found[2]


# ---- the application's transaction


def test_a_mail_exists_when_the_transaction_commits(app: Application) -> None:
    app.begin()
    message_id = app.enqueue(mail(attachments=[invoice()]))
    assert counts(app) == (0, 0, 0)
    app.commit()

    assert counts(app) == (1, 1, 1)
    assert app.seen("SELECT id, sender, recipients, subject, text_body, source FROM outbox") == [
        (message_id, "shop@example.com", "ann@example.net", "Order 7", "Thanks", "python")
    ]
    assert app.seen("SELECT message_id, state FROM outbox_delivery") == [(message_id, "queued")]


def test_a_mail_never_existed_when_the_transaction_rolls_back(app: Application) -> None:
    app.begin()
    assert app.enqueue(mail()) is not None
    assert app.enqueue(mail(attachments=[invoice()])) is not None
    app.rollback()

    assert counts(app) == (0, 0, 0)


def test_the_mail_shares_the_fate_of_the_rows_around_it(app: Application) -> None:
    app.sql("CREATE TABLE orders (id integer)")
    if app.begins_itself:
        app.commit()
    for end in (app.rollback, app.commit):
        app.begin()
        app.sql("INSERT INTO orders VALUES (7)")
        app.enqueue(mail(attachments=[invoice()]))
        app.sql("INSERT INTO orders VALUES (8)")
        end()

    assert app.seen("SELECT id FROM orders ORDER BY id") == [(7,), (8,)]
    assert counts(app) == (1, 1, 1)


def test_enqueue_leaves_the_application_in_the_transaction_that_it_would_be_in(app: Application) -> None:
    app.enqueue(mail())
    assert app.in_transaction() == app.begins_itself
    if app.begins_itself:
        app.rollback()
    app.enqueue(mail(attachments=[invoice()]))
    assert app.in_transaction() == app.begins_itself


@in_autocommit
def test_in_autocommit_a_mail_is_there_at_once_with_its_attachments(app: Application) -> None:
    message_id = app.enqueue(mail(attachments=[invoice(), invoice("terms.pdf")]))

    assert counts(app) == (1, 1, 2)
    rows = app.seen("SELECT message_id, position, filename, content_type, content_id, content FROM outbox_attachment")
    assert [(*row[:5], bytes(row[5])) for row in sorted(rows)] == [
        (message_id, 0, "invoice.pdf", "application/pdf", None, b"%PDF-\x00\xff"),
        (message_id, 1, "terms.pdf", "application/pdf", None, b"%PDF-\x00\xff"),
    ]


# ---- when something fails


@in_autocommit
def test_in_autocommit_a_refused_attachment_leaves_nothing(app: Application) -> None:
    refuse_attachments(app)

    with pytest.raises(REFUSED):
        app.enqueue(mail(attachments=[invoice(), invoice("refused.pdf")]))

    assert not app.in_transaction()
    assert counts(app) == (0, 0, 0)
    app.enqueue(mail())
    assert counts(app) == (1, 1, 0)


def test_an_application_that_commits_after_an_error_does_not_commit_half_a_mail(app: Application) -> None:
    refuse_attachments(app)
    app.begin()
    app.enqueue(mail("before"))
    with pytest.raises(REFUSED):
        app.enqueue(mail("half", attachments=[invoice(), invoice("refused.pdf")]))
    if is_sqlite(app):
        app.enqueue(mail("after"))
    app.commit()

    expected = [("after",), ("before",)] if is_sqlite(app) else []  # PostgreSQL turns this COMMIT into a rollback
    assert app.seen("SELECT subject FROM outbox ORDER BY subject") == expected


def test_after_an_error_in_the_first_statement_the_transaction_is_still_the_application_s(app: Application) -> None:
    refuse_attachments(app)
    with pytest.raises(REFUSED):
        app.enqueue(mail(attachments=[invoice("refused.pdf")]))
    if app.begins_itself:
        app.rollback()
    app.begin()
    app.enqueue(mail())
    app.commit()

    assert counts(app) == (1, 1, 0)


def test_a_batch_is_inserted_whole_or_not_at_all(app: Application) -> None:
    refuse_attachments(app)
    with pytest.raises(REFUSED):
        app.enqueue_many([mail("1"), mail("2", attachments=[invoice("refused.pdf")]), mail("3")])
    if app.begins_itself:
        app.commit()

    assert counts(app) == (0, 0, 0)


def test_a_batch_without_attachments_is_held_together_too(app: Application) -> None:
    allow_each_subject_once(app)
    with pytest.raises(REFUSED):
        app.enqueue_many([mail("1"), mail("2"), mail("1")])
    if app.begins_itself:
        app.commit()

    assert counts(app) == (0, 0, 0)


def test_only_a_dedup_key_is_a_duplicate_and_any_other_conflict_is_an_error(app: Application) -> None:
    allow_each_subject_once(app)
    app.enqueue(mail())
    with pytest.raises(REFUSED):
        app.enqueue(mail())


# ---- duplicates


def test_a_dedup_key_that_is_already_there_gives_none_and_inserts_nothing(app: Application) -> None:
    app.begin()
    first = app.enqueue(mail("first", dedup_key="order-7"))
    other = app.enqueue(mail("other"))
    again = app.enqueue(mail("again", dedup_key="order-7", attachments=[invoice()]))
    later = app.enqueue(mail("later", dedup_key="order-8", attachments=[invoice()]))
    app.commit()

    assert first is not None
    assert other is not None
    assert later is not None
    assert again is None
    assert len({first, other, later}) == 3
    assert app.seen("SELECT id, subject FROM outbox ORDER BY id") == [
        (first, "first"),
        (other, "other"),
        (later, "later"),
    ]
    assert app.seen("SELECT message_id FROM outbox_attachment") == [(later,)]


def test_a_dedup_key_is_free_again_after_a_rollback(app: Application) -> None:
    app.begin()
    assert app.enqueue(mail(dedup_key="order-7")) is not None
    app.rollback()
    app.begin()
    assert app.enqueue(mail(dedup_key="order-7")) is not None
    app.commit()

    assert counts(app) == (1, 1, 0)


# ---- many


def test_many_mails_go_in_in_order_and_keep_their_own_attachments(app: Application) -> None:
    app.begin()
    ids = app.enqueue_many(
        [
            mail("1"),
            mail("2", attachments=[invoice("2a.pdf"), invoice("2b.pdf")], priority=1),
            mail("3", dedup_key="k", html="<p>Thanks"),
            mail("4", dedup_key="k", attachments=[invoice("4.pdf")]),
            mail("5", on_doubt="hold", attachments=[invoice("5.pdf")]),
        ]
    )
    app.commit()

    one, two, three, four, five = ids
    assert four is None
    assert app.seen("SELECT id, subject, priority, on_doubt, dedup_key, html_body FROM outbox ORDER BY id") == [
        (one, "1", 5, "retry", None, None),
        (two, "2", 1, "retry", None, None),
        (three, "3", 5, "retry", "k", "<p>Thanks"),
        (five, "5", 5, "hold", None, None),
    ]
    assert app.seen("SELECT message_id, position, filename FROM outbox_attachment ORDER BY 1, 2") == [
        (two, 0, "2a.pdf"),
        (two, 1, "2b.pdf"),
        (five, 0, "5.pdf"),
    ]


def test_a_thousand_mails_and_none(app: Application) -> None:
    app.begin()
    ids = app.enqueue_many(mail(f"Order {number}") for number in range(1000))
    assert app.enqueue_many([]) == []
    app.commit()

    assert app.seen("SELECT id, subject FROM outbox ORDER BY id") == [
        (message_id, f"Order {number}") for number, message_id in enumerate(ids)
    ]


def test_of_many_mails_each_gets_its_own_id_whatever_their_keys_columns_and_sizes(app: Application) -> None:
    soon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    app.begin()
    app.enqueue(mail("before", dedup_key="key 3"))
    given = [
        mail(
            f"Order {number}",
            dedup_key=f"key {number % 50}é" if number % 3 else "key 3" if number % 7 == 0 else None,
            due_at=soon if number % 4 == 0 else None,
            headers={"X-Order": str(number)} if number % 5 == 0 else None,
            text="x" * (300_000 if 64 <= number < 70 else 10),
        )
        for number in range(1, 151)
    ]
    ids = app.enqueue_many(given)
    app.commit()

    seen = app.seen("SELECT id, subject, due_at IS NOT NULL, headers IS NOT NULL, length(text_body) FROM outbox")
    found = {subject: (message_id, *rest) for message_id, subject, *rest in seen}
    keys = {"key 3"}
    for each, message_id in zip(given, ids, strict=True):
        if each.dedup_key in keys:
            assert (message_id, each.subject in found) == (None, False)
            continue
        keys |= {each.dedup_key} - {None}  # type: ignore[arg-type]
        assert found[each.subject] == (message_id, each.due_at is not None, bool(each.headers), len(each.text or ""))
    inserted = [message_id for message_id in ids if message_id is not None]
    assert inserted == sorted(inserted)
    assert len(found) == 1 + len(inserted)


def test_a_mail_that_is_refused_among_many_leaves_none_of_them(app: Application) -> None:
    allow_each_subject_once(app)
    app.begin()
    with pytest.raises(REFUSED):
        app.enqueue_many(mail(f"Order {number % 150}") for number in range(200))
    app.rollback()

    assert counts(app) == (0, 0, 0)


# ---- values


def test_every_field_arrives_in_its_column(app: Application) -> None:
    due = datetime(2030, 3, 1, 10, 30, 0, 250_999, tzinfo=timezone(timedelta(hours=1)))
    app.begin()
    app.enqueue(
        mail(
            "Ümlaut – 100 % ?",
            cc="bob@example.net",
            bcc="carol@example.net",
            reply_to="desk@example.com",
            return_path="bounces@example.com",
            html="<p>%s ? $1 :name</p>",
            headers={"X-Order": "7 %s"},
            priority=0,
            due_at=due,
            expires_at=due + timedelta(days=1),
            tag="orders",
        )
    )
    app.commit()

    assert app.seen("SELECT subject, cc, bcc, reply_to, return_path, html_body, priority, tag FROM outbox") == [
        (
            "Ümlaut – 100 % ?",
            "bob@example.net",
            "carol@example.net",
            "desk@example.com",
            "bounces@example.com",
            "<p>%s ? $1 :name</p>",
            0,
            "orders",
        )
    ]
    ((headers, due_at, expires_at),) = app.seen("SELECT headers, due_at, expires_at FROM outbox")
    if is_sqlite(app):
        assert headers == '{"X-Order": "7 %s"}'
        assert (due_at, expires_at) == ("2030-03-01T09:30:00.250Z", "2030-03-02T09:30:00.250Z")
        assert app.seen("SELECT due_at FROM outbox_delivery") == [(due_at,)]
    else:
        assert headers == {"X-Order": "7 %s"}
        assert due_at == due
        assert due_at.tzinfo is not None
        assert expires_at == due + timedelta(days=1)


def test_a_complete_message_arrives_byte_for_byte(app: Application) -> None:
    raw = b"From: shop@example.com\r\nTo: ann@example.net\r\nSubject: \xc3\xbc\r\n\r\nbinary: \x80\xff\r\n"
    app.begin()
    app.enqueue(Mail.from_message(raw))
    app.commit()

    ((stored, text, source),) = app.seen("SELECT raw, text_body, source FROM outbox")
    assert b"binary: \x80\xff" in bytes(stored)
    assert text is None
    assert source == "python"


def test_what_is_not_said_is_left_to_the_database(app: Application) -> None:
    app.begin()
    app.enqueue(mail())
    app.commit()

    ((token, created_at, priority, on_doubt, cc),) = app.seen(
        "SELECT token, created_at, priority, on_doubt, cc FROM outbox"
    )
    if isinstance(created_at, str):
        created_at = datetime.fromisoformat(created_at)
    assert len(token) == 32
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=1)
    assert (priority, on_doubt, cc) == (5, "retry", None)
