"""What wakes a runner on SQLite: the doorbell that `enqueue()` rings, and the watch over the database's log."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import peewee
import pytest

from outbox import Mail, enqueue
from outbox.doorbell import LONGEST, ring
from outbox.runner.waking.doorbell import Doorbell
from outbox.runner.waking.logwatch import LogWatch
from outbox.store.database import sqlite_path
from outbox.store.engine import sqlite3
from tests.relay import Relay
from tests.running import Site, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither")

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="nothing else tells of writes")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database in WAL mode, with a table t."""
    return made(tmp_path / "shop.db")


@pytest.fixture
def application(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database)) as connection:
        yield connection


def made(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
    return path


def address(database: Path) -> Path:
    return Path(f"{database}.doorbell")


class Bell:
    """Counts what it hears."""

    def __init__(self) -> None:
        self.heard = 0
        self._told = asyncio.Event()

    def __call__(self) -> None:
        self.heard += 1
        self._told.set()

    async def next(self) -> None:
        async with asyncio.timeout(10):
            await self._told.wait()
        self._told.clear()


# -- ringing


def test_a_ring_is_heard(database: Path, application: sqlite3.Connection) -> None:
    async def hear() -> None:
        bell = Bell()
        doorbell = Doorbell(database, bell)
        doorbell.attend()
        for _ in range(3):
            ring(application)
            await bell.next()
        doorbell.close()

    asyncio.run(hear())

    assert not address(database).exists()


def test_many_rings_in_a_row_neither_block_nor_are_all_heard(database: Path, application: sqlite3.Connection) -> None:
    async def hear() -> int:
        bell = Bell()
        doorbell = Doorbell(database, bell)
        doorbell.attend()
        for _ in range(5000):
            ring(application)
        await bell.next()
        ring(application)
        await bell.next()
        doorbell.close()
        return bell.heard

    assert asyncio.run(hear()) == 2


def test_nobody_needs_to_listen(application: sqlite3.Connection) -> None:
    ring(application)


def test_a_database_in_memory_has_no_bell() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        ring(connection)


def test_a_closed_connection_is_no_trouble(application: sqlite3.Connection) -> None:
    application.close()
    ring(application)


@pytest.mark.parametrize("what", ["a file", "a folder", "a stream", "a loop"])
def test_what_is_no_bell_is_no_trouble(database: Path, application: sqlite3.Connection, what: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        if what == "a file":
            address(database).write_text("mine")
        elif what == "a folder":
            address(database).mkdir()
        elif what == "a stream":
            stream.bind(str(address(database)))
            stream.listen()
        else:
            address(database).symlink_to(address(database))

        before = descriptors()
        for _ in range(5):
            ring(application)

    assert descriptors() <= before | {str(stream.fileno())}


def descriptors() -> set[str]:
    """The open descriptors of this process, where the system shows them."""
    return set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()


def test_a_ring_begins_no_transaction_and_takes_no_lock(database: Path, application: sqlite3.Connection) -> None:
    ring(application)

    assert not application.in_transaction
    with closing(sqlite3.connect(database, timeout=0)) as other:
        other.execute("INSERT INTO t VALUES (1)")


@pytest.mark.parametrize("text", [str, bytes], ids=["str", "bytes"])
def test_the_connection_may_give_rows_and_texts_of_any_kind(
    database: Path, application: sqlite3.Connection, text: type
) -> None:
    application.row_factory = lambda cursor, row: None
    application.text_factory = text

    assert rung(database, application)


def test_a_connection_of_peewee(database: Path) -> None:
    with closing(peewee.SqliteDatabase(str(database))) as application:
        application.connect()
        assert rung(database, application)


def test_a_relative_path_means_the_file_that_was_opened(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(database.parent)
    with closing(sqlite3.connect(database.name)) as application:
        monkeypatch.chdir("/")
        assert rung(database, application)


def test_a_link_to_the_database_has_the_same_bell(database: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(database)

    with closing(sqlite3.connect(database)) as application:
        assert rung(link, application)


def rung(database: Path, application: object) -> bool:
    """Whether the bell that is hung for `database` hears the application."""

    async def hear() -> bool:
        bell = Bell()
        doorbell = Doorbell(database, bell)
        doorbell.attend()
        ring(application)
        with suppress(TimeoutError):
            await bell.next()
        doorbell.close()
        return bool(bell.heard)

    return asyncio.run(hear())


@LINUX
@pytest.mark.parametrize("extra", range(-8, 9, 4))
def test_a_path_that_is_too_long_for_a_socket_goes_by_its_folder(tmp_path: Path, extra: int) -> None:
    folder = tmp_path
    length = LONGEST - len("/shop.db.doorbell") + extra
    while len(str(folder)) < length:
        left = length - len(str(folder)) - 1
        folder /= "x" * (left if 0 < left < 40 else 30)
        folder.mkdir()
    database = made(folder / "shop.db")

    with closing(sqlite3.connect(database)) as application:
        before = descriptors()
        assert rung(database, application)
        assert descriptors() == before


def test_an_application_that_closes_all_it_finds_rings_on(database: Path, application: sqlite3.Connection) -> None:
    """In a process of its own: as a daemon does that begins."""
    ring(application)  # what is inherited is no trouble, too
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            os.closerange(3, 200)
            os.open(os.devnull, os.O_RDONLY)  # as 3, perhaps in place of the bell's
            with closing(sqlite3.connect(database)) as connection:
                ring(connection)
                status = 0 if rung(database, connection) else 2
        os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- whose it is


def test_who_may_write_the_database_may_ring(database: Path) -> None:
    database.chmod(0o660)
    previous = os.umask(0o077)
    try:
        found = asyncio.run(hung(database))
    finally:
        os.umask(previous)

    assert stat.S_IMODE(found.st_mode) == 0o660
    assert (found.st_uid, found.st_gid) == (database.stat().st_uid, database.stat().st_gid)


async def hung(database: Path) -> os.stat_result:
    doorbell = Doorbell(database, Bell())
    doorbell.attend()
    found = address(database).lstat()
    doorbell.close()
    return found


def test_what_a_dead_runner_has_left_is_replaced(database: Path, application: sqlite3.Connection) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(address(database)))

    assert rung(database, application)


def test_a_file_of_that_name_is_left_alone(database: Path, application: sqlite3.Connection) -> None:
    address(database).write_text("mine")

    async def hang() -> None:
        doorbell = Doorbell(database, Bell())
        doorbell.attend()
        doorbell.close()

    asyncio.run(hang())

    assert address(database).read_text() == "mine"


def test_the_second_runner_takes_the_bell_when_the_first_ends(database: Path, application: sqlite3.Connection) -> None:
    async def hear() -> None:
        ears = Bell(), Bell()
        first, second = (Doorbell(database, each) for each in ears)
        first.attend()
        second.attend()
        ring(application)
        await ears[0].next()

        first.close()
        second.attend()
        ring(application)
        await ears[1].next()
        second.close()
        assert (ears[0].heard, ears[1].heard) == (1, 1)

    asyncio.run(hear())


def test_a_bell_that_somebody_took_away_is_hung_again(database: Path, application: sqlite3.Connection) -> None:
    async def hear() -> None:
        bell = Bell()
        doorbell = Doorbell(database, bell)
        doorbell.attend()
        address(database).unlink()
        doorbell.attend()
        ring(application)
        await bell.next()
        doorbell.close()

    asyncio.run(hear())


def test_at_the_end_the_bell_of_another_runner_stays(database: Path) -> None:
    async def end() -> None:
        first, second = Doorbell(database, Bell()), Doorbell(database, Bell())
        first.attend()
        os.rename(address(database), f"{database}.away")  # so that its number is not given to the next one
        second.attend()
        first.close()
        assert address(database).exists()
        second.close()

    asyncio.run(end())


# -- the watch


@LINUX
def test_every_write_of_anybody_is_heard(database: Path, application: sqlite3.Connection) -> None:
    async def hear() -> None:
        bell = Bell()
        watch = LogWatch(database, bell)
        application.execute("SELECT * FROM t").close()  # the log is there while somebody has the database open
        watch.attend()
        proven = [watch.proven]
        for _ in range(3):
            with application:
                application.execute("INSERT INTO t VALUES (1)")
            await bell.next()
            proven.append(watch.proven)
        watch.close()
        assert proven == [False, True, True, True]

    asyncio.run(hear())


@LINUX
def test_a_log_that_is_made_anew_is_watched_anew(database: Path) -> None:
    async def hear() -> None:
        bell = Bell()
        watch = LogWatch(database, bell)
        watch.attend()  # there is none
        for _ in range(2):
            with closing(sqlite3.connect(database, isolation_level=None)) as connection:
                connection.execute("SELECT * FROM t").close()
                watch.attend()
                connection.execute("INSERT INTO t VALUES (1)")
                await bell.next()
            watch.attend()
            assert not watch.proven
        watch.close()

    before = descriptors()
    asyncio.run(hear())
    assert descriptors() == before


# -- a runner


def test_a_runner_hangs_a_bell_and_takes_it_away(sqlite_site: Site) -> None:
    place = address(Path(sqlite_path(sqlite_site.url)))
    with Relay() as relay:
        sqlite_site.register(relay.port)
        with sqlite_site.run("-q") as runner:
            eventually(place.exists, "a doorbell")
            for turn in range(1, 4):
                with sqlite_site.db.atomic():
                    enqueue(sqlite_site.db, Mail(sender="shop@example.com", to="ann@example.net", text="Thanks"))
                relay.wait(turn)
            runner.stop()
            assert runner.wait() == 0
        assert not place.exists()
        sqlite_site.until(sent=3)
