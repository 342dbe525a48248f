"""What operators ask: one message, lists of them, numbers over all of them; over both databases."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.account import Account, Sender, Tls
from outbox.core.lifecycle import State
from outbox.core.settlement import Policy
from outbox.errors import InvalidMessage, Refused
from outbox.store import accounts, audit, health, senders
from outbox.store.database import sqlite_path
from outbox.store.engine import sqlite3
from outbox.store.filters import WORDS, Filter
from outbox.store.journal import Act
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, SPAM, Stories

IMPATIENT = Policy(max_age=timedelta(0))


# -- one message


def test_a_message_is_shown_with_everything_that_happened_to_it(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="Ann <ann@example.net>", cc="bob@example.net", tag="order", dedup_key="k7")
    stories.attempt(message_id, OK, [OK, GREYLISTED])
    stories.attempt(message_id, OK, [NO_SUCH_USER])

    record = audit.show(db, message_id)

    assert (record.id, record.state, record.sender, record.subject) == (
        message_id,
        State.FAILED,
        "shop@example.com",
        "Order 7",
    )
    assert record.message_id == f"<{message_id}.{_token(stories, message_id)}@example.com>"
    assert (record.doubts, record.failures, record.tag, record.dedup_key, record.source) == (0, 1, "order", "k7", "sql")
    assert record.final_at is not None
    assert record.created_at.tzinfo is UTC or record.created_at.utcoffset() == timedelta(0)
    ann, bob = record.recipients
    assert (ann.address, ann.kind, ann.fate, ann.code, ann.status) == (
        "ann@example.net",
        "to",
        "accepted",
        250,
        "2.0.0",
    )
    assert (bob.address, bob.kind, bob.fate, bob.code, bob.reply) == (
        "bob@example.net",
        "cc",
        "bounced",
        550,
        "no such user here",
    )
    assert [(each.claim_no, each.outcome, each.relay) for each in record.attempts] == [
        (1, "deferred", "mx.example.net[192.0.2.1]:25"),
        (2, "bounced", "mx.example.net[192.0.2.1]:25"),
    ]
    first = record.attempts[0]
    assert first.started_at <= (first.ended_at or first.started_at)


def test_the_record_begins_with_what_the_issue_promises() -> None:
    promised = "id state sender subject message_id created_at due_at final_at doubts failures recipients attempts"
    assert [each.name for each in dataclasses.fields(audit.Record)][:12] == promised.split()
    recipient = "address kind fate code status reply at"
    assert [each.name for each in dataclasses.fields(audit.RecipientLine)] == recipient.split()
    attempt = "claim_no started_at dot_at ended_at outcome stage code status reply relay tls runner"
    assert [each.name for each in dataclasses.fields(audit.AttemptLine)][:12] == attempt.split()


def test_recipients_who_have_not_been_tried_are_pending(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="ann@example.net", bcc="eve@example.net")
    record = audit.show(db, message_id)
    assert [(each.address, each.kind, each.fate, each.at) for each in record.recipients] == [
        ("ann@example.net", "to", "pending", None),
        ("eve@example.net", "bcc", "pending", None),
    ]
    assert record.attempts == ()


def test_a_raw_message_shows_its_own_recipients_and_message_id(stories: Stories, db: peewee.Database) -> None:
    raw = b"From: shop@example.com\r\nTo: ann@example.net\r\nMessage-ID: <mine@example.com>\r\n\r\nHi\r\n"
    message_id = stories.mail(recipients=None, subject=None, text_body=None, raw=raw)
    record = audit.show(db, message_id)
    assert record.message_id == "<mine@example.com>"
    assert [each.address for each in record.recipients] == ["ann@example.net"]
    stories.attempt(message_id, OK)
    assert audit.listing(db, Filter())[0].recipients == ("ann@example.net",)


def test_a_message_that_no_relay_saw_still_says_why_it_failed(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.refused(message_id)
    record = audit.show(db, message_id)
    assert (record.last_code, record.last_status, record.last_reply) == (None, "5.7.1", "sender not registered")
    assert [each.stage for each in record.attempts] == ["policy"]
    assert [each.fate for each in record.recipients] == ["pending"]


def test_an_open_attempt_is_shown_while_it_is_sent(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.claim(message_id)
    record = audit.show(db, message_id)
    assert record.state is State.SENDING
    assert [(each.claim_no, each.outcome, each.ended_at) for each in record.attempts] == [(1, None, None)]


def test_addresses_that_nobody_can_read_do_not_hide_a_message(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients="nonsense, ann@@example.net")
    assert audit.show(db, message_id).recipients == ()
    assert audit.listing(db, Filter())[0].recipients == ("nonsense", "ann@@example.net")


def test_an_erased_message_keeps_its_history(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, OK)
    erase = "UPDATE outbox SET erased_at = created_at, recipients = NULL, subject = NULL, text_body = NULL WHERE id = ?"
    stories.sql(erase, message_id)
    record = audit.show(db, message_id)
    assert record.erased_at is not None
    assert [(each.address, each.fate) for each in record.recipients] == [("ann@example.net", "accepted")]
    with pytest.raises(InvalidMessage, match="erased"):
        audit.message(db, message_id)


@pytest.mark.parametrize("strange", [4711, 0, -1, 2**63])
def test_a_message_that_does_not_exist_is_refused_by_its_number(db: peewee.Database, strange: int) -> None:
    with pytest.raises(Refused, match=f"no message {strange}"):
        audit.show(db, strange)
    with pytest.raises(Refused, match=f"no message {strange}"):
        audit.message(db, strange)


def test_why_a_message_waits_is_said_by_its_sender_and_account(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail()
    assert audit.show(db, message_id).paused == "sender shop@example.com is not registered"
    act = Act("olga", datetime.now(UTC))
    accounts.add_account(db, Account("main", "127.0.0.1", 25, Tls.NONE), act)
    senders.add_sender(db, Sender("*@example.com", "main"), act)
    assert audit.show(db, message_id).paused is None
    accounts.pause_account(db, "main", "wrong password", None, act)
    assert audit.show(db, message_id).paused == "account main is paused by operator: wrong password"
    assert audit.listing(db, Filter())[0].paused == "account main is paused by operator: wrong password"
    assert [(each.sender, each.waiting) for each in health.blocked(db)] == [("shop@example.com", 1)]


def test_what_the_runner_reads_is_what_is_rendered(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(headers='{"X-Shop": "7"}', html_body="<p>Hi</p>")
    stories.sql(
        "INSERT INTO outbox_attachment (message_id, position, filename, content) VALUES (?, 0, 'a.txt', ?)",
        message_id,
        b"abc",
    )
    claim = stories.claim(message_id)
    assert audit.message(db, message_id) == stories.store.content(claim).message


def test_text_that_is_not_utf_8_is_shown_all_the_same(sqlite_url: str) -> None:
    with Stories(sqlite_url) as stories:
        with sqlite3.connect(sqlite_path(sqlite_url)) as application:
            application.execute(
                "INSERT INTO outbox (sender, recipients, subject, text_body)"
                " VALUES ('shop@example.com', 'ann@example.net', CAST(x'4fff6b' AS TEXT), 'Hi')"
            )
        application.close()
        assert [line.subject for line in audit.listing(stories.store.db, Filter())] == ["O�k"]
        assert audit.show(stories.store.db, 1).subject == "O�k"
        with pytest.raises(InvalidMessage, match="not UTF-8"):
            audit.message(stories.store.db, 1)


def test_a_moment_in_another_spelling_is_still_that_moment_in_utc(sqlite_url: str) -> None:
    with Stories(sqlite_url) as stories:
        message_id = stories.mail(created_at="2026-03-01 10:30")
        moment = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
        assert audit.show(stories.store.db, message_id).created_at == moment
        assert len(audit.listing(stories.store.db, Filter(since=moment))) == 1
        assert audit.listing(stories.store.db, Filter(since=moment + timedelta(milliseconds=1))) == []
        stories.attempt(message_id, OK)
        stories.sql("UPDATE outbox SET erased_at = '2026-03-02 10:30:00 +01:00', text_body = NULL")
        assert audit.show(stories.store.db, message_id).erased_at == datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


# -- lists


def test_the_newest_come_first_and_older_pages_begin_below_the_last_id(stories: Stories, db: peewee.Database) -> None:
    ids = [stories.mail(subject=f"Order {n}") for n in range(5)]
    first = audit.listing(db, Filter(), limit=2)
    assert [line.id for line in first] == [ids[4], ids[3]]
    second = audit.listing(db, Filter(), limit=2, before=first[-1].id)
    assert [line.id for line in second] == [ids[2], ids[1]]


def test_a_line_says_who_to_whom_what_and_the_last_reply(stories: Stories, db: peewee.Database) -> None:
    message_id = stories.mail(recipients='"Ann, A." <ann@example.net>', cc="bob@example.net, ann@example.net")
    stories.attempt(message_id, None, [SPAM, SPAM])
    (line,) = audit.listing(db, Filter())
    assert line.recipients == ("ann@example.net", "bob@example.net")
    assert (line.standing, line.last_code, line.last_status) == ("failed", 554, "5.7.1")
    assert line.last_reply == "looks like spam"


def test_every_word_for_where_a_message_stands_finds_it(stories: Stories, db: peewee.Database) -> None:
    told = stories.one_of_each()
    for word in WORDS:
        found = [line.id for line in audit.listing(db, Filter(states=(word,)))]
        assert told[word] in found, word
        if word != State.QUEUED:
            assert found == [told[word]], word
    assert {told["queued"], told["scheduled"], told["deferred"]} == {
        line.id for line in audit.listing(db, Filter(states=("queued",)))
    }


def test_people_are_told_the_same_state_as_by_the_view(stories: Stories, db: peewee.Database) -> None:
    stories.one_of_each()
    view = dict(stories.sql("SELECT id, state FROM outbox_status"))
    assert {line.id: line.standing for line in audit.listing(db, Filter())} == view
    assert sorted(view.values()) == sorted(WORDS)


@pytest.mark.parametrize(
    ("which", "found"),
    [
        (Filter(sender="News@example.com"), ["news"]),
        (Filter(sender="*@example.com"), ["news", "shop"]),
        (Filter(sender="@example.org"), ["other"]),
        (Filter(recipient="BOB@example.net"), ["news", "other"]),
        (Filter(recipient="ob@example.net"), []),
        (Filter(recipient="*@example.net"), ["news", "other", "shop"]),
        (Filter(recipient="eve@example.net"), ["shop"]),
        (Filter(tag="order"), ["shop"]),
        (Filter(dedup_key="k1"), ["other"]),
        (Filter(states=("failed",), code="550"), ["other"]),
        (Filter(code="5.1"), ["other"]),
        (Filter(code="5.1.1"), ["other"]),
        (Filter(code="5.1.10"), []),
        (Filter(since=datetime(2020, 1, 1, tzinfo=UTC)), ["news", "other", "shop"]),
        (Filter(since=datetime(2199, 1, 1, tzinfo=UTC)), []),
        (Filter(sender="'; DROP TABLE outbox; --"), []),
        (Filter(recipient="100%@example.net"), []),
    ],
)
def test_a_filter_finds_what_it_says(stories: Stories, db: peewee.Database, which: Filter, found: list[str]) -> None:
    names = {
        stories.mail(sender="news@example.com", recipients="Bob <bob@example.net>"): "news",
        stories.mail(tag="order", bcc="Eve@example.net"): "shop",
        stories.mail(sender="a@example.org", recipients="bob@example.net", dedup_key="k1"): "other",
    }
    stories.attempt(max(names), None, [NO_SUCH_USER])
    assert sorted(names[line.id] for line in audit.listing(db, which)) == found
    assert sum(audit.counts(db, which).values()) == len(found)


@pytest.mark.parametrize("nonsense", [{"code": "5xx"}, {"code": "99"}, {"states": ("dead",)}])
def test_a_filter_that_cannot_match_is_refused(nonsense: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is n"):
        Filter(**nonsense)  # type: ignore[arg-type]


def test_a_filter_tells_the_journal_what_it_is() -> None:
    since = datetime(2026, 3, 1, tzinfo=UTC)
    which = Filter(states=("failed", "expired"), sender="a@example.com", code="5.7", since=since)
    assert which.text() == "state=failed,expired sender=a@example.com code=5.7 since=2026-03-01T00:00:00.000Z"
    assert Filter().text() == "all"


def test_the_counts_are_by_state(stories: Stories, db: peewee.Database) -> None:
    stories.mail(), stories.mail()
    stories.attempt(stories.mail(), OK)
    assert audit.counts(db, Filter()) == {State.QUEUED: 2, State.SENT: 1}


# -- telling


def _token(stories: Stories, message_id: int) -> str:
    return str(stories.sql("SELECT token FROM outbox WHERE id = ?", message_id)[0][0])
