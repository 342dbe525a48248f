"""What an operator's command does where another transaction was faster, or holds the lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import peewee
import pytest

from outbox.errors import DatabaseError
from outbox.store import operate
from outbox.store.database import connect
from tests.contract.stores import add, delivery
from tests.statements import rows, run

WHO = "olga"


@pytest.fixture
def here(postgres_url: str) -> Iterator[peewee.Database]:
    opened = connect(postgres_url, application_name="here")
    yield opened
    opened.close()


@pytest.fixture
def there(postgres_url: str) -> Iterator[peewee.Database]:
    opened = connect(postgres_url, application_name="there")
    yield opened
    opened.close()


def waits(database: peewee.Database, name: str) -> bool:
    sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = ? AND wait_event_type = 'Lock'"
    return bool(rows(database, sql, name))


@contextmanager
def beside(what: Callable[[], object]) -> Iterator[None]:
    """`what`, in a thread; its exception is raised at the end."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            what()
        except BaseException as error:  # noqa: BLE001 -- it belongs to the test
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def until(condition: Callable[[], bool]) -> None:
    patience = threading.Event()
    for _ in range(2000):
        if condition():
            return
        patience.wait(0.01)
    raise AssertionError("it never came")


def test_a_deadlock_is_tried_again(here: peewee.Database, there: peewee.Database, postgres_url: str) -> None:
    """Two transactions that wait for each other: PostgreSQL ends ours, whose patience is shorter."""
    first, second = sorted(add(here, 2))
    run(there, "SET deadlock_timeout = '1h'")
    watching = connect(postgres_url)
    here.close()
    done: list[list[operate.Answer]] = []

    def lock(message_id: int) -> None:
        run(there, "SELECT 1 FROM outbox_delivery WHERE message_id = ? FOR UPDATE", message_id)

    def hold() -> None:
        with here.connection_context():  # a connection of this thread's own
            run(here, "SET deadlock_timeout = '200ms'")
            done.append(operate.hold(here, [first, second], who=WHO))

    with there.atomic():
        lock(second)
        with beside(hold):
            until(lambda: waits(watching, "here"))  # it has the first, and waits for the second
            lock(first)
            there.commit()
    watching.close()
    assert [[each.done for each in answers] for answers in done] == [[True, True]]
    assert [delivery(there, each, "state") for each in (first, second)] == [("held",), ("held",)]
    assert rows(there, "SELECT verb, count FROM outbox_journal") == [("hold", 2)]


def refusing(database: peewee.Database, state: str, times: int) -> None:
    """The next writes of operators fail so often with this error, as they do when they meet a row that moves."""
    run(database, "CREATE SEQUENCE tries")
    body = (
        f"IF nextval('tries') <= {times} THEN RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END IF; RETURN NEW;"
    )
    run(database, f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$")
    run(database, "CREATE TRIGGER refuse BEFORE INSERT ON outbox_journal FOR EACH ROW EXECUTE FUNCTION refuse()")


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_race_that_is_lost_is_run_again_four_times(here: peewee.Database, state: str) -> None:
    (message_id,) = add(here)
    refusing(here, state, 4)
    assert [each.done for each in operate.hold(here, [message_id], who=WHO)] == [True]
    assert rows(here, "SELECT last_value FROM tries") == [(5,)]


def test_a_race_that_is_lost_for_ever_is_told(here: peewee.Database) -> None:
    (message_id,) = add(here)
    refusing(here, "40001", 99)
    with pytest.raises(DatabaseError, match="nothing more was changed: refused") as raised:
        operate.hold(here, [message_id], who=WHO)
    assert raised.value.hint == ""
    assert rows(here, "SELECT last_value FROM tries") == [(5,)]
    assert delivery(here, message_id, "state") == ("queued",)


def test_another_error_is_told_at_once(here: peewee.Database) -> None:
    (message_id,) = add(here)
    refusing(here, "53200", 99)  # out of memory
    with pytest.raises(DatabaseError, match="nothing more was changed: refused"):
        operate.hold(here, [message_id], who=WHO)
    assert rows(here, "SELECT last_value FROM tries") == [(1,)]


def test_a_lock_that_stays_taken_is_told_with_what_to_do(sqlite_url: str) -> None:
    holding, database = connect(sqlite_url), connect(sqlite_url, timeout=0.0)
    (message_id,) = add(holding)
    holding.execute_sql("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError, match="nothing more was changed: database is locked") as raised:
        operate.hold(database, [message_id], who=WHO)
    assert raised.value.hint == "another program holds the lock; end that program's transaction"
    holding.execute_sql("ROLLBACK")
    assert [each.done for each in operate.hold(database, [message_id], who=WHO)] == [True]
    holding.close()
    database.close()


def test_a_lock_that_is_let_go_of_is_waited_for(sqlite_url: str) -> None:
    holding, database = connect(sqlite_url), connect(sqlite_url, timeout=0.0)
    (message_id,) = add(holding)
    holding.execute_sql("BEGIN IMMEDIATE")
    refusals: list[str] = []

    def noticed(statement: str) -> None:
        if statement.startswith("BEGIN") and not refusals:
            refusals.append(statement)
        elif refusals and holding.connection().in_transaction:
            holding.execute_sql("ROLLBACK")

    database.connection().set_trace_callback(noticed)
    assert [each.done for each in operate.hold(database, [message_id], who=WHO)] == [True]
    holding.close()
    database.close()
