"""A filter is answered in parts: together they find each message once, and all of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.lifecycle import State, Verb
from outbox.store import audit, operate
from outbox.store.filters import Filter
from tests.statements import rows
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, SPAM, Stories


def listed(db: peewee.Database, which: Filter, limit: int = 50) -> list[int]:
    return [line.id for line in audit.listing(db, which, limit=limit)]


def test_the_newest_of_several_states_are_the_newest_of_all(stories: Stories, db: peewee.Database) -> None:
    ids = [stories.mail() for _ in range(6)]
    for each, end in zip(ids, (SPAM, OK, SPAM, OK, SPAM, OK), strict=True):
        stories.attempt(each, end)
    which = Filter(states=("failed", "sent"))
    assert listed(db, which) == ids[::-1]
    assert listed(db, which, limit=3) == ids[:2:-1]
    assert audit.counts(db, which) == {State.SENT: 3, State.FAILED: 3}


def test_what_is_queued_for_later_is_found_once(stories: Stories, db: peewee.Database) -> None:
    later = stories.mail(due_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    assert listed(db, Filter(states=("queued", "scheduled"))) == [later]
    assert audit.counts(db, Filter(states=("scheduled", "queued", "deferred"))) == {State.QUEUED: 1}


def test_who_was_tried_and_is_named_is_found_once(stories: Stories, db: peewee.Database) -> None:
    deferred, untried, elsewhere = (stories.mail(), stories.mail(), stories.mail(recipients="bob@example.net"))
    stories.attempt(deferred, GREYLISTED)
    which = Filter(recipient="ann@example.net")
    assert listed(db, which) == [untried, deferred]
    assert elsewhere not in listed(db, which)
    assert audit.counts(db, which) == {State.QUEUED: 2}


def test_who_was_not_tried_is_found_by_name_however_the_mail_ended(stories: Stories, db: peewee.Database) -> None:
    refused, cancelled, sent = stories.mail(), stories.mail(), stories.mail()
    stories.refused(refused)
    operate.cancel(db, [cancelled], who="olga")
    stories.attempt(sent, OK)
    assert listed(db, Filter(recipient="ann@example.net")) == [sent, cancelled, refused]
    assert listed(db, Filter(recipient="ann@example.net", states=("failed",))) == [refused]


def test_who_was_refused_by_a_relay_is_found_by_their_row(stories: Stories, db: peewee.Database) -> None:
    failed = stories.mail(cc="bob@example.net")
    stories.attempt(failed, OK, [OK, NO_SUCH_USER])
    for name in ("ann", "bob"):
        assert listed(db, Filter(recipient=f"{name}@example.net", states=("failed",))) == [failed]


def test_the_senders_of_a_domain_are_found_whatever_became_of_their_mail(stories: Stories, db: peewee.Database) -> None:
    ended, waiting = stories.mail(sender="A@example.com"), stories.mail(sender="b@example.com")
    stories.attempt(ended, OK)
    stories.attempt(stories.mail(sender="c@notexample.com"), OK)
    assert listed(db, Filter(sender="*@EXAMPLE.com")) == [waiting, ended]
    assert listed(db, Filter(sender="a@example.com")) == [ended]


def test_since_means_when_it_ended_or_when_it_was_created_while_it_waits(stories: Stories, db: peewee.Database) -> None:
    long_ago, hour = "2026-01-01T00:00:00Z", datetime.now(UTC) - timedelta(hours=1)
    ended = stories.mail(created_at=long_ago)
    stories.attempt(ended, OK)
    stories.mail(created_at=long_ago)
    new = stories.mail()
    assert listed(db, Filter(since=hour)) == [new, ended]
    assert listed(db, Filter(since=hour, states=("queued",))) == [new]
    assert listed(db, Filter(since=hour, sender="shop@example.com", states=("sent",))) == [ended]


def test_a_status_is_found_by_its_beginning_and_no_other_is(stories: Stories, db: peewee.Database) -> None:
    unknown, spam = stories.mail(), stories.mail()
    stories.attempt(unknown, OK, [NO_SUCH_USER])
    stories.attempt(spam, SPAM)
    assert listed(db, Filter(code="5")) == [spam, unknown]
    assert listed(db, Filter(code="5.7")) == [spam]
    assert listed(db, Filter(code="5.1.1")) == [unknown]
    assert listed(db, Filter(code="4.7.1")) == []


def test_more_than_can_be_counted_quickly_is_known_to_be_more(
    stories: Stories, db: peewee.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        stories.mail()
    monkeypatch.setattr(audit, "COUNTED", 4)
    assert sum(audit.counts(db, Filter()).values()) == 4
    stories.mail()
    assert sum(audit.counts(db, Filter()).values()) > 4


def test_a_mass_retry_means_what_failed_or_expired(stories: Stories, db: peewee.Database) -> None:
    told = stories.one_of_each()
    assert operate.matching(db, Verb.RETRY, Filter(sender="shop@example.com")) == sorted(
        [told["failed"], told["expired"]]
    )
    assert operate.matching(db, Verb.RETRY, Filter(states=("sent",))) == []
    assert operate.matching(db, Verb.RETRY, Filter(states=("queued",))) == sorted([told["deferred"], told["scheduled"]])


def test_a_day_on_which_nothing_ended_still_has_its_doubts(stories: Stories, db: peewee.Database) -> None:
    stories.attempt(stories.mail(), None)
    other = stories.mail(sender="other@example.com")
    operate.cancel(db, [other], who="olga")
    today = datetime.now(UTC).date().isoformat()
    found = rows(db, "SELECT day, sender, sent, failed, expired, doubts FROM outbox_daily")
    assert found == [(today, "shop@example.com", 0, 0, 0, 1)]


def test_a_sender_that_is_not_registered_keeps_its_line_when_its_mail_has_ended(
    stories: Stories, db: peewee.Database
) -> None:
    stories.attempt(stories.mail(sender="gone@example.com"), OK)
    assert rows(db, "SELECT sender, account, queued, sent FROM outbox_sender_health") == [
        ("gone@example.com", None, 0, 1)
    ]
