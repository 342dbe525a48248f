"""Notices: who is told of mail that was not delivered, and who never is."""

from __future__ import annotations

import asyncio
import email.policy
import logging
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes
from email.message import EmailMessage
from typing import Any

import pytest

from outbox.core.account import Sender
from outbox.core.reply import Reply
from outbox.core.settlement import Policy
from outbox.runner.telling.notices import Notices
from outbox.store import audit, events, leases, operate, senders
from outbox.store.events import Channel, Recording
from outbox.store.journal import Act
from tests.contract.stores import ME, OTHER, register
from tests.runner.applications import clerk_of
from tests.stories import GREYLISTED, NO_SUCH_USER, OK, SPAM, Stories

POSTMASTER = "postmaster@example.com"
TELLS = Recording(notices={"bounced", "expired", "delayed"})
AT_ONCE = Recording(notices={"bounced", "expired", "delayed"}, delayed_after=timedelta(0))


@pytest.fixture
def stories(database_url: str) -> Iterator[Stories]:
    with Stories(database_url) as opened:
        opened.store.recording = TELLS
        opened.register("*@example.com")
        yield opened


def tell(stories: Stories, *, owner: str = ME) -> None:
    """What the schedule does."""

    async def scenario() -> None:
        async with clerk_of(stories.store.url) as clerk:
            notices = Notices(clerk, owner=lambda: owner, sender=POSTMASTER, reporting="mail.example.com")
            await notices.tell_due()

    asyncio.run(scenario())


def told(stories: Stories) -> list[tuple[str, str]]:
    """(to, subject) of every notice."""
    return [(message["To"], message["Subject"]) for message in notices(stories)]


def notices(stories: Stories) -> list[EmailMessage]:
    found = []
    for (raw,) in stories.sql("SELECT raw FROM outbox WHERE source = 'notice' ORDER BY id"):
        message = message_from_bytes(bytes(raw), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        found.append(message)
    return found


def statuses(message: EmailMessage) -> list[tuple[Any, ...]]:
    """(recipient, action, status) of each."""
    _, part, _ = message.iter_parts()
    blocks: Any = part.get_payload()
    return [(each["Final-Recipient"], each["Action"], each["Status"]) for each in blocks[1:]]


def left(stories: Stories) -> int:
    return len(events.due(stories.store.db, Channel.NOTICES, 99))


def test_the_return_path_is_told_who_was_refused_and_why(stories: Stories) -> None:
    people = "ann@example.net, bob@example.net"
    message_id = stories.mail(recipients=people, return_path="bounces@example.com", dsn_envid="order 7")
    stories.attempt(message_id, OK, [OK, NO_SUCH_USER])
    tell(stories)
    assert told(stories) == [("bounces@example.com", "Undelivered mail: Order 7")]
    (message,) = notices(stories)
    assert statuses(message) == [("rfc822; bob@example.net", "failed", "5.1.1")]
    words, _, header = (str(part.get_payload()) for part in message.iter_parts())
    assert "550 5.1.1 no such user here" in words
    assert "ann@example.net" not in words
    original = audit.show(stories.store.db, message_id)
    assert message["In-Reply-To"] == original.message_id
    about: Any = list(message.iter_parts())[1].get_payload()
    assert about[0]["Original-Envelope-Id"] == "order 7"
    assert f"Message-ID: {original.message_id}" in header
    assert "Subject: Order 7" in header


def test_a_notice_is_an_ordinary_row_of_which_nobody_is_told(stories: Stories) -> None:
    stories.attempt(stories.mail(), SPAM)
    tell(stories)
    columns = "id, sender, recipients, return_path, source, dedup_key IS NOT NULL"
    ((notice, *row),) = stories.sql(f"SELECT {columns} FROM outbox WHERE source = 'notice'")
    assert row[:4] == [POSTMASTER, "shop@example.com", "<>", "notice"]
    assert stories.states(notice) == ["queued"]
    stories.attempt(notice, SPAM)
    tell(stories)
    assert (len(told(stories)), left(stories)) == (1, 0)


def test_each_event_is_told_once(stories: Stories) -> None:
    for _ in range(25):
        stories.attempt(stories.mail(), SPAM)
    for _ in range(2):
        tell(stories)
    assert (len(told(stories)), left(stories)) == (25, 0)


def test_what_was_given_up_says_so(stories: Stories) -> None:
    stories.attempt(stories.mail(), GREYLISTED, policy=Policy(max_age=timedelta(0)))
    tell(stories)
    (message,) = notices(stories)
    assert statuses(message) == [("rfc822; ann@example.net", "failed", "4.7.1")]
    assert "was given up" in str(next(message.iter_parts()).get_payload())


def test_what_expired_without_a_try_tells_of_everybody(stories: Stories) -> None:
    past = (stories.store.now() - timedelta(minutes=1)).isoformat()
    stories.mail(recipients="ann@example.net, bob@example.net", expires_at=past)
    with stories.store.transaction():
        assert stories.store.expire(stories.store.now()) == 1
    tell(stories)
    (message,) = notices(stories)
    assert statuses(message) == [
        ("rfc822; ann@example.net", "failed", "5.4.7"),
        ("rfc822; bob@example.net", "failed", "5.4.7"),
    ]


def test_a_delay_is_told_while_it_lasts(stories: Stories) -> None:
    stories.store.recording = AT_ONCE
    late, sent = stories.mail(recipients="ann@example.net, bob@example.net"), stories.mail()
    stories.attempt(late, OK, [OK, GREYLISTED])
    stories.attempt(sent, GREYLISTED)
    stories.attempt(sent, OK)
    tell(stories)
    assert told(stories) == [("shop@example.com", "Delayed mail: Order 7")]
    assert statuses(notices(stories)[0]) == [("rfc822; bob@example.net", "delayed", "4.7.1")]
    assert left(stories) == 0


def test_what_was_never_tried_because_it_was_refused_here_is_told_in_our_words(stories: Stories) -> None:
    stories.refused(stories.mail())
    tell(stories)
    (message,) = notices(stories)
    assert statuses(message) == [("rfc822; ann@example.net", "failed", "5.7.1")]
    about: Any = list(message.iter_parts())[1].get_payload()
    assert about[1]["Diagnostic-Code"] == "X-Outbox; 5.7.1 sender not registered"


def test_the_senders_registration_says_where_to(stories: Stories) -> None:
    db, act = stories.store.db, Act("olga", stories.store.now())
    with stories.store.transaction():
        senders.add_sender(db, Sender("shop@example.com", "main", return_path="bounces@example.com"), act)
    stories.attempt(stories.mail(), SPAM)
    stories.attempt(stories.mail(return_path="help@example.com"), SPAM)
    tell(stories)
    assert [to for to, _ in told(stories)] == ["bounces@example.com", "help@example.com"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"return_path": "<>"}, "its return path is the null one"),
        ({"dsn_notify": "never"}, "it asks for notices of never"),
        ({"dsn_notify": "success,delay"}, "it asks for notices of success,delay"),
        ({"return_path": "nobody"}, "not registered"),
        ({"return_path": "victim@example.net"}, "its return path is not registered to the account of its sender"),
        ({"return_path": "help@example.org"}, "its return path is not registered to the account of its sender"),
        ({"sender": "victim@example.net"}, "its return path is not registered to the account of its sender"),
        ({"sender": "x@example.net", "return_path": "shop@example.com"}, "not registered"),
    ],
)
def test_nobody_is_told_who_does_not_want_to_hear(
    stories: Stories, columns: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Least of all a stranger, whom somebody has named who may only enqueue: that would be an open relay."""
    stories.register("help@example.org", "other")
    stories.attempt(stories.mail(**columns), SPAM)
    with caplog.at_level(logging.INFO, "outbox.notices"):
        tell(stories)
    assert (told(stories), left(stories)) == ([], 0)
    assert "nobody is told that it is bounced: " in caplog.text
    assert reason in caplog.text


def test_who_asks_for_failures_is_told_of_them_and_not_of_delays(stories: Stories) -> None:
    stories.store.recording = AT_ONCE
    failed, late = stories.mail(dsn_notify="failure"), stories.mail(dsn_notify="failure")
    stories.attempt(failed, SPAM)
    stories.attempt(late, GREYLISTED)
    tell(stories)
    assert [subject for _, subject in told(stories)] == ["Undelivered mail: Order 7"]


def test_what_was_retried_or_deleted_meanwhile_is_not_told(stories: Stories) -> None:
    retried, deleted = stories.mail(), stories.mail()
    for each in (deleted, retried):
        stories.attempt(each, SPAM)
    operate.retry(stories.store.db, [retried], who="olga")
    stories.sql("DELETE FROM outbox WHERE id = ?", deleted)
    tell(stories)
    assert (told(stories), left(stories)) == ([], 0)


def test_erased_mail_is_told_of_without_its_content(stories: Stories) -> None:
    message_id = stories.mail()
    stories.attempt(message_id, NO_SUCH_USER)
    stories.sql(
        "UPDATE outbox SET erased_at = CURRENT_TIMESTAMP, recipients = NULL, subject = NULL, text_body = NULL"
        " WHERE id = ?",
        message_id,
    )
    tell(stories)
    (message,) = notices(stories)
    assert (message["Subject"], statuses(message)) == (
        "Undelivered mail",
        [("rfc822; ann@example.net", "failed", "5.1.1")],
    )


def test_a_message_that_cannot_be_composed_is_told_of(stories: Stories) -> None:
    stories.refused(stories.mail(headers='{"From": "x"}'), "5.6.0", "the header From is reserved")
    tell(stories)
    assert statuses(notices(stories)[0]) == [("rfc822; ann@example.net", "failed", "5.6.0")]


def test_only_one_runner_tells_at_a_time(stories: Stories) -> None:
    stories.attempt(stories.mail(), SPAM)
    register(stories.store, OTHER)
    with stories.store.transaction():
        leases.take(stories.store.db, "notices", OTHER, stories.store.now(), timedelta(seconds=30))
    tell(stories)
    assert (told(stories), left(stories)) == ([], 1)
    tell(stories, owner=OTHER)
    assert (len(told(stories)), left(stories)) == (1, 0)


def test_a_notice_that_was_filed_before_is_not_filed_again(stories: Stories) -> None:
    """The COMMIT was done, and its acknowledgement got lost; or the lease was over in the middle of it."""
    stories.attempt(stories.mail(), SPAM)
    tell(stories)
    stories.sql("UPDATE outbox_event SET notice_due = (1 = 1)")
    tell(stories)
    assert (len(told(stories)), left(stories)) == (1, 0)


def test_a_notice_can_be_sent(stories: Stories) -> None:
    stories.attempt(stories.mail(), Reply(550, "5.1.1", "größe nobody"))
    tell(stories)
    ((notice,),) = stories.sql("SELECT id FROM outbox WHERE source = 'notice'")
    stories.attempt(notice, OK)
    assert stories.states(notice) == ["sent"]
