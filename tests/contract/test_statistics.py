"""Numbers over all messages, and what doctor asks a database; over both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.store import engine, health
from outbox.store.filters import written
from outbox.store.statistics import By, percentile, statistics
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, Stories

# -- numbers


def test_the_numbers_are_those_of_what_waits_and_what_ended(stories: Stories, db: peewee.Database) -> None:
    stories.one_of_each()
    numbers = statistics(db)
    waiting = numbers.waiting
    assert (waiting.due, waiting.scheduled, waiting.deferred, waiting.sending, waiting.held) == (1, 1, 1, 1, 1)
    assert waiting.oldest_due_at is not None
    assert numbers.window == numbers.last_hour
    ended = numbers.window
    assert (ended.sent, ended.failed, ended.expired, ended.cancelled, ended.doubts) == (1, 1, 1, 1, 0)
    assert numbers.latency.count == 1
    assert numbers.latency.p50 is not None
    assert 0 <= numbers.latency.p50 < 60


def test_what_ended_before_the_window_is_not_counted(stories: Stories, db: peewee.Database) -> None:
    stories.attempt(stories.mail(), OK)
    stories.sql("UPDATE outbox_delivery SET final_at = ?", written(datetime.now(UTC) - timedelta(hours=2)))
    numbers = statistics(db, since=timedelta(minutes=30))
    assert (numbers.window.sent, numbers.last_hour.sent, numbers.latency.p50) == (0, 0, None)
    assert statistics(db, since=timedelta(hours=3)).window.sent == 1


def test_a_doubt_is_counted_when_it_arises(stories: Stories, db: peewee.Database) -> None:
    stories.attempt(stories.mail(), None)
    assert statistics(db).window.doubts == 1


def test_the_time_a_mail_was_scheduled_for_is_not_counted_as_waiting(stories: Stories, db: peewee.Database) -> None:
    now = datetime.now(UTC)
    created, due_at = now - timedelta(days=1), now - timedelta(seconds=10)
    stories.attempt(stories.mail(created_at=created.isoformat(), due_at=due_at.isoformat()), OK)
    latency = statistics(db).latency
    assert latency.p95 is not None
    assert 9 < latency.p95 < 100


@pytest.mark.parametrize(("values", "share", "found"), [([], 0.5, None), ([1.0], 0.95, 1.0), ([1.0, 2.0], 0.5, 1.0)])
def test_a_percentile_is_a_value_that_occurred(values: list[float], share: float, found: float | None) -> None:
    assert percentile(values, share) == found


def test_the_95th_of_a_hundred_is_the_95th() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.95) == 95.0


def test_numbers_by_sender_code_and_day(stories: Stories, db: peewee.Database) -> None:
    stories.attempt(stories.mail(sender="a@example.com"), OK)
    stories.attempt(stories.mail(sender="a@example.com"), None, [NO_SUCH_USER])
    stories.attempt(stories.mail(sender="b@example.com"), GREYLISTED)
    by_sender = statistics(db, by=By.SENDER).lines
    assert [(row["sender"], row["sent"], row["failed"], row["waiting"]) for row in by_sender] == [
        ("a@example.com", 1, 1, 0),
        ("b@example.com", 0, 0, 1),
    ]
    by_code = statistics(db, by=By.CODE).lines
    assert [(row["code"], row["status"], row["dead"], row["waiting"]) for row in by_code] == [
        (451, "4.7.1", 0, 1),
        (550, "5.1.1", 1, 0),
    ]
    (day,) = statistics(db, by=By.DAY).lines
    assert (day["day"], day["sent"], day["failed"]) == (datetime.now(UTC).date().isoformat(), 1, 1)


# -- health


def test_the_queue_tells_what_is_due_held_stuck_and_far_away(stories: Stories, db: peewee.Database) -> None:
    stories.mail()
    stories.mail(due_at=(datetime.now(UTC) + timedelta(days=40)).isoformat())
    stories.claim(stories.mail())  # by a runner that has no row: it is stuck
    doubtful = stories.mail(on_doubt="hold")
    stories.attempt(doubtful, None)
    queue = health.queue(db)
    assert (queue.due, queue.held, queue.in_doubt, queue.stuck, queue.far) == (1, 1, 1, 1, 1)
    assert queue.oldest_due_at is not None


def test_only_runners_that_nobody_declared_dead_are_listed(stories: Stories, db: peewee.Database) -> None:
    now = datetime.now(UTC)
    for name, lease, dead_at in (("a", 60, None), ("b", -60, None), ("c", 60, now)):
        stories.sql(
            "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until, dead_at)"
            " VALUES (?, 'web1', 7, '0.1', ?, ?, ?)",
            name,
            written(now),
            written(now + timedelta(seconds=lease)),
            dead_at and written(dead_at),
        )
    assert {each.id: each.alive for each in health.runners(db)} == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("version", "bad"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version: tuple[int, int, int], *, bad: bool) -> None:
    assert engine.has_wal_reset_bug(version) is bad


def test_the_clock_of_sqlite_is_that_of_its_host(db: peewee.Database) -> None:
    skew = health.skew(db, datetime.now(UTC) + timedelta(hours=1))
    expected = timedelta(0) if isinstance(db, peewee.SqliteDatabase) else timedelta(hours=1)
    assert abs(skew - expected) < timedelta(seconds=30)
