"""What an application can rely on when it INSERTs into `outbox`, over both databases."""

from __future__ import annotations

import re
from typing import Any

import peewee
import pytest

from outbox.store.database import connect
from tests.statements import MAIL, bring, insert, one, refused, rows, run

FOUR = "INSERT INTO outbox (sender, recipients, subject, text_body) VALUES (?, ?, ?, ?)"


def test_four_columns_are_enough(database: peewee.Database) -> None:
    run(database, FOUR, *MAIL.values())
    (row,) = rows(database, "SELECT id, token, created_at, priority, on_doubt, source, due_at, erased_at FROM outbox")
    assert row[0] == 1
    assert re.fullmatch(r"[0-9a-f]{32}", row[1])
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row[2])
    assert row[3:] == (5, "retry", "sql", None, None)


def test_an_insert_queues_a_delivery(scratch_database: peewee.Database) -> None:
    message = insert(scratch_database, priority=2, on_doubt="hold")
    (row,) = rows(scratch_database, "SELECT * FROM outbox_delivery")
    created = one(scratch_database, "SELECT created_at FROM outbox WHERE id = ?", message)
    assert row == (message, "queued", "shop@example.com", 2, created, None, "hold", 0, 0, 0, 0, *[None] * 9)


def test_the_lane_is_the_trimmed_address_in_ascii_lower_case(scratch_database: peewee.Database) -> None:
    insert(scratch_database, sender="  Shop@Example.COM ")
    insert(scratch_database, sender="JÜRGEN@ÖBB.example")
    lanes = rows(scratch_database, "SELECT sender FROM outbox_delivery ORDER BY message_id")
    assert lanes == [("shop@example.com",), ("jÜrgen@Öbb.example",)]


@pytest.mark.parametrize("column", ["due_at", "expires_at"])
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-03-01T09:30:00.000Z", "2026-03-01T09:30:00.000Z"),
        ("2026-03-01", "2026-03-01T00:00:00.000Z"),
        ("2026-03-01 09:30", "2026-03-01T09:30:00.000Z"),
        ("2026-03-01T09:30:00+02:00", "2026-03-01T07:30:00.000Z"),
        ("2026-03-01 00:30:15.25-01:00", "2026-03-01T01:30:15.250Z"),
    ],
)
def test_dates_are_normalised_in_the_delivery(
    scratch_database: peewee.Database, column: str, written: str, meant: str
) -> None:
    insert(scratch_database, **{column: written})
    assert one(scratch_database, f"SELECT {column} FROM outbox_delivery") == meant


def test_a_date_of_microseconds_becomes_one_of_milliseconds(scratch_database: peewee.Database) -> None:
    """Rounded by PostgreSQL and by older SQLite, cut by newer (3.53)."""
    insert(scratch_database, due_at="2028-02-29T23:59:59.999999+00:00")
    stored = one(scratch_database, "SELECT due_at FROM outbox_delivery")
    assert stored in ("2028-03-01T00:00:00.000Z", "2028-02-29T23:59:59.999Z")


@pytest.mark.parametrize(
    "written",
    ["10:00", "2026-02-30", "2026-13-01", "2026-03-01T25:00", "2026-03-01 soon", "tomorrow-ish", "1751328000"],
)
def test_a_date_that_is_not_real_is_refused(scratch_database: peewee.Database, written: str) -> None:
    with pytest.raises((peewee.IntegrityError, peewee.DataError)) as caught:
        insert(scratch_database, due_at=written)
    if isinstance(caught.value, peewee.IntegrityError):  # SQLite; PostgreSQL's own type says it better
        assert "outbox_due_at_real" in str(caught.value)


@pytest.mark.parametrize("written", ["now", 1751328000, 2460000.5, b"2026-03-01"])
def test_sqlite_takes_no_words_numbers_or_blobs_for_dates(sqlite_url: str, written: Any) -> None:
    database = connect(sqlite_url)
    with refused("outbox_due_at_real"):
        insert(database, due_at=written)
    database.close()


def test_an_empty_string_in_an_optional_column_is_as_good_as_null(scratch_database: peewee.Database) -> None:
    empty = dict.fromkeys(("sender_name", "return_path", "cc", "bcc", "reply_to", "subject", "tag", "html_body"), "")
    insert(scratch_database, **empty)
    insert(scratch_database, html_body="<p>Thanks</p>", text_body="")
    insert(scratch_database, raw=b"", text_body="x")
    assert one(scratch_database, "SELECT count(*) FROM outbox_delivery") == 3


def test_sqlite_takes_an_empty_date_or_headers_for_none(sqlite_url: str) -> None:
    database = connect(sqlite_url)
    insert(database, due_at="", expires_at="", headers="")
    assert one(database, "SELECT due_at FROM outbox_delivery") == one(database, "SELECT created_at FROM outbox")
    assert one(database, "SELECT expires_at FROM outbox_delivery") is None
    database.close()


def test_raw_may_take_its_recipients_from_its_headers(scratch_database: peewee.Database) -> None:
    insert(
        scratch_database, recipients=None, subject=None, text_body=None, raw=b"To: ann@example.net\r\n\r\nThanks\r\n"
    )
    assert one(scratch_database, "SELECT state FROM outbox_delivery") == "queued"


def test_a_hidden_recipient_alone_is_a_recipient(scratch_database: peewee.Database) -> None:
    insert(scratch_database, recipients=None, bcc="ann@example.net")


def test_a_rolled_back_transaction_leaves_nothing(database: peewee.Database) -> None:
    with database.atomic() as transaction:
        message = insert(database)
        attach(database, message)
        transaction.rollback()
    for table in ("outbox", "outbox_attachment", "outbox_delivery"):
        assert one(database, f"SELECT count(*) FROM {table}") == 0


def test_one_statement_may_insert_many_rows(scratch_database: peewee.Database) -> None:
    marks = ", ".join(["(?, ?, ?, ?)"] * 100)
    values = [value for _ in range(100) for value in MAIL.values()]
    run(scratch_database, f"INSERT INTO outbox (sender, recipients, subject, text_body) VALUES {marks}", *values)
    assert one(scratch_database, "SELECT count(*) FROM outbox_delivery d JOIN outbox o ON o.id = d.message_id") == 100


# ------------------------------------------------------------------------------------------------------ dedup_key


def test_a_dedup_key_is_used_once(database: peewee.Database) -> None:
    insert(database, dedup_key="order-7")
    with refused("dedup_key"):
        insert(database, dedup_key="order-7")
    insert(database, dedup_key="order-8")
    insert(database)
    insert(database)
    assert one(database, "SELECT count(*) FROM outbox_delivery") == 4


def test_a_bare_on_conflict_do_nothing_inserts_once(database: peewee.Database) -> None:
    statement = (
        "INSERT INTO outbox (sender, recipients, text_body, dedup_key) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING RETURNING id"
    )
    values = ("shop@example.com", "ann@example.net", "Thanks", "order-7")
    assert len(run(database, statement, *values).fetchall()) == 1
    assert run(database, statement, *values).fetchall() == []
    assert one(database, "SELECT count(*) FROM outbox") == one(database, "SELECT count(*) FROM outbox_delivery") == 1


def test_a_key_can_be_used_again_when_its_message_was_deleted(database: peewee.Database) -> None:
    message = insert(database, dedup_key="order-7")
    bring(database, message, "sent")
    run(database, "DELETE FROM outbox WHERE id = ?", message)
    insert(database, dedup_key="order-7")


@pytest.mark.parametrize("foreign_keys", [0, 1])
@pytest.mark.parametrize("recursive_triggers", [0, 1])
@pytest.mark.parametrize("statement", ["INSERT OR REPLACE", "REPLACE"])
def test_sqlite_refuses_to_replace_a_row(
    sqlite_url: str, statement: str, recursive_triggers: int, foreign_keys: int
) -> None:
    database = connect(sqlite_url)
    run(database, f"PRAGMA foreign_keys = {foreign_keys}")
    run(database, f"PRAGMA recursive_triggers = {recursive_triggers}")
    message = insert(database, dedup_key="order-7", subject="Order 7")
    columns = "(sender, recipients, text_body, subject"
    values = "('shop@example.com', 'ann@example.net', 'Thanks', 'Changed'"
    with refused("INSERT OR REPLACE is refused"):
        run(database, f"{statement} INTO outbox {columns}, id) VALUES {values}, {message})")
    with refused("INSERT OR REPLACE is refused"):
        run(database, f"{statement} INTO outbox {columns}, dedup_key) VALUES {values}, 'order-7')")
    assert rows(database, "SELECT id, subject FROM outbox") == [(message, "Order 7")]
    assert one(database, "SELECT count(*) FROM outbox_delivery") == 1
    assert one(database, "SELECT value FROM outbox_meta WHERE key = 'schema_version'") != "replaced"
    database.close()


def test_sqlite_ignores_a_duplicate_where_asked_to(sqlite_url: str) -> None:
    database = connect(sqlite_url)
    for _ in range(2):
        run(
            database,
            "INSERT OR IGNORE INTO outbox (sender, recipients, text_body, dedup_key) VALUES (?, ?, ?, ?)",
            *("shop@example.com", "ann@example.net", "Thanks", "order-7"),
        )
    assert one(database, "SELECT count(*) FROM outbox") == one(database, "SELECT count(*) FROM outbox_delivery") == 1
    database.close()


# ---------------------------------------------------------------------------------------------------- attachments


def attach(database: peewee.Database, message: int, position: int = 0) -> None:
    run(
        database,
        "INSERT INTO outbox_attachment (message_id, position, filename, content) VALUES (?, ?, 'a.pdf', ?)",
        *(message, position, b"%PDF"),
    )


def test_attachments_come_with_their_mail(scratch_database: peewee.Database) -> None:
    with scratch_database.atomic():
        message = insert(scratch_database)
        attach(scratch_database, message, 0)
        attach(scratch_database, message, 1)
    assert rows(
        scratch_database, "SELECT message_id, position, filename, content_type FROM outbox_attachment ORDER BY 2"
    ) == [
        (message, 0, "a.pdf", "application/octet-stream"),
        (message, 1, "a.pdf", "application/octet-stream"),
    ]


@pytest.mark.parametrize("state", ["sending", "sent", "failed", "expired", "held", "cancelled"])
def test_an_attachment_that_comes_too_late_is_refused(scratch_database: peewee.Database, state: str) -> None:
    message = insert(scratch_database)
    bring(scratch_database, message, state)
    with refused("too late"):
        attach(scratch_database, message)


def test_an_attachment_of_no_message_is_refused(scratch_database: peewee.Database) -> None:
    with refused("no such message"):
        attach(scratch_database, 99)


def test_an_attachment_is_not_replaced(scratch_database: peewee.Database) -> None:
    message = insert(scratch_database)
    attach(scratch_database, message)
    with pytest.raises(peewee.IntegrityError):
        attach(scratch_database, message)


# ------------------------------------------------------------------------------------------------- PostgreSQL only


def test_copy_queues_deliveries(postgres_url: str) -> None:
    database = connect(postgres_url)
    with (
        database.connection().cursor() as cursor,
        cursor.copy("COPY outbox (sender, recipients, subject, text_body) FROM STDIN") as copy,
    ):
        for _ in range(1000):
            copy.write_row(list(MAIL.values()))
    assert one(database, "SELECT count(*) FROM outbox_delivery_live") == 1000
    database.close()


@pytest.mark.parametrize(("asleep", "dead", "announced"), [(True, False, 1), (False, False, 0), (True, True, 0)])
def test_mail_is_announced_only_to_a_sleeping_runner(
    postgres_url: str, asleep: bool, dead: bool, announced: int
) -> None:
    application, runner = connect(postgres_url), connect(postgres_url)
    runner.execute_sql("LISTEN outbox")
    run(
        runner,
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until, asleep, dead_at)"
        " VALUES ('r1', 'h', 1, '0', now(), now(), ?, CASE WHEN ? THEN now() END)",
        *(asleep, dead),
    )
    insert(application)
    heard = list(runner.connection().notifies(timeout=0.5 if announced else 0.1, stop_after=1))
    assert len(heard) == announced
    application.close()
    runner.close()


def test_a_rolled_back_insert_announces_nothing(postgres_url: str) -> None:
    application, runner = connect(postgres_url), connect(postgres_url)
    runner.execute_sql("LISTEN outbox")
    runner.execute_sql(
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until, asleep)"
        " VALUES ('r1', 'h', 1, '0', now(), now(), true)"
    )
    with application.atomic() as transaction:
        insert(application)
        transaction.rollback()
    assert list(runner.connection().notifies(timeout=0.1, stop_after=1)) == []
    application.close()
    runner.close()
