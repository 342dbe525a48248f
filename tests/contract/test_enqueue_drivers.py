"""Enqueue and the habits of each driver: settings of the application that must not break it, and what it refuses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.string import StrDumper

from outbox import Attachment, Mail, aenqueue, enqueue, enqueue_many
from outbox.store.database import connect, sqlite_path
from outbox.store.engine import sqlite3

ROLES = Path(__file__).parents[2] / "schema" / "postgres" / "roles.sql"
FILE = Attachment(filename="invoice.pdf", content=b"%PDF-", content_type="application/pdf")


def mail(subject: str = "Order 7", **more: Any) -> Mail:
    values: dict[str, Any] = {"to": "ann@example.net", "text": "Thanks", **more}
    return Mail(sender="shop@example.com", subject=subject, **values)


@pytest.fixture
def path(sqlite_url: str) -> str:
    return sqlite_path(sqlite_url)


@pytest.fixture
def connection(path: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as opened:
        yield opened


def count(path: str) -> int:
    with closing(sqlite3.connect(path)) as other:
        found: int = other.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return found


# ---- sqlite3


def test_row_and_text_factories_of_the_application_do_not_matter(connection: sqlite3.Connection) -> None:
    connection.row_factory = lambda _cursor, _row: pytest.fail("the application's row_factory was called")
    connection.text_factory = bytes
    first = enqueue(connection, mail(dedup_key="k", attachments=[FILE]))
    again = enqueue(connection, mail(dedup_key="k", attachments=[FILE]))
    many = enqueue_many(connection, [mail(), mail(dedup_key="k"), mail(dedup_key="ü"), mail()])

    assert isinstance(first, int)
    assert again is None
    assert [each is None for each in many] == [False, True, False, False]


def test_a_read_in_progress_neither_breaks_nor_is_broken(connection: sqlite3.Connection, path: str) -> None:
    enqueue_many(connection, [mail(f"Order {number}") for number in range(200)])
    connection.commit()
    reading = connection.execute("SELECT id FROM outbox ORDER BY id")
    read = [reading.fetchone()]

    enqueue(connection, mail("during", attachments=[FILE]))
    connection.commit()

    read += reading.fetchall()
    assert len(read) >= 200
    assert count(path) == 201


@pytest.mark.parametrize("level", ["DEFERRED", "IMMEDIATE", "EXCLUSIVE"])
def test_a_transaction_that_enqueue_begins_has_the_isolation_level_of_the_connection(path: str, level: Any) -> None:
    statements: list[str] = []
    with closing(sqlite3.connect(path, isolation_level=level)) as connection:
        connection.set_trace_callback(statements.append)
        enqueue(connection, mail(attachments=[FILE]))
        assert connection.in_transaction
        connection.rollback()

    assert statements[0].strip() == f"BEGIN {level}"
    assert count(path) == 0


def test_a_mail_alone_is_one_statement(path: str) -> None:
    statements: list[str] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.set_trace_callback(statements.append)
        enqueue(connection, mail())

    assert next(text for text in statements if not text.startswith("--")).startswith("INSERT INTO outbox ")
    assert not [text for text in statements if text.startswith(("BEGIN", "SAVEPOINT", "COMMIT"))]


def test_many_mails_are_few_statements_unless_they_are_large(path: str) -> None:
    statements: dict[str, None] = {}  # SQLite tells of a statement again for each trigger that it fires
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.set_trace_callback(lambda text: statements.setdefault(text))
        enqueue_many(connection, [mail(f"Order {number}") for number in range(130)])
        enqueue_many(connection, [mail(f"Large {number}", text="x" * 600_000) for number in range(3)])
    inserts = [text for text in statements if text.startswith("INSERT INTO outbox ")]

    assert [text.count("'ann@example.net'") for text in inserts] == [64, 64, 2, 1, 1, 1]


@pytest.mark.parametrize("isolation_level", [None, "DEFERRED"])
def test_a_full_disk_is_reported_as_it_is_and_leaves_nothing(path: str, isolation_level: Any) -> None:
    big = Attachment(filename="big.bin", content=bytes(5_000_000), content_type="application/octet-stream")
    with closing(sqlite3.connect(path, isolation_level=isolation_level)) as connection:
        connection.execute("PRAGMA cache_size = 10")
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 100}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            enqueue(connection, mail(attachments=[big]))
        connection.commit()
        assert not connection.in_transaction

    assert count(path) == 0


def test_a_locked_database_is_reported_as_it_is(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
            for attachments in ([], [FILE]):
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    enqueue(connection, mail(attachments=attachments))
                assert not connection.in_transaction


def test_a_database_without_our_tables_is_reported_as_it_is() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.OperationalError, match="outbox"):
        enqueue(connection, mail())


def test_subclasses_of_a_connection_are_connections(path: str) -> None:
    class Logged(sqlite3.Connection):
        pass

    with closing(sqlite3.connect(path, factory=Logged)) as connection:
        assert enqueue(connection, mail()) == 1


# ---- psycopg


def test_row_and_cursor_factories_of_the_application_do_not_matter(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, row_factory=dict_row, cursor_factory=psycopg.RawCursor) as connection:
        first = enqueue(connection, mail(dedup_key="k", attachments=[FILE]))
        again = enqueue(connection, mail(dedup_key="k", attachments=[FILE]))
        many = enqueue_many(connection, [mail(), mail(dedup_key="k"), mail()])

        assert isinstance(first, int)
        assert again is None
        assert many[1] is None
        assert None not in (many[0], many[2])


def test_row_factories_do_not_matter_to_an_asynchronous_connection_either(postgres_url: str) -> None:
    async def go() -> tuple[int | None, int | None]:
        async with await psycopg.AsyncConnection.connect(postgres_url, row_factory=dict_row) as connection:
            first = await aenqueue(connection, mail(dedup_key="k", attachments=[FILE]))
            return first, await aenqueue(connection, mail(dedup_key="k", attachments=[FILE]))

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        first, again = runner.run(go())

    assert isinstance(first, int)
    assert again is None


def test_an_application_that_sends_str_as_text_can_set_headers(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.adapters.register_dumper(str, StrDumper)
        enqueue(connection, mail(headers={"X-Order": "7"}, attachments=[FILE]))

        assert connection.execute("SELECT headers FROM outbox").fetchall() == [({"X-Order": "7"},)]


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_pipeline_of_the_application_goes_on(postgres_url: str, autocommit: bool) -> None:
    with psycopg.connect(postgres_url, autocommit=autocommit) as connection:
        with connection.pipeline():
            connection.execute("CREATE TABLE orders (id integer)")
            one = enqueue(connection, mail(attachments=[FILE]))
            connection.execute("INSERT INTO orders VALUES (7)")
            two = enqueue(connection, mail(attachments=[FILE]))
        connection.commit()

        ids = connection.execute("SELECT message_id FROM outbox_attachment ORDER BY 1").fetchall()
        assert ids == [(one,), (two,)]


def test_in_a_pipeline_in_autocommit_a_refused_attachment_leaves_nothing(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE outbox_attachment ADD CONSTRAINT refuse CHECK (filename <> 'invoice.pdf')")
        with pytest.raises(psycopg.errors.CheckViolation), connection.pipeline():
            enqueue(connection, mail(attachments=[FILE]))

        assert connection.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


@pytest.mark.parametrize("autocommit", [False, True])
def test_inside_a_transaction_block_of_psycopg(postgres_url: str, autocommit: bool) -> None:
    with psycopg.connect(postgres_url, autocommit=autocommit) as connection:
        with connection.transaction():
            enqueue(connection, mail("kept", attachments=[FILE]))
            with connection.transaction(force_rollback=True):
                enqueue(connection, mail("dropped", attachments=[FILE]))

        assert connection.execute("SELECT subject FROM outbox").fetchall() == [("kept",)]


def test_two_transactions_with_one_dedup_key_give_one_mail(postgres_url: str) -> None:
    given: list[int | None] = []

    def second() -> None:
        with psycopg.connect(postgres_url) as connection:
            given.append(enqueue(connection, mail("second", dedup_key="k")))

    with psycopg.connect(postgres_url) as connection:
        first = enqueue(connection, mail("first", dedup_key="k"))
        thread = threading.Thread(target=second)
        thread.start()  # it waits for our end, or comes after it
        connection.commit()
        thread.join()

        assert given == [None]
        assert connection.execute("SELECT id, subject FROM outbox").fetchall() == [(first, "first")]


def test_the_role_of_an_application_can_enqueue(postgres_url: str) -> None:
    def full_mail(dedup_key: str | None = None) -> Mail:
        soon = datetime.now(UTC) + timedelta(hours=1)
        return Mail(
            sender="Shop <shop@example.com>",
            to="ann@example.net",
            cc="bob@example.net",
            bcc="carol@example.net",
            reply_to="desk@example.com",
            return_path="bounces@example.com",
            subject="Order 7",
            text="Thanks",
            html="<p>Thanks",
            headers={"X-Order": "7"},
            attachments=[FILE],
            due_at=soon,
            expires_at=soon + timedelta(days=1),
            dedup_key=dedup_key,
            tag="orders",
        )

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(ROLES.read_bytes())
        connection.execute("SET ROLE outbox_app")
        first = enqueue(connection, full_mail(dedup_key="k"))
        assert first is not None
        assert enqueue(connection, full_mail(dedup_key="k")) is None
        assert None not in enqueue_many(connection, [full_mail(), mail()])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT text_body FROM outbox")


# ---- peewee


@pytest.fixture
def database(database_url: str) -> Iterator[peewee.Database]:
    opened = connect(database_url)
    yield opened
    opened.close()


def test_atomic_and_nested_atomic_of_peewee_hold(database: peewee.Database) -> None:
    with database.atomic():
        enqueue(database, mail("kept", attachments=[FILE]))
        with database.atomic() as inner:
            enqueue(database, mail("dropped", attachments=[FILE]))
            inner.rollback()

    assert database.execute_sql("SELECT subject FROM outbox").fetchall() == [("kept",)]


def test_manual_commit_of_peewee_holds(database: peewee.Database) -> None:
    with database.manual_commit():
        enqueue(database, mail("at once", attachments=[FILE]))
        database.begin()
        enqueue(database, mail("dropped", attachments=[FILE]))
        database.rollback()

    assert database.execute_sql("SELECT subject FROM outbox").fetchall() == [("at once",)]


def test_a_proxy_of_a_peewee_database_is_one(database: peewee.Database) -> None:
    proxy = peewee.DatabaseProxy()
    proxy.initialize(database)

    assert enqueue(proxy, mail(attachments=[FILE])) is not None


def test_a_peewee_database_connects_by_itself_where_it_may(path: str) -> None:
    database = peewee.SqliteDatabase(path)
    assert enqueue(database, mail(attachments=[FILE])) == 1
    database.close()

    assert count(path) == 1


# ---- what is refused


def test_an_unknown_connection_is_refused_with_the_ones_that_are_known() -> None:
    class Session:
        pass

    unknown: Any = Session()
    with pytest.raises(
        TypeError, match=r"no .*Session; it takes sqlite3\.Connection, .* psycopg\.Connection, .* peewee"
    ):
        enqueue(unknown, mail())
    with pytest.raises(TypeError, match=r"no .*Session; it takes psycopg\.AsyncConnection"):
        asyncio.run(aenqueue(unknown, mail()))
    with pytest.raises(TypeError, match=r"no builtins\.NoneType"):
        enqueue(None, mail())  # type: ignore[arg-type]


def test_mysql_is_refused() -> None:
    with pytest.raises(TypeError, match="peewee"):
        enqueue(peewee.MySQLDatabase("shop"), mail())


def test_a_connection_in_the_wrong_function_is_refused_with_the_right_one(postgres_url: str) -> None:
    async def go() -> None:
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            wrong: Any = connection
            with pytest.raises(TypeError, match="await aenqueue"):
                enqueue(wrong, mail())

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(go())
    with closing(sqlite3.connect(":memory:")) as connection:
        wrong: Any = connection
        with pytest.raises(TypeError, match=r"not asynchronous: use `enqueue\("):
            asyncio.run(aenqueue(wrong, mail()))


def test_what_is_no_mail_is_refused(connection: sqlite3.Connection) -> None:
    wrong: Any = EmailMessage()
    with pytest.raises(TypeError, match=r"outbox\.Mail, not email\.message\.EmailMessage; Mail\.from_message"):
        enqueue(connection, wrong)
    with pytest.raises(TypeError, match="the connection comes first"):
        enqueue(mail(), connection)  # type: ignore[arg-type]
