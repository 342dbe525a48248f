"""The listener of a runner on PostgreSQL: its lock, its connection that breaks, and which errors pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import peewee
import psycopg
import pytest
from psycopg import errors

from outbox.store import TransientError
from outbox.store import listener as module
from outbox.store.database import connect
from outbox.store.listener import Listener, advisory_key, translated
from tests.contract.stores import ME, OTHER
from tests.running import eventually
from tests.statements import one, rows, run

SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox listener' AND datname = current_database()"
)


class Ears:
    """What a listener tells its runner."""

    def __init__(self) -> None:
        self.heard = 0
        self.lost = 0

    def notified(self) -> None:
        self.heard += 1

    def disconnected(self) -> None:
        self.lost += 1


@pytest.fixture
def database(postgres_url: str) -> Iterator[peewee.Database]:
    with closing(connect(postgres_url)) as database:
        yield database


@pytest.fixture
def ears() -> Ears:
    return Ears()


@pytest.fixture
def listener(postgres_url: str, ears: Ears) -> Iterator[Listener]:
    listener = Listener(postgres_url, ears.notified, ears.disconnected)
    yield listener
    listener.release()


def sessions(database: peewee.Database) -> list[int]:
    return [pid for (pid,) in rows(database, SESSIONS)]


def is_free(database: peewee.Database, runner: str) -> bool:
    return bool(one(database, "SELECT pg_try_advisory_xact_lock(?)", advisory_key(runner)))


def test_the_lock_is_a_number_of_63_bits_from_the_random_id() -> None:
    assert advisory_key("f" * 32) == 2**63 - 1
    assert advisory_key("0" * 15 + "2" + "f" * 16) == 1
    assert advisory_key("0" * 16 + "f" * 16) == 0


def test_a_lock_that_is_held_is_not_taken_and_nothing_stays_open(
    database: peewee.Database, listener: Listener, postgres_url: str
) -> None:
    with closing(connect(postgres_url)) as holder:
        run(holder, "SELECT pg_advisory_lock(?)", advisory_key(ME))
        with pytest.raises(TransientError, match="still held"):
            listener.take(ME)
        eventually(lambda: sessions(database) == [], "the connection is closed")
    eventually(lambda: is_free(database, ME), "it is free again")
    listener.take(ME)
    assert not is_free(database, ME)
    assert is_free(database, OTHER)


def test_a_connection_that_breaks_is_told_and_made_anew_with_its_lock(
    database: peewee.Database, listener: Listener, ears: Ears
) -> None:
    listener.take(ME)
    (first,) = sessions(database)
    run(database, "SELECT pg_terminate_backend(?)", first)
    eventually(lambda: ears.lost == 1, "it is told")
    eventually(lambda: ears.heard == 1, "whatever was not announced meanwhile is looked for")
    (second,) = sessions(database)
    assert second != first
    assert not is_free(database, ME)
    run(database, "SELECT pg_notify('outbox', '')")
    eventually(lambda: ears.heard == 2, "it listens")
    assert ears.lost == 1
    listener.release()
    eventually(lambda: sessions(database) == [], "the connection is closed")


def test_it_tries_until_its_lock_is_free(
    database: peewee.Database, listener: Listener, ears: Ears, postgres_url: str
) -> None:
    """Whoever has it meanwhile: our own session, as far as the server knows."""
    listener.take(ME)
    (first,) = sessions(database)
    waiting = threading.Thread(target=lambda: _lock(postgres_url, first))
    waiting.start()
    eventually(lambda: ears.lost == 1, "it is told")
    eventually(lambda: not sessions(database), "it has been turned away")
    assert ears.heard == 0
    waiting.join()
    eventually(lambda: ears.heard == 1, "it is back")
    assert not is_free(database, ME)


def _lock(url: str, victim: int) -> None:
    """Take ME's lock in the moment in which its session ends, and keep it for as long as a second look takes."""
    with closing(connect(url)) as opened:
        run(opened, "SELECT pg_terminate_backend(?), pg_advisory_lock(?)", victim, advisory_key(ME))
        threading.Event().wait(1.0)


def test_released_while_it_is_cut_off_it_ends(
    database: peewee.Database, listener: Listener, ears: Ears, postgres_server: str
) -> None:
    listener.take(ME)
    (first,) = sessions(database)
    name = one(database, "SELECT current_database()")
    with closing(connect(postgres_server)) as outside:
        run(outside, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        run(outside, "SELECT pg_terminate_backend(?)", first)
        eventually(lambda: ears.lost == 1, "it is told")
        listener.release()
        assert not [each for each in threading.enumerate() if each.name == "outbox-listener"]
        assert (ears.lost, ears.heard) == (1, 0)


def wrapped(origin: psycopg.Error) -> peewee.PeeweeException:
    """As peewee raises it."""
    error = peewee.OperationalError("refused")
    error.__cause__ = origin
    return error


class Timeout(psycopg.InternalError):
    sqlstate = "25P04"


class Idle(psycopg.InternalError):
    sqlstate = "25P03"


class Internal(psycopg.InternalError):
    sqlstate = "XX000"


PASSING = [
    (errors.SerializationFailure(), False),
    (errors.DeadlockDetected(), False),
    (errors.LockNotAvailable(), False),
    (errors.QueryCanceled(), False),
    (errors.DiskFull(), False),
    (errors.OutOfMemory(), False),
    (errors.ReadOnlySqlTransaction(), True),
    (errors.AdminShutdown(), True),
    (psycopg.OperationalError("the connection is lost"), True),
    (psycopg.InterfaceError("the connection is closed"), True),
    (Timeout(), True),
    (Idle(), True),
]


@pytest.mark.parametrize(("origin", "reconnect"), PASSING, ids=[type(each).__name__ for each, _ in PASSING])
def test_an_error_that_passes_says_whether_to_connect_anew(origin: psycopg.Error, reconnect: bool) -> None:
    for error in (origin, wrapped(origin)):
        with pytest.raises(TransientError) as raised, translated():
            raise error
        assert raised.value.reconnect is reconnect


@pytest.mark.parametrize("origin", [errors.UndefinedTable(), errors.InsufficientPrivilege(), Internal()])
def test_an_error_that_stays_is_raised_as_it_is(origin: psycopg.Error) -> None:
    for error in (origin, wrapped(origin), peewee.IntegrityError("no origin")):
        with pytest.raises(type(error)) as raised, translated():
            raise error
        assert raised.value is error


# -- a listener that cannot vacuum


def test_an_error_of_the_vacuum_is_none_of_the_listener(
    database: peewee.Database, listener: Listener, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAY_TEND", "SELECT 1 / 0 -- {maintains}")
    listener.take(ME)
    run(database, "SELECT pg_notify('outbox', '')")
    eventually(lambda: ears.heard == 1, "it listens")
    assert ears.lost == 0


def test_a_connection_that_breaks_while_it_vacuums_is_told(
    listener: Listener, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAY_TEND", "SELECT pg_terminate_backend(pg_backend_pid()) -- {maintains}")
    listener.take(ME)
    eventually(lambda: ears.lost, "it is told")
    monkeypatch.undo()
    eventually(lambda: ears.heard, "it is back")


def test_one_that_breaks_while_it_is_released_is_not_told(
    database: peewee.Database, listener: Listener, ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeping = "SELECT pg_sleep(0.3), pg_terminate_backend(pg_backend_pid()) -- {maintains}"
    monkeypatch.setattr(module, "_MAY_TEND", sleeping)
    listener.take(ME)
    sql = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
    eventually(lambda: run(database, sql).fetchone(), "it vacuums")
    listener.release()
    assert (ears.lost, ears.heard) == (0, 0)
