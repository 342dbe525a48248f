"""outbox.testing on connections of other libraries: what it sees; and it leaves their transactions as they were."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from outbox.testing import acaptured, assert_enqueued, captured
from outbox.testing.draining import url_of

INSERT = (
    "INSERT INTO outbox (sender, recipients, subject, text_body)"
    " VALUES ('shop@example.com', 'ann@example.net', 'Order 7', 'Thanks')"
)


def test_sqlalchemy(database_url: str) -> None:
    sa = pytest.importorskip("sqlalchemy")
    orm = pytest.importorskip("sqlalchemy.orm")
    engine = sa.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection, captured(connection) as mails:
        assert not connection.in_transaction()
        connection.execute(sa.text(INSERT))
        assert_enqueued(mails, subject="Order 7")
        connection.rollback()
        assert list(mails) == []
    scoped = orm.scoped_session(orm.sessionmaker(engine))
    with captured(scoped) as mails:
        assert not scoped().in_transaction()
        scoped.execute(sa.text(INSERT))
        assert_enqueued(mails, subject="Order 7")
        scoped.commit()
        assert_enqueued(mails, subject="Order 7")
        assert not scoped().in_transaction()
        assert url_of(scoped).partition(":")[0] == database_url.partition(":")[0]
    scoped.remove()
    engine.dispose()


def test_psycopg2(postgres_url: str) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    extras = pytest.importorskip("psycopg2.extras")
    connection = psycopg2.connect(postgres_url, cursor_factory=extras.RealDictCursor)
    with captured(connection) as mails:
        assert connection.info.transaction_status == 0
        connection.cursor().execute(INSERT)
        (mail,) = assert_enqueued(mails, subject="Order 7")
    assert mail.text == "Thanks"
    connection.close()


@pytest.mark.parametrize("kind", ["asyncpg", "aiosqlite", "sqlalchemy"])
def test_asynchronous(kind: str, request: pytest.FixtureRequest) -> None:
    library = pytest.importorskip(kind)
    url = request.getfixturevalue("sqlite_url" if kind == "aiosqlite" else "postgres_url")

    async def look(connection: Any, insert: Any) -> None:
        async with acaptured(connection) as mails:
            await connection.execute(insert)
            assert_enqueued(await mails.refresh(), subject="Order 7", text="Thanks")
        assert len(mails) == 1

    async def run() -> None:
        if kind == "asyncpg":
            connection = await library.connect(url)
            await look(connection, INSERT)
            await connection.close()
        elif kind == "aiosqlite":
            async with library.connect(url.removeprefix("sqlite:///")) as connection:
                await look(connection, INSERT)
        else:
            aio = pytest.importorskip("sqlalchemy.ext.asyncio")
            engine = aio.create_async_engine(url.replace("postgresql:", "postgresql+psycopg:"))
            async with engine.connect() as connection:
                await look(connection, library.text(INSERT))
            async with aio.AsyncSession(engine) as session:
                await look(session, library.text(INSERT))
            await engine.dispose()

    asyncio.run(run())
