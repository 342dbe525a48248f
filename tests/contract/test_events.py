"""Events: written in the transaction of what happened, once, and told to whom they are due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import peewee
import psycopg
import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.core.lifecycle import State
from outbox.core.outcome import Stage
from outbox.core.reply import Reply
from outbox.core.settlement import Claim, Policy, Result, expire, relinquish
from outbox.store import Mark, Store, accounts, events, operate, senders
from outbox.store.database import dialect
from outbox.store.events import Channel, Event, Kind, Recording
from outbox.store.journal import Act
from outbox.store.rows import moment
from tests.contract.stores import (
    LATER,
    ME,
    NOW,
    SHOP,
    SURVIVOR,
    add,
    bury,
    claim,
    deferred,
    register,
    sent,
    settle,
    write,
)
from tests.statements import one, run
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, SPAM, Stories


def told(database: peewee.Database, **which: Any) -> list[tuple[Any, ...]]:
    """(kind, message, claim, code, status, reply) of every event."""
    found = events.listing(database, **which)
    return [(str(each.kind), each.message_id, each.claim_no, each.code, each.status, each.reply) for each in found]


def kinds(database: peewee.Database) -> list[str]:
    return [str(each.kind) for each in events.listing(database)]


# ---- what becomes an event


def test_a_message_that_is_sent_is_accepted_with_the_relays_words(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (claimed,) = claim(store)
    settle(store, sent(claimed))
    assert told(database) == [("accepted", message_id, 1, 250, "2.0.0", "queued as 4X")]
    (event,) = events.listing(database)
    assert (event.at, event.subject) == (NOW, None)


def test_a_result_that_is_written_twice_is_told_once(store: Store, database: peewee.Database) -> None:
    """The COMMIT was done, and its acknowledgement got lost."""
    add(database)
    (claimed,) = claim(store)
    settle(store, sent(claimed))
    settle(store, sent(claimed))
    assert kinds(database) == ["accepted"]


def test_a_result_that_is_rolled_back_is_not_told(store: Store, database: peewee.Database) -> None:
    add(database)
    (claimed,) = claim(store)

    def fail() -> None:
        store.settle([sent(claimed)], NOW)
        raise KeyError

    with pytest.raises(KeyError):
        write(store, fail)
    assert kinds(database) == []


def test_many_results_are_each_told_in_their_order(store: Store, database: peewee.Database) -> None:
    ids = add(database, 55)  # more than go into two statements, and some over
    settle(store, *map(sent, claim(store)))
    assert [each.message_id for each in events.listing(database)] == ids


def test_a_refused_message_is_bounced_and_one_given_up_expired(stories: Stories) -> None:
    refused, late = stories.mail(), stories.mail()
    stories.attempt(refused, SPAM)
    stories.attempt(late, GREYLISTED, policy=Policy(max_age=timedelta(0)))
    assert told(stories.store.db) == [
        ("bounced", refused, 1, 554, "5.7.1", "looks like spam"),
        ("expired", late, 1, 451, "4.7.1", "greylisted, try again later"),
    ]


def test_some_refused_and_some_accepted_is_bounced(stories: Stories) -> None:
    message_id = stories.mail(recipients="ann@example.net, bob@example.net")
    stories.attempt(message_id, OK, [OK, NO_SUCH_USER])
    assert told(stories.store.db) == [("bounced", message_id, 1, 550, "5.1.1", "no such user here")]


def test_what_expires_untried_says_the_last_reply(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database)
    (first,) = claim(store)
    settle(store, replace(deferred(first), due_at=NOW))
    (again,) = claim(store)
    settle(store, expire(again))
    assert told(database) == [("expired", message_id, 2, 450, "4.2.0", "greylisted")]


def test_what_expires_while_it_waits_is_told_in_the_order_of_its_ids(store: Store, database: peewee.Database) -> None:
    past = (NOW - timedelta(minutes=1)).isoformat()
    ids = add(database, 3, expires_at=past)
    assert write(store, lambda: store.expire(NOW)) == 3
    assert told(database) == [("expired", each, 0, None, None, None) for each in ids]


@pytest.mark.parametrize("on_doubt", ["retry", "hold"])
def test_silence_after_the_dot_is_a_doubt(stories: Stories, on_doubt: str) -> None:
    message_id = stories.mail(on_doubt=on_doubt)
    stories.attempt(message_id, None)
    assert told(stories.store.db) == [("doubt", message_id, 1, None, None, "no reply")]


def test_a_runner_that_dies_after_the_dot_mark_is_a_doubt_and_before_it_nothing(
    store: Store, database: peewee.Database
) -> None:
    dotted, _ = add(database, 2)
    claim(store)
    write(store, lambda: store.mark([Mark(dotted, 1)], NOW))
    bury(store, ME)
    register(store, SURVIVOR)
    assert len(write(store, lambda: store.reclaim(3, NOW))) == 2
    assert [(kind, message_id, claim_no) for kind, message_id, claim_no, *_ in told(database)] == [("doubt", dotted, 1)]


def test_a_late_acceptance_is_accepted_after_the_doubt(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database, on_doubt="hold")
    (claimed,) = claim(store)
    write(store, lambda: store.mark([Mark(message_id, 1)], NOW))
    bury(store, ME)
    write(store, lambda: store.reclaim(3, NOW))
    settle(store, sent(claimed))
    settle(store, sent(claimed))  # its acknowledgement was lost
    assert [row[:3] for row in told(database)] == [("doubt", message_id, 1), ("accepted", message_id, 2)]


def test_a_late_acceptance_of_some_is_not_the_end(store: Store, database: peewee.Database) -> None:
    (message_id,) = add(database, recipients="ann@example.net, bob@example.net")
    (claimed,) = claim(store)
    write(store, lambda: store.mark([Mark(message_id, 1)], NOW))
    bury(store, ME)
    write(store, lambda: store.reclaim(3, NOW))
    settle(store, sent(claimed, state=State.QUEUED, result=Result.DEFERRED, due_at=LATER))
    assert kinds(database) == ["doubt"]


def test_what_is_given_back_untried_is_no_event(store: Store, database: peewee.Database) -> None:
    add(database)
    (claimed,) = claim(store)
    settle(store, relinquish(claimed))
    assert kinds(database) == []


def test_what_an_operator_resolves_is_told(stories: Stories) -> None:
    held, mixed, again = (stories.mail(on_doubt="hold", recipients="a@example.net, b@example.net") for _ in range(3))
    for each, first in ((held, OK), (mixed, NO_SUCH_USER), (again, OK)):
        stories.attempt(each, None, [first, OK])
    before = events.latest(stories.store.db)
    hears = Recording(webhook={"accepted"}, notices={"bounced"})
    operate.resolve(stories.store.db, [held, mixed], sent=True, who="olga", recording=hears)
    operate.resolve(stories.store.db, [again], sent=False, who="olga")
    found = sorted(told(stories.store.db, since=before), key=lambda row: row[1])
    assert found == [
        ("accepted", held, 2, None, None, "resolved by olga"),
        ("bounced", mixed, 2, None, None, "resolved by olga"),
    ]
    assert [each.message_id for each in events.due(stories.store.db, Channel.WEBHOOK, 9)] == [held]
    assert [each.message_id for each in events.due(stories.store.db, Channel.NOTICES, 9)] == [mixed]


# ---- delayed


def age(database: peewee.Database, hours: float) -> None:
    """Let every message have been tried for the first time so long ago."""
    first = moment(NOW - timedelta(hours=hours))
    run(database, "UPDATE outbox_delivery SET first_attempt_at = ? WHERE first_attempt_at IS NOT NULL", first)
    run(database, "UPDATE outbox_attempt SET started_at = ?", first)


@pytest.mark.parametrize("paused", [False, True])
def test_a_message_is_delayed_once_when_it_is_deferred_for_too_long(
    store: Store, database: peewee.Database, paused: bool
) -> None:
    (message_id,) = add(database)
    seen = []
    for hours in (0.0, 3.9, 4.1, 9.0):
        (claimed,) = claim(store)
        again = replace(deferred(claimed), due_at=NOW)
        age(database, hours)
        settle(store, replace(again, result=Result.PAUSED) if paused else again)
        seen.append(told(database))
    late = ("delayed", message_id, 3, 450, "4.2.0", "greylisted")
    assert seen == [[], [], [late], [late]]


def test_when_a_message_is_delayed_is_a_setting(store: Store, database: peewee.Database) -> None:
    add(database)
    store.recording = Recording(delayed_after=timedelta(minutes=30))
    for hours in (0.0, 0.6):
        (claimed,) = claim(store)
        age(database, hours)
        settle(store, replace(deferred(claimed), due_at=NOW))
    assert kinds(database) == ["delayed"]


def test_what_an_operator_retries_begins_a_new_age(stories: Stories) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, SPAM)
    age(stories.store.db, 100)
    operate.retry(stories.store.db, [message_id], who="olga")
    stories.attempt(message_id, GREYLISTED)
    assert kinds(stories.store.db) == ["bounced"]


# ---- paused


BAD_PASSWORD = Reply(535, "5.7.8", "bad credentials")


def with_account(stories: Stories) -> peewee.Database:
    db = stories.store.db
    account = Account("main", "mx.example.net", 25, Tls.NONE, credential_version=0)  # as Stories has it
    with stories.store.transaction():
        accounts.add_account(db, account, Act("olga", NOW))
        senders.add_sender(db, Sender("shop@example.com", "main"), Act("olga", NOW))
    return db


def test_a_pause_is_told_once_with_the_settlement_that_met_the_fault(stories: Stories) -> None:
    db = with_account(stories)
    stories.store.recording = Recording(webhook={"paused"})
    for _ in range(2):
        stories.attempt(stories.mail(), BAD_PASSWORD, stage=Stage.AUTH)
    (event,) = events.listing(db)
    assert (event.kind, event.subject, event.message_id) == (Kind.PAUSED, "account=main", None)
    assert "535 5.7.8 bad credentials" in (event.reply or "")
    assert events.due(db, Channel.WEBHOOK, 9) == [event]


def test_a_sender_that_a_person_pauses_is_told(stories: Stories) -> None:
    db = with_account(stories)
    with stories.store.transaction():
        senders.pause_sender(db, "shop@example.com", "the shop is closed", None, Act("olga", NOW))
    assert [(each.kind, each.subject) for each in events.listing(db)] == [(Kind.PAUSED, "sender=shop@example.com")]


# ---- which, and for whom


def test_only_the_kinds_that_are_wanted_are_recorded(store: Store, database: peewee.Database) -> None:
    add(database, 2)
    store.recording = Recording(record={"bounced"})
    first, second = claim(store)
    settle(store, sent(first))
    assert kinds(database) == []
    store.recording = Recording(record=(), webhook={"accepted"})
    settle(store, sent(second))
    assert kinds(database) == ["accepted"]


def test_an_event_is_due_where_its_kind_is_wanted_until_it_was_heard(store: Store, database: peewee.Database) -> None:
    add(database, 3)
    store.recording = Recording(webhook={"accepted"}, notices={"bounced"})
    settle(store, *map(sent, claim(store)))
    first, second, third = events.listing(database)
    assert events.due(database, Channel.NOTICES, 9) == []
    assert events.due(database, Channel.WEBHOOK, 2) == [first, second]
    events.heard(database, Channel.WEBHOOK, [first.id, third.id])
    assert events.due(database, Channel.WEBHOOK, 9) == [second]


def test_events_are_read_in_order_from_where_one_stopped(stories: Stories) -> None:
    db, good, bad = stories.store.db, stories.mail(), stories.mail()
    stories.attempt(good, OK)
    stories.attempt(bad, SPAM)
    one_, two = events.listing(db)
    assert (one_.id < two.id, events.latest(db)) == (True, two.id)
    assert events.listing(db, since=one_.id) == [two]
    assert events.listing(db, kinds=["accepted"]) == [one_]
    assert events.listing(db, message_id=bad) == [two]
    assert events.listing(db, limit=1) == [one_]


def test_what_waits_for_its_turn_is_found_by_the_partial_index(database: peewee.Database) -> None:
    if dialect(database) == "postgres":
        run(database, "SET enable_seqscan = off")
    for flag in ("webhook_due", "notice_due"):
        still = f"{flag} = 1" if dialect(database) == "sqlite" else flag
        plan = "EXPLAIN QUERY PLAN " if dialect(database) == "sqlite" else "EXPLAIN "
        found = run(database, f"{plan}SELECT id FROM outbox_event WHERE {still} ORDER BY id LIMIT 9").fetchall()
        assert f"outbox_event_{flag.partition('_')[0]}" in str(found)


# ---- forgetting


def recorded(database: peewee.Database, count: int, days: int) -> list[Event]:
    at = NOW - timedelta(days=days)
    messages = [(each, 1) for each in range(1, count + 1)]
    events.record(database, Recording(), Kind.ACCEPTED, at, messages=messages, words=(250, None, "ok"))
    return events.listing(database)


def test_old_events_are_forgotten_in_batches_and_the_newest_stays(database: peewee.Database) -> None:
    *old, newest = recorded(database, 7, days=31)
    before = NOW - timedelta(days=30)
    assert [events.forget(database, before, 4) for _ in range(3)] == [4, 2, 0]
    assert events.listing(database) == [newest]
    fresh = [each for each in recorded(database, 2, days=1) if each.id > newest.id]
    assert min(each.id for each in fresh) > max(each.id for each in old)
    assert events.forget(database, before) == 1
    assert events.listing(database) == fresh


def test_what_a_relay_said_of_erased_mail_is_erased(database: peewee.Database) -> None:
    recorded(database, 2, days=1)
    events.erase(database, [1])
    assert [each.reply for each in events.listing(database)] == [None, "ok"]


def test_the_events_of_a_deleted_message_go_with_it(stories: Stories) -> None:
    kept, deleted = stories.mail(), stories.mail()
    stories.attempt(deleted, OK)
    stories.attempt(kept, OK)
    stories.sql("DELETE FROM outbox WHERE id = ?", deleted)
    assert [each.message_id for each in events.listing(stories.store.db)] == [kept]


def test_no_event_ever_gets_the_id_of_a_deleted_one(stories: Stories) -> None:
    stories.store.recording = Recording(webhook={"accepted"})
    db, deleted, other = stories.store.db, stories.mail(), stories.mail()
    stories.attempt(deleted, OK)
    last = events.latest(db)
    stories.sql("DELETE FROM outbox WHERE id = ?", deleted)
    assert [each.reply for each in events.listing(db)] in ([], [None])
    assert events.due(db, Channel.WEBHOOK, 9) == []
    stories.attempt(other, OK)
    (event,) = events.listing(db, since=last)
    assert event.message_id == other


# ---- PostgreSQL


def test_a_listener_is_told_once_a_transaction(postgres_url: str) -> None:
    with Stories(postgres_url) as stories, psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute("LISTEN outbox_event")
        stories.mail()
        ids = [stories.mail() for _ in range(3)]
        for each in ids:
            stories.claim(each)
        settlements = [sent(Claim(each, 1, SHOP)) for each in ids]
        with stories.store.transaction():
            stories.store.settle(settlements, NOW)
        assert len(list(listener.notifies(timeout=5, stop_after=1))) == 1
        assert list(listener.notifies(timeout=0.2)) == []
        assert one(stories.store.db, "SELECT count(*) FROM outbox_event") == 3
