"""Filters, large batches, the journal, and operators who meet runners and applications; over both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import peewee

from outbox.core.lifecycle import State, Verb
from outbox.core.outcome import Stage
from outbox.core.settlement import refuse
from outbox.store import operate
from outbox.store.database import connect, sqlite_path
from outbox.store.engine import sqlite3
from outbox.store.filters import Filter
from outbox.store.operate import Answer
from tests.stories import OK, SPAM, Stories

WHO = "olga"


def test_a_filter_takes_the_messages_that_match(stories: Stories, db: peewee.Database) -> None:
    mine = [stories.mail(sender="News@Example.com") for _ in range(3)]
    other, waiting = stories.mail(), stories.mail(sender="news@example.com")
    for message_id in (*mine, other):
        stories.attempt(message_id, SPAM)
    answers = operate.retry(db, Filter(states=(State.FAILED,), sender="news@example.com", code="5.7.1"), who=WHO)
    assert [each.message_id for each in answers] == mine
    assert stories.states(other, waiting) == ["failed", "queued"]


def test_a_filter_without_states_retries_the_dead_and_leaves_the_held(stories: Stories, db: peewee.Database) -> None:
    held, failed = stories.mail(), stories.mail()
    operate.hold(db, [held], who=WHO)
    stories.attempt(failed, SPAM)
    assert operate.matching(db, Verb.RETRY, Filter(tag="")) == [failed]
    assert [each.message_id for each in operate.retry(db, Filter(), who=WHO)] == [failed]


def test_a_filter_never_reaches_a_state_that_its_verb_may_not_touch(stories: Stories, db: peewee.Database) -> None:
    sent = stories.mail()
    stories.attempt(sent, OK)
    assert operate.cancel(db, Filter(states=(State.SENT,)), who=WHO) == []


def test_a_large_batch_is_complete_and_one_line_of_the_journal(stories: Stories, db: peewee.Database) -> None:
    count = operate.CHUNK * 2 + 1
    with stories.store.transaction():
        for _ in range(count):
            stories.mail(sender="bulk@example.com")
    answers = operate.hold(db, Filter(sender="bulk@example.com"), who=WHO, reason="wrong price")
    assert sum(each.done for each in answers) == count
    assert _journal(stories) == [("olga", "hold", "sender=bulk@example.com", count, "wrong price")]


def test_the_journal_says_who_did_what_to_which(stories: Stories, db: peewee.Database) -> None:
    ids = [stories.mail() for _ in range(4)]
    operate.cancel(db, [ids[0], ids[1], ids[3], 99], who=WHO)
    operate.retry(db, Filter(states=(State.FAILED,), code="550"), who="ivan")
    assert _journal(stories) == [
        ("olga", "cancel", f"id={ids[0]}-{ids[1]},{ids[3]},99", 3, None),
        ("ivan", "retry", "state=failed code=550", 0, None),
    ]


def test_a_long_list_of_ids_stays_a_line(stories: Stories, db: peewee.Database) -> None:
    operate.cancel(db, range(1, 1000, 2), who=WHO)
    ((_, _, text, _, _),) = _journal(stories)
    assert len(text) < 210
    assert text.endswith(",…")


def test_an_application_gets_its_turn_during_a_large_batch(sqlite_url: str) -> None:
    """With SQLite's own busy handler and the default timeout, which looks at the lock ever more rarely."""
    with Stories(sqlite_url) as stories, stories.store.transaction():
        for _ in range(operate.CHUNK * 20):
            stories.mail(sender="bulk@example.com")
    db = connect(sqlite_url)
    done = Event()
    with ThreadPoolExecutor(1) as pool:
        application = pool.submit(_insert_until, done, sqlite_path(sqlite_url))
        try:
            answers = operate.hold(db, Filter(sender="bulk@example.com"), who=WHO)
        finally:
            done.set()
            db.close()
        inserted = application.result()
    assert len(answers) == operate.CHUNK * 20
    assert inserted > 3


def _insert_until(done: Event, path: str) -> int:
    """An application's INSERTs, one transaction each; any error of theirs is raised here."""
    connection = sqlite3.connect(path)
    inserted = 0
    while not done.wait(0.001):
        with connection:
            connection.execute(
                "INSERT INTO outbox (sender, recipients, text_body) VALUES ('a@example.com', 'b@example.net', 'x')"
            )
        inserted += 1
    connection.close()
    return inserted


def test_a_row_on_its_way_to_another_partition_is_looked_at_again(postgres_url: str) -> None:
    """The operator waits for the runner's lock; the runner settles, and its row is then in another partition, which
    PostgreSQL reports as a serialization failure.
    """
    with Stories(postgres_url) as runner, Stories(postgres_url) as onlooker:
        message_id = runner.mail()
        claim = runner.claim(message_id)
        with ThreadPoolExecutor(1) as pool:
            with runner.store.transaction():
                now = runner.store.now()
                runner.store.settle([refuse(claim, Stage.POLICY, "5.7.1", "sender not registered")], now)
                operator = pool.submit(_cancel, postgres_url, message_id)
                while not onlooker.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                    assert not operator.done()
            answers = operator.result()
    assert answers == [Answer(message_id, False, "is failed: only queued or held messages can be cancelled")]


def _cancel(url: str, message_id: int) -> list[Answer]:
    db = connect(url)
    try:
        return operate.cancel(db, [message_id], who=WHO)
    finally:
        db.close()


def _journal(stories: Stories) -> list[tuple[Any, ...]]:
    return stories.sql("SELECT who, verb, filter, count, detail FROM outbox_journal ORDER BY id")
