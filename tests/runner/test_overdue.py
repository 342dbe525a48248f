"""Mail that is kept back by a pause for too long is delayed, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.runner.telling import overdue as overdue_module
from outbox.runner.telling.overdue import Overdue
from outbox.store import accounts, events, leases, senders
from outbox.store.events import Recording
from outbox.store.journal import Act
from outbox.store.rows import moment
from tests.contract.stores import ME, OTHER, register
from tests.runner.applications import clerk_of
from tests.stories import GREYLISTED, Stories

QUIET = Recording(record={"delayed"})


@pytest.fixture
def stories(database_url: str) -> Iterator[Stories]:
    """With a paused account for two senders, and one that is not paused."""
    with Stories(database_url) as opened:
        opened.store.recording = QUIET
        db, act = opened.store.db, Act("olga", opened.store.now(), QUIET)
        with opened.store.transaction():
            for name, addresses in (
                ("main", ("shop@example.com", "été@example.com")),
                ("other", ("news@example.com",)),
            ):
                accounts.add_account(db, Account(name, f"{name}.example.net", 25, Tls.NONE), act)
                for each in addresses:
                    senders.add_sender(db, Sender(each, name), act)
            accounts.pause_account(db, "main", "the relay moves", None, act)
        yield opened


def waiting(stories: Stories, hours: float, **columns: object) -> int:
    """A message that has been due for so long."""
    message_id = stories.mail(**columns)
    due_at = moment(stories.store.now() - timedelta(hours=hours))
    stories.sql("UPDATE outbox_delivery SET due_at = ? WHERE message_id = ?", due_at, message_id)
    return message_id


def look(stories: Stories, *, owner: str = ME, times: int = 1, between: object = None) -> None:
    async def scenario() -> None:
        async with clerk_of(stories.store.url) as clerk:
            overdue = Overdue(clerk, QUIET, owner=lambda: owner)
            for _ in range(times):
                await overdue.tell()
                if callable(between):
                    between()

    asyncio.run(scenario())


def told(stories: Stories) -> list[int | None]:
    return [each.message_id for each in events.listing(stories.store.db)]


def test_what_a_pause_keeps_back_is_delayed_with_what_it_waits_for(stories: Stories) -> None:
    late, letter = waiting(stories, 5), waiting(stories, 5, sender="été@example.com", priority=1)
    waiting(stories, 3)
    waiting(stories, 5, sender="news@example.com")  # nothing keeps it back: a runner is about to send it
    waiting(stories, 5, sender="nobody@example.com")  # it fails when it is tried
    look(stories)
    assert sorted(filter(None, told(stories))) == [late, letter]
    (event,) = events.listing(stories.store.db, message_id=late)
    assert (event.kind, event.reply) == ("delayed", "account main is paused by operator: the relay moves")


def test_each_is_told_once_however_often_one_looks(stories: Stories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue_module, "BATCH", 2)
    first = [waiting(stories, 5) for _ in range(5)]
    more: list[int] = []
    look(stories, times=2, between=lambda: more.append(waiting(stories, 4.5)))
    look(stories)  # a runner that begins anew, when the lease is its own
    assert told(stories) == [*first, *more]


def test_what_was_told_when_it_was_tried_is_not_told_again(stories: Stories) -> None:
    message_id = stories.mail()
    stories.store.recording = Recording(record={"delayed"}, delayed_after=timedelta(0))
    stories.attempt(message_id, GREYLISTED)
    assert told(stories) == [message_id]
    due_at = moment(stories.store.now() - timedelta(hours=5))
    stories.sql("UPDATE outbox_delivery SET due_at = ?", due_at)
    look(stories)
    assert told(stories) == [message_id]


def test_after_a_resume_and_another_pause_one_looks_anew(stories: Stories) -> None:
    db, act = stories.store.db, Act("olga", stories.store.now(), QUIET)
    late, then = waiting(stories, 5), 0

    def repaired_and_broken_again() -> None:
        nonlocal then
        if not then:
            then = waiting(stories, 6)  # due before what has been looked at
            with stories.store.transaction():
                accounts.resume_account(db, "main", act)
        else:
            with stories.store.transaction():
                accounts.pause_account(db, "main", "again", None, act)

    look(stories, times=3, between=repaired_and_broken_again)
    assert told(stories) == [late, then]


def test_only_one_runner_tells(stories: Stories) -> None:
    late = waiting(stories, 5)
    register(stories.store, OTHER)
    with stories.store.transaction():
        leases.take(stories.store.db, "overdue", OTHER, stories.store.now(), timedelta(minutes=3))
    look(stories)
    assert told(stories) == []
    look(stories, owner=OTHER)
    assert told(stories) == [late]


def test_the_priorities_of_many_senders_are_all_looked_at(stories: Stories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue_module, "LANES", 11)
    late = [waiting(stories, 5, priority=priority) for priority in range(10)]
    late += [waiting(stories, 5, sender="été@example.com", priority=priority) for priority in range(10)]
    look(stories)
    assert sorted(filter(None, told(stories))) == late
