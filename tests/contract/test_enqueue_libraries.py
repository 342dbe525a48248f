"""Enqueue on connections as applications set them up: codecs, pools, sessions, and what is no connection at all."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import psycopg
import psycopg2.extras
import psycopg2.pool
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from outbox import Attachment, Mail, aenqueue, aenqueue_many, enqueue, enqueue_many
from outbox.store.database import sqlite_path

FILE = Attachment(filename="invoice.pdf", content=b"%PDF-", content_type="application/pdf")
SOON = datetime(2030, 1, 1, tzinfo=UTC)


def mail(subject: str = "Order 7", **more: Any) -> Mail:
    return Mail(sender="shop@example.com", to="ann@example.net", subject=subject, text="Thanks", **more)


def full_mails() -> list[Mail]:
    """With all that a driver could encode in its own way."""
    return [mail(headers={"X-Order": "7"}, due_at=SOON, attachments=[FILE], dedup_key=key) for key in (None, "k", "k")]


def awaited(made: Callable[[], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        return await made()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(go())


def address(url: str, driver: str) -> str:
    return f"{driver}:{url.partition(':')[2]}"


# ---- asyncpg


async def with_codecs(connection: asyncpg.Connection) -> None:
    """As applications set them: JSON as objects, times as text."""
    for kind in ("json", "jsonb"):
        await connection.set_type_codec(kind, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await connection.set_type_codec(
        "timestamptz",
        encoder=lambda moment: moment.isoformat(),
        decoder=datetime.fromisoformat,
        schema="pg_catalog",
    )


async def enqueued_through(connection: Any) -> tuple[list[int | None], list[Any]]:
    ids = [await aenqueue(connection, each) for each in full_mails()]
    ids += await aenqueue_many(connection, full_mails())
    rows = await connection.fetch("SELECT jsonb_typeof(headers), headers ->> 'X-Order', due_at FROM outbox")
    return ids, [tuple(row) for row in rows]


def test_codecs_of_the_application_are_not_in_the_way_of_asyncpg(postgres_url: str) -> None:
    async def go() -> Any:
        connection = await asyncpg.connect(postgres_url)
        try:
            await with_codecs(connection)
            return await enqueued_through(connection)
        finally:
            await connection.close()

    ids, rows = awaited(go)
    assert [each is None for each in ids] == [False, False, True, False, True, True]
    assert rows == [("object", "7", SOON)] * 3


def test_a_pool_with_codecs_lends_connections_that_are_as_good(postgres_url: str) -> None:
    class Own(asyncpg.Connection):  # type: ignore[misc, unused-ignore]
        """What an application makes of it."""

    async def go() -> Any:
        async with (
            asyncpg.create_pool(postgres_url, min_size=1, max_size=2, init=with_codecs, connection_class=Own) as pool,
            pool.acquire() as connection,
        ):
            async with connection.transaction():
                found = await enqueued_through(connection)
            async with pool.acquire() as other:
                assert await other.fetchval("SELECT count(*) FROM outbox") == 3
            return found

    ids, rows = awaited(go)
    assert [each is None for each in ids] == [False, False, True, False, True, True]
    assert rows == [("object", "7", SOON)] * 3


def test_a_record_class_and_no_prepared_statements_do_not_matter(postgres_url: str) -> None:
    """As behind a pgbouncer."""

    class Row(asyncpg.Record):  # type: ignore[misc, unused-ignore]
        def __getitem__(self, key: Any) -> Any:
            raise AssertionError("the application's own class was asked")

    async def go() -> Any:
        connection = await asyncpg.connect(postgres_url, statement_cache_size=0, record_class=Row)
        try:
            return await aenqueue_many(connection, full_mails())
        finally:
            await connection.close()

    assert [each is None for each in awaited(go)] == [False, False, True]


# ---- aiosqlite


def test_row_and_text_factories_do_not_matter_to_aiosqlite(sqlite_url: str) -> None:
    async def go() -> Any:
        async with aiosqlite.connect(sqlite_path(sqlite_url)) as connection:
            connection.row_factory = lambda *_: pytest.fail("the application's row_factory was called")  # type: ignore[assignment]
            connection.text_factory = bytes
            return [
                await aenqueue(connection, mail(dedup_key="k", attachments=[FILE])),
                await aenqueue(connection, mail(dedup_key="k")),
                *await aenqueue_many(connection, [mail(), mail(dedup_key="k"), mail(dedup_key="ü")]),
            ]

    assert [each is None for each in awaited(go)] == [False, True, False, True, False]


def test_what_sqlite3_answers_on_its_own_thread_alone_is_asked_there(sqlite_url: str) -> None:
    """`autocommit`, since Python 3.12; on every Python the same here."""
    home: list[int] = []

    class Strict(sqlite3.Connection):
        @property
        def autocommit(self) -> int:
            home.append(threading.get_ident())
            return -1

    async def go() -> list[int | None]:
        async with aiosqlite.connect(sqlite_path(sqlite_url), factory=Strict) as connection:
            ids = [await aenqueue(connection, mail(attachments=[FILE]))]
            await connection.commit()
            return [*ids, *await aenqueue_many(connection, [mail(), mail()])]

    assert awaited(go) == [1, 2, 3]
    assert home
    assert threading.get_ident() not in home


def test_sqlalchemy_over_aiosqlite_in_memory_as_tests_have_it(sqlite_url: str) -> None:
    """sqlite3 answers there only on the thread that has opened it."""

    async def go() -> Any:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.connect() as connection:
            memory: Any = (await connection.get_raw_connection()).driver_connection
            async with aiosqlite.connect(sqlite_path(sqlite_url)) as file:
                await file.backup(memory)
            ids = [await aenqueue(connection, mail(attachments=[FILE]))]
            ids += await aenqueue_many(connection, [mail(), mail()])
            await connection.rollback()
            count = await connection.scalar(sa.text("SELECT count(*) FROM outbox"))
        await engine.dispose()
        return ids, count

    assert awaited(go) == ([1, 2, 3], 0)


# ---- psycopg2, psycopg


def test_a_pool_of_psycopg2_and_cursors_that_give_dicts(postgres_url: str) -> None:
    pool = psycopg2.pool.ThreadedConnectionPool(1, 1, postgres_url, cursor_factory=psycopg2.extras.RealDictCursor)
    connection = pool.getconn()
    try:
        with connection:
            assert enqueue(connection, mail(dedup_key="k", headers={"X-Order": "7"})) is not None
            assert enqueue_many(connection, [mail(dedup_key="k"), mail(attachments=[FILE])])[0] is None
    finally:
        pool.putconn(connection)
        pool.closeall()


def test_many_in_the_pipeline_of_an_asynchronous_application(postgres_url: str) -> None:
    async def go() -> Any:
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            async with connection.pipeline():
                ids = await aenqueue_many(connection, full_mails())
            cursor = await connection.execute("SELECT count(*) FROM outbox_attachment")
            return ids, await cursor.fetchone()

    ids, attachments = awaited(go)
    assert [each is None for each in ids] == [False, False, True]
    assert attachments == (2,)


def test_a_task_that_is_cancelled_leaves_no_half_of_a_batch(postgres_url: str) -> None:
    """The lock that the second mail waits for is ours."""

    async def go() -> Any:
        async with (
            await psycopg.AsyncConnection.connect(postgres_url) as blocker,
            await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection,
        ):
            await aenqueue(blocker, mail(dedup_key="taken"))
            task = asyncio.create_task(
                aenqueue_many(connection, [mail(attachments=[FILE]), mail(dedup_key="taken", attachments=[FILE])])
            )
            async with asyncio.timeout(20), await psycopg.AsyncConnection.connect(postgres_url) as watch:
                while True:
                    found = await watch.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
                    if await found.fetchone():
                        break
                    await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await blocker.rollback()
            cursor = await connection.execute("SELECT count(*) FROM outbox")
            return await cursor.fetchone()

    assert awaited(go) == (0,)


# ---- SQLAlchemy's registries


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[sa.Engine]:
    made = sa.create_engine(sqlite_url, poolclass=NullPool)
    yield made
    made.dispose()


def test_a_scoped_session_is_its_session(engine: sa.Engine) -> None:
    session = scoped_session(sessionmaker(engine))
    enqueue(session, mail("dropped"))
    session.rollback()
    enqueue(session, mail("kept"))
    enqueue_many(session, [mail("kept"), mail("kept")])
    session.commit()
    session.remove()

    with engine.connect() as connection:
        assert connection.scalars(sa.text("SELECT subject FROM outbox")).all() == ["kept"] * 3


def test_an_async_scoped_session_is_its_session(sqlite_url: str) -> None:
    async def go() -> Any:
        engine = create_async_engine(address(sqlite_url, "sqlite+aiosqlite"), poolclass=NullPool)
        session = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
        await aenqueue(session, mail("dropped"))
        await session.rollback()
        await aenqueue(session, mail("kept"))
        await aenqueue_many(session, [mail("kept"), mail("kept", attachments=[FILE])])
        await session.commit()
        await session.remove()
        async with AsyncSession(engine) as other:
            found = (await other.scalars(sa.text("SELECT subject FROM outbox"))).all()
        await engine.dispose()
        return found

    assert awaited(go) == ["kept"] * 3


@pytest.mark.parametrize("driver", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_asynchronous_sqlalchemy_in_autocommit_holds_a_mail_and_its_files_together(
    postgres_url: str, driver: str
) -> None:
    async def go() -> Any:
        engine = create_async_engine(address(postgres_url, driver), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            kept = await aenqueue(connection, mail("kept", attachments=[FILE]))
            await connection.exec_driver_sql(
                "ALTER TABLE outbox_attachment ADD CONSTRAINT refuse CHECK (filename <> 'refused.pdf')"
            )
            refused = Attachment(filename="refused.pdf", content=b"-", content_type="application/pdf")
            with pytest.raises(sa.exc.IntegrityError):
                await aenqueue(connection, mail("refused", attachments=[refused]))
        async with engine.connect() as connection:
            found = (await connection.execute(sa.text("SELECT id, subject FROM outbox"))).all()
        await engine.dispose()
        return kept, found

    kept, found = awaited(go)
    assert found == [(kept, "kept")]


# ---- what is no connection


def refusal(connection: Any) -> str:
    """What enqueue and aenqueue both say."""
    said = []
    for attempt in (
        lambda: enqueue(connection, mail()),
        lambda: enqueue_many(connection, [mail()]),
        lambda: asyncio.run(aenqueue(connection, mail())),
        lambda: asyncio.run(aenqueue_many(connection, [mail()])),
    ):
        with pytest.raises(TypeError) as told:
            attempt()
        said.append(str(told.value))
    assert len(set(said)) == 1, said
    return said[0]


def test_what_gives_connections_is_refused_with_how_to_get_one(sqlite_url: str, engine: sa.Engine) -> None:
    async_engine = create_async_engine(address(sqlite_url, "sqlite+aiosqlite"), poolclass=NullPool)
    for given, instead in [
        (engine, "`with engine.begin() as connection`"),
        (async_engine, "`async with engine.begin() as connection`"),
        (sessionmaker(engine), "`with sessionmaker.begin() as session`"),
        (async_sessionmaker(async_engine), "`async with async_sessionmaker.begin() as session`"),
    ]:
        assert instead in refusal(given), given


def test_a_pool_is_refused_with_how_to_borrow_of_it(postgres_url: str) -> None:
    async def asyncpg_pool() -> str:
        async with asyncpg.create_pool(postgres_url, min_size=0) as pool:
            with pytest.raises(TypeError) as told:
                await aenqueue(pool, mail())
            return str(told.value)

    assert "`async with pool.acquire() as connection`" in awaited(asyncpg_pool)
    pool = psycopg2.pool.SimpleConnectionPool(0, 1, postgres_url)
    assert "`connection = pool.getconn()`" in refusal(pool)
    pool.closeall()


def test_a_cursor_is_refused_with_its_connection(sqlite_url: str, postgres_url: str) -> None:
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as connection, closing(connection.cursor()) as cursor:
        assert "`cursor.connection`" in refusal(cursor)
    with psycopg.connect(postgres_url) as opened, opened.cursor() as one:
        assert "`cursor.connection`" in refusal(one)


def test_a_url_and_a_path_are_refused(tmp_path: Path) -> None:
    for given in ("sqlite:///shop.db", tmp_path):
        assert "`connect() of a driver` gives one" in refusal(given)


def test_what_was_not_awaited_is_refused_and_not_forgotten(sqlite_url: str) -> None:
    async def connected() -> None:
        """As asyncpg.connect()."""

    given = connected()
    assert "`await` gives one" in refusal(given)
    given.close()


def test_the_database_of_flask_is_refused_with_its_session(sqlite_url: str) -> None:
    app = Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = sqlite_url
    assert "`db.session` gives one" in refusal(SQLAlchemy(app))
