"""The doorbell, rung by whatever connection a mail is enqueued on: an idle runner of this machine looks at once."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from outbox import Attachment, Mail, aenqueue, enqueue
from outbox.doorbell import SUFFIX, Shortened
from outbox.store.database import sqlite_path
from tests.contract.applications import SQLITE, Application

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such sockets")

FILE = Attachment(filename="invoice.pdf", content=b"%PDF-", content_type="application/pdf")


def mail(**more: Any) -> Mail:
    return Mail(sender="shop@example.com", to="ann@example.net", subject="Order 7", text="Thanks", **more)


class Runner:
    """What a runner hangs beside the database."""

    def __init__(self, url: str) -> None:
        self.address = os.fsencode(sqlite_path(url)) + SUFFIX
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        with Shortened(self.address) as short:
            self._socket.bind(short)

    def heard(self) -> int:
        """Rings since it was asked last. A datagram on one machine is there when sendto() returns."""
        rings = 0
        while True:
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return rings
            rings += 1

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def runner(sqlite_url: str) -> Iterator[Runner]:
    hung = Runner(sqlite_url)
    yield hung
    hung.close()


@pytest.fixture(params=SQLITE)
def app(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Application]:
    opened = SQLITE[request.param](sqlite_url)
    yield opened
    opened.close()


def test_every_connection_rings_once_before_the_commit(app: Application, runner: Runner) -> None:
    app.begin()
    app.enqueue(mail())
    assert runner.heard() == 1
    app.enqueue(mail(attachments=[FILE]))
    assert runner.heard() == 1
    app.enqueue_many([mail(), mail(attachments=[FILE]), mail()])
    assert runner.heard() == 1
    app.enqueue_many([])
    assert runner.heard() == 0
    app.commit()

    assert app.seen("SELECT count(*) FROM outbox") == [(5,)]


def test_it_is_rung_at_the_file_and_not_at_the_folder_of_the_moment(
    app: Application, runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    app.enqueue(mail())

    assert runner.heard() == 1


def test_where_nobody_listens_a_mail_is_a_mail(app: Application) -> None:
    app.begin()
    assert app.enqueue(mail()) is not None
    app.commit()

    assert app.seen("SELECT count(*) FROM outbox") == [(1,)]


def test_a_database_in_memory_has_no_bell_and_no_trouble(sqlite_url: str) -> None:
    async def on_aiosqlite() -> int | None:
        async with (
            aiosqlite.connect(sqlite_path(sqlite_url)) as file,
            aiosqlite.connect(":memory:") as connection,
        ):
            await file.backup(connection)
            return await aenqueue(connection, mail())

    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as file, engine.connect() as connection:
        own: Any = connection.connection.driver_connection
        file.backup(own)
        assert enqueue(connection, mail()) == 1
    engine.dispose()
    assert asyncio.run(on_aiosqlite()) == 1
