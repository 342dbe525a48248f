"""The webhook: what it posts, how often, and what it does when nobody takes it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import peewee
import pytest

from outbox.core.reply import Reply
from outbox.core.secret import Secret
from outbox.core.webhook import name_of, signed_headers
from outbox.errors import ConfigError
from outbox.runner.telling import webhook as webhook_module
from outbox.runner.telling.webhook import Webhook, read_secrets
from outbox.store import audit, events, leases
from outbox.store.events import Channel, Kind, Recording
from tests.clock import FakeClock
from tests.contract.stores import ME, OTHER, register
from tests.runner.applications import application, clerk_of
from tests.stories import NO_SUCH_USER, OK, Stories

SECRETS = (Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Secret("an old secret of the shop"))
HEARS = Recording(webhook=events.KINDS)


@pytest.fixture
def stories(database_url: str) -> Iterator[Stories]:
    with Stories(database_url) as opened:
        opened.store.recording = HEARS
        yield opened


def post(stories: Stories, url: str, clock: FakeClock | None = None, *, owner: str = ME, times: int = 1) -> None:
    """What the schedule does, `times` in a row, a second apart."""

    async def scenario() -> None:
        turning = clock or FakeClock()
        async with clerk_of(stories.store.url) as clerk:
            webhook = Webhook(clerk, turning, owner=lambda: owner, url=url, secrets=SECRETS)
            for _ in range(times):
                await webhook.post_due()
                turning.advance(timedelta(seconds=1))
            await webhook.close()

    asyncio.run(scenario())


def record(db: peewee.Database, count: int) -> None:
    with db.atomic():
        at = audit.now(db)
        events.record(db, HEARS, Kind.PAUSED, at, subject="account=main")
        events.record(db, HEARS, Kind.ACCEPTED, at, messages=[(each, 1) for each in range(1000, 999 + count)])


def recipient(address: str, fate: str, reply: Reply) -> dict[str, Any]:
    """As it is posted."""
    words = {"code": reply.code, "status": reply.status, "reply": reply.text}
    return {"address": address, "kind": "to", "fate": fate, **words}


def left(stories: Stories) -> int:
    return len(events.due(stories.store.db, Channel.WEBHOOK, 10_000))


def test_an_event_says_what_the_application_knows_its_mail_by(stories: Stories) -> None:
    message_id = stories.mail(dedup_key="order-7", tag="orders", recipients="ann@example.net, bob@example.net")
    stories.attempt(message_id, OK, [OK, NO_SUCH_USER])
    with application() as taking:
        post(stories, taking.url)
    (event,) = taking.events
    at = event.pop("at")
    assert (len(at), at[-1]) == (24, "Z")
    assert event == {
        "id": events.latest(stories.store.db),
        "kind": "bounced",
        "message_id": message_id,
        "claim_no": 1,
        "subject": None,
        "sender": "shop@example.com",
        "dedup_key": "order-7",
        "tag": "orders",
        "code": 550,
        "status": "5.1.1",
        "reply": "no such user here",
        "recipients": [
            recipient("ann@example.net", "accepted", OK),
            recipient("bob@example.net", "bounced", NO_SUCH_USER),
        ],
        "recipients_complete": True,
    }
    assert left(stories) == 0


def test_a_request_is_signed_by_every_secret(stories: Stories) -> None:
    record(stories.store.db, 3)
    clock = FakeClock()
    with application() as taking:
        post(stories, taking.url, clock)
    ((header, body),) = taking.requests
    (ids,) = taking.ids
    expected = signed_headers(name_of(ids), FakeClock().now(), body, SECRETS)
    assert {name: header[name] for name in expected} == expected
    assert header["content-type"] == "application/json"


def test_an_event_that_comes_between_two_that_were_refused_changes_the_name(stories: Stories) -> None:
    """Its transaction had taken its id before theirs, and was committed after. Who has heard of the two, and could not
    say so, must not take the three for the same.
    """
    db, at = stories.store.db, audit.now(stories.store.db)

    def record_as(number: int) -> None:
        with db.atomic():
            events.record(db, HEARS, Kind.ACCEPTED, at, messages=[(number, 1)])
            stories.sql("UPDATE outbox_event SET id = ? WHERE message_id = ?", number, number)

    record_as(1001)
    record_as(1003)
    clock = FakeClock()
    with application(503, 503) as taking:
        post(stories, taking.url, clock)
        clock.advance(timedelta(minutes=1))
        post(stories, taking.url, clock)
        record_as(1002)
        clock.advance(timedelta(minutes=1))
        post(stories, taking.url, clock)
    assert taking.ids == [[1001, 1003], [1001, 1003], [1001, 1002, 1003]]
    first, again, other = (header["webhook-id"] for header, _ in taking.requests)
    assert first == again != other


def test_many_events_are_posted_in_order_and_once(stories: Stories) -> None:
    record(stories.store.db, 250)
    with application() as taking:
        post(stories, taking.url, times=2)
    assert [len(ids) for ids in taking.ids] == [100, 100, 50]
    posted = [each for ids in taking.ids for each in ids]
    assert posted == [each.id for each in events.listing(stories.store.db)]
    assert left(stories) == 0


def test_of_a_mail_to_very_many_the_first_recipients_are_posted(stories: Stories) -> None:
    people = ", ".join(f"p{number}@example.net" for number in range(130))
    for _ in range(12):
        stories.attempt(stories.mail(recipients=people), OK)
    with application() as taking:
        post(stories, taking.url)
    assert [(len(each["recipients"]), each["recipients_complete"]) for each in taking.events] == [(100, False)] * 12
    assert taking.events[0]["recipients"][99]["address"] == "p99@example.net"
    assert [len(ids) for ids in taking.ids] == [10, 2]


@pytest.mark.parametrize("answer", [500, 404, 429, 302])
def test_what_is_not_accepted_is_posted_again_later_and_later(
    stories: Stories, answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    record(stories.store.db, 1)
    clock, moments = FakeClock(), []
    with application(*[answer] * 10) as taking, caplog.at_level(logging.INFO, "outbox.webhook"):

        async def scenario() -> None:
            async with clerk_of(stories.store.url) as clerk:
                webhook = Webhook(clerk, clock, owner=lambda: ME, url=taking.url, secrets=SECRETS)
                while taking.answers or left(stories):
                    before = len(taking.requests)
                    await webhook.post_due()
                    if len(taking.requests) > before:
                        moments.append(clock.monotonic())
                    clock.advance(timedelta(seconds=5))
                await webhook.close()

        asyncio.run(scenario())
    waits = [later - earlier for earlier, later in pairwise(moments)]
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]
    assert len({tuple(ids) for ids in taking.ids}) == 1
    assert len({header["webhook-id"] for header, _ in taking.requests}) == 1
    assert f"it answered {answer}; again in 5 s" in caplog.text
    assert "accepts events again" in caplog.text
    assert "canary" not in caplog.text
    assert "canary" not in str([header.get("referer") for header, _ in taking.requests])


def test_a_receiver_that_says_nothing_is_not_waited_for(
    stories: Stories, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhook_module, "DEADLINE", 0.2)
    record(stories.store.db, 1)
    with application(hangs=Event()) as taking:
        post(stories, taking.url)
    assert "no answer within 0.2 s" in caplog.text
    assert left(stories) == 1


def test_a_receiver_that_is_away_costs_no_event(stories: Stories, caplog: pytest.LogCaptureFixture) -> None:
    record(stories.store.db, 1)
    with application() as taking:
        away = taking.url
    post(stories, away)
    assert "does not accept events: ConnectError" in caplog.text
    assert "canary" not in caplog.text
    assert left(stories) == 1


def test_what_was_posted_before_a_failure_is_not_posted_again(stories: Stories) -> None:
    record(stories.store.db, 150)
    with application(204, 500) as taking:
        post(stories, taking.url)
    assert [len(ids) for ids in taking.ids] == [100, 50]
    assert left(stories) == 50


def test_only_one_runner_posts_at_a_time(stories: Stories) -> None:
    record(stories.store.db, 1)
    register(stories.store, OTHER)
    with stories.store.transaction():
        assert leases.take(stories.store.db, "webhook", OTHER, stories.store.now(), timedelta(seconds=30))
    with application() as taking:
        post(stories, taking.url)
        assert taking.requests == []
        post(stories, taking.url, owner=OTHER)
        assert len(taking.requests) == 1


def test_where_nothing_is_due_nothing_is_written(stories: Stories) -> None:
    with application() as taking:
        post(stories, taking.url, times=3)
    assert taking.requests == []
    assert stories.sql("SELECT count(*) FROM outbox_lease") == [(0,)]


def test_the_event_of_a_deleted_message_is_posted_without_it(stories: Stories) -> None:
    record(stories.store.db, 2)  # of a message that is not there
    with application() as taking:
        post(stories, taking.url)
    paused, accepted = taking.events
    assert (paused["subject"], paused["message_id"]) == ("account=main", None)
    assert (accepted["sender"], accepted["recipients"]) == (None, [])


def test_a_text_that_is_none_holds_nothing_up(sqlite_url: str) -> None:
    with Stories(sqlite_url) as stories:
        stories.store.recording = HEARS
        message_id = stories.mail()
        stories.attempt(message_id, OK)
        other = stories.sql(
            "INSERT INTO outbox (sender, recipients, text_body, tag) VALUES"
            " ('shop@example.com', 'ann@example.net', 'Hi', CAST(x'ff' AS TEXT)) RETURNING id"
        )[0][0]
        stories.attempt(other, OK)
        with application() as taking:
            post(stories, taking.url)
        assert [each["tag"] for each in taking.events] == [None, "\ufffd"]


# ---- what is configured


async def _made(url: str) -> None:
    Webhook(None, FakeClock(), owner=lambda: ME, url=url, secrets=SECRETS)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://shop.example.com/", "ftp://127.0.0.1/", "shop.example.com"])
def test_nothing_is_posted_in_clear_text_to_another_machine(url: str) -> None:
    with pytest.raises(ConfigError, match="https"):
        asyncio.run(_made(url))


def test_secrets_are_lines_of_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "webhook.secret"
    path.write_text("# the new one\nwhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\nan old secret of the shop\n")
    path.chmod(0o600)
    assert read_secrets(path) == SECRETS
    if sys.platform != "win32":
        path.chmod(0o640)
        with pytest.raises(ConfigError, match="open to other users"):
            read_secrets(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("# nothing\n", "holds no secret"), ("tiny key\n", "shorter than"), (None, "cannot read")],
)
def test_a_secret_file_that_is_of_no_use_is_a_configuration_error(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "webhook.secret"
    if content is not None:
        path.write_text(content)
        os.chmod(path, 0o600)
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_secrets(path)
    assert "tiny key" not in str(raised.value)
