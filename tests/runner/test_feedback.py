"""What the settings make of feedback, and the duties of a runner together."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from outbox.clock import Clock
from outbox.config import Config
from outbox.errors import ConfigError
from outbox.runner.telling.feedback import Feedback, recording_of
from outbox.store import events
from outbox.store.events import Channel, Kind, Recording
from tests.contract.stores import ME
from tests.runner.applications import application, clerk_of
from tests.stories import SPAM, Stories

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def do(stories: Stories, config: Config, *duties: str) -> None:
    """What the schedule does, in this order."""

    async def scenario() -> None:
        async with clerk_of(stories.store.url) as clerk:
            feedback = Feedback(clerk, Clock(), config, owner=lambda: ME)
            for duty in duties:
                await getattr(feedback, duty)()
            await feedback.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given", "recording"),
    [
        ({}, Recording()),
        (
            {"events": {"record": ["bounced"], "delayed_after": "1h"}},
            Recording({"bounced"}, delayed_after=timedelta(hours=1)),
        ),
        (
            {"events": {"record": []}, "notices": {"delay": True, "sender": "postmaster@example.com"}},
            Recording((), notices={"delayed"}),
        ),
        ({"notices": {"failure": True, "sender": "postmaster@example.com"}}, Recording(notices={"bounced", "expired"})),
        ({"notices": {"sender": "postmaster@example.com"}}, Recording()),
        (
            {"webhook": {"url": "https://shop.example.com/", "secret_file": "s", "kinds": "paused, doubt"}},
            Recording(webhook={"paused", "doubt"}),
        ),
        ({"webhook": {"kinds": "paused"}}, Recording()),
    ],
)
def test_the_settings_say_what_is_recorded_and_for_whom(given: dict[str, Any], recording: Recording) -> None:
    made = recording_of(Config(**given))
    for name in ("record", "webhook", "notices"):
        assert set(getattr(made, name)) == set(getattr(recording, name)), name
    assert made.delayed_after == recording.delayed_after


def test_a_bounce_is_posted_and_told_to_the_return_path(database_url: str, tmp_path: Path) -> None:
    secret = tmp_path / "webhook.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with Stories(database_url) as stories, application() as taking:
        given: dict[str, Any] = {
            "webhook": {"url": taking.url, "secret_file": str(secret)},
            "notices": {"failure": True, "sender": "postmaster@example.com"},
        }
        config = Config(**given)
        stories.store.recording = recording_of(config)
        stories.register("shop@example.com")
        stories.attempt(stories.mail(), SPAM)
        do(stories, config, "post", "tell", "post", "watch")
        assert [event["kind"] for event in taking.events] == ["bounced"]
        assert stories.sql("SELECT count(*) FROM outbox WHERE source = 'notice'") == [(1,)]
        for channel in Channel:
            assert events.due(stories.store.db, channel, 9) == []


def test_where_nothing_is_configured_nothing_is_told(database_url: str) -> None:
    with Stories(database_url) as stories:
        stories.attempt(stories.mail(), SPAM)
        do(stories, Config(), "post", "tell", "watch", "forget")
        assert [event.kind for event in events.listing(stories.store.db)] == ["bounced"]
        assert stories.sql("SELECT count(*) FROM outbox") == [(1,)]


def test_what_is_too_old_is_forgotten(database_url: str) -> None:
    with Stories(database_url) as stories:
        db, now = stories.store.db, stories.store.now()
        for days in (40, 31, 29):
            messages = [(each, 1) for each in range(1200)]
            with db.atomic():
                events.record(db, Recording(), Kind.ACCEPTED, now - timedelta(days=days), messages=messages)
        do(stories, Config(), "forget")
        left = events.listing(db, limit=5000)
        assert (len(left), {(now - event.at).days for event in left}) == (1200, {29})


def test_a_webhook_without_its_secret_is_a_configuration_error(database_url: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {"webhook": {"url": "https://shop.example.com/", "secret_file": str(tmp_path / "missing")}}
    with Stories(database_url) as stories, pytest.raises(ConfigError, match=r"webhook\.secret_file"):
        do(stories, Config(**given))
