"""outbox events, and what of the other commands is an event."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli.program import Program
from tests.stories import NO_SUCH_USER, OK, SPAM, Stories


@pytest.fixture
def outbox(program: Program) -> Program:
    return program.init()


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


def test_the_newest_events_in_their_order(outbox: Program, stories: Stories) -> None:
    for reply in (OK, SPAM, OK):
        stories.attempt(stories.mail(), reply)
    lines = outbox.run("events", "-n", "2").stdout.splitlines()
    assert lines[0].split() == ["ID", "AT", "KIND", "ABOUT", "REPLY"]
    assert [line.split()[0] for line in lines[1:]] == ["2", "3"]
    assert "bounced   message 2  554 5.7.1 looks like spam" in lines[1]


def test_events_are_narrowed_down(outbox: Program, stories: Stories) -> None:
    good, bad = stories.mail(tag="orders"), stories.mail()
    stories.attempt(good, OK)
    stories.attempt(bad, NO_SUCH_USER)
    assert [each["message_id"] for each in outbox.json("events", "--kind", "accepted,doubt")] == [good]
    assert [each["message_id"] for each in outbox.json("events", "--since", "1")] == [bad]
    (event,) = outbox.json("events", "--message", str(good))
    assert (event["kind"], event["tag"], event["recipients"][0]["fate"]) == ("accepted", "orders", "accepted")
    assert "no events" in outbox.run("events", "--message", "99").stderr
    assert "'sent' is not one of accepted, delayed" in outbox.fails(2, "events", "--kind", "sent")


def test_what_follows_is_printed_as_it_comes(outbox: Program, stories: Stories) -> None:
    stories.attempt(stories.mail(), OK)
    command = [sys.executable, "-m", "outbox", "--database", outbox.url, "events", "--follow", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as follower:
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        for _ in range(2):
            stories.attempt(stories.mail(), SPAM)
        later = [json.loads(follower.stdout.readline()) for _ in range(2)]
        follower.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
        assert follower.stdout.read() == ""
    assert [each["kind"] for each in (first, *later)] == ["accepted", "bounced", "bounced"]
    assert [each["id"] for each in (first, *later)] == [1, 2, 3]
    if sys.platform != "win32":
        assert follower.returncode == 130


def test_what_an_operator_resolves_or_pauses_is_told_to_the_webhook_too(
    outbox: Program, stories: Stories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_WEBHOOK_URL", "https://shop.example.com/events")
    monkeypatch.setenv("OUTBOX_WEBHOOK_SECRET_FILE", "webhook.secret")
    monkeypatch.setenv("OUTBOX_WEBHOOK_KINDS", "accepted")
    message_id = stories.mail(on_doubt="hold")
    stories.attempt(message_id, None)
    outbox.run("resolve", str(message_id), "--sent")
    outbox.add_account()
    outbox.run("account", "pause", "shop", "--reason", "it moves")
    found = stories.sql("SELECT kind, webhook_due, notice_due FROM outbox_event ORDER BY id")
    assert [(kind, bool(due), bool(told)) for kind, due, told in found] == [
        ("doubt", False, False),
        ("accepted", True, False),
        ("paused", False, False),
    ]
