"""The fixtures of pytest, which finds them where Outbox is installed.

outbox             what this test enqueues, and a drain() that sends it
outbox_connection  the application's connection: override it. Else one to a fresh SQLite database
outbox_url         the URL of its database, for drain(): override it where the connection does not tell
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from outbox.testing import Captured, Drained, Enqueued


class Outbox:
    """The fixture `outbox`. `mails`: what has been enqueued since the test began."""

    def __init__(self, connection: Any, mails: Captured, url: str) -> None:
        self.connection = connection
        self.mails = mails
        self._url = url

    @property
    def url(self) -> str:
        """Of the database. Raises DatabaseError where neither `outbox_url` nor the connection says it."""
        from outbox.testing.draining import url_of

        return self._url or url_of(self.connection)

    def assert_enqueued(self, **wanted: Any) -> list[Enqueued]:
        """`outbox.testing.assert_enqueued` of `mails`."""
        __tracebackhide__ = True
        from outbox.testing import assert_enqueued

        return assert_enqueued(self.mails, **wanted)

    def drain(self, answers: Mapping[str, str | Sequence[str]] | None = None, **named: Any) -> Drained:
        """`outbox.testing.drain` over the database of the connection. Commit first."""
        from outbox.testing import drain
        from outbox.testing.draining import refuse_uncommitted

        refuse_uncommitted(self.connection)
        return drain(self.url, answers=answers, **named)


@pytest.fixture
def outbox(outbox_connection: Any, outbox_url: str) -> Iterator[Outbox]:
    """What this test enqueues on `outbox_connection`, and a drain() that sends it."""
    from outbox.testing import captured

    with captured(outbox_connection) as mails:
        yield Outbox(outbox_connection, mails, outbox_url)


@pytest.fixture
def outbox_url() -> str:
    """Override it where the connection does not tell. "": ask the connection."""
    return ""


@pytest.fixture
def outbox_connection(_outbox_template: Path, tmp_path: Path) -> Iterator[Any]:
    """A connection to a fresh SQLite database with our tables. Override it with the application's own connection."""
    import sqlite3

    path = tmp_path / "outbox-fixture.db"
    shutil.copyfile(_outbox_template, path)
    connection = sqlite3.connect(path, isolation_level="IMMEDIATE")
    connection.execute("PRAGMA foreign_keys = ON").close()
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture(scope="session")
def _outbox_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from outbox.store.database import connect
    from outbox.store.migrate import apply

    path = tmp_path_factory.mktemp("outbox") / "template.db"
    database = connect(f"sqlite:///{path.as_posix()}")
    try:
        apply(database)
    finally:
        database.close()  # the last connection: the log is folded into the file
    return path
