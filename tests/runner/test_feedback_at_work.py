"""Feedback from a real runner: a process, a relay, an application behind a URL."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from outbox.store import events
from tests.relay import DROP, EXTENSIONS, Relay
from tests.runner.applications import Application, application
from tests.running import SHOP, Site, eventually

REFUSES_BOB = {"rcpt:bob@example.net": "550 5.1.1 no such user"}
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "webhook.secret"
    path.write_text(SECRET)
    path.chmod(0o600)
    return str(path)


def run(site: Site, *arguments: str, **settings: str) -> str:
    with site.run(*(arguments or ("--until-empty",)), **settings) as runner:
        assert runner.wait() == 0, runner.output
        return runner.output


def told(taking: Application) -> list[tuple[str, int]]:
    return [(event["kind"], event["message_id"]) for event in taking.events]


def test_a_runner_posts_what_became_of_each_mail_and_tells_its_return_path(site: Site, secret: str) -> None:
    with Relay(REFUSES_BOB) as relay, application() as taking:
        site.register(relay.port)
        good, bad = site.insert_one(recipients="ann@example.net"), site.insert_one(recipients="bob@example.net")
        hears = {"webhook_url": taking.url, "webhook_secret_file": secret}
        run(site, notices_failure="true", notices_sender=SHOP, **hears)
        notice = max(good, bad) + 1
        assert sorted(told(taking), key=lambda each: each[1]) == [
            ("accepted", good),
            ("bounced", bad),
            ("accepted", notice),
        ]
        (report,) = [each for each in relay.messages if each.recipients == (SHOP,)]
        parsed = message_from_bytes(report.content, policy=policy.default)
        assert (report.sender, parsed.get_content_type()) == ("", "multipart/report")
        assert parsed["Subject"] == "Undelivered mail: Order 7"
    assert site.states() == {"sent": 2, "failed": 1}


def test_an_application_that_is_away_for_a_while_gets_all_of_it(sqlite_site: Site, secret: str) -> None:
    with Relay() as relay, application() as taking:
        url = taking.url
        sqlite_site.register(relay.port)
        first = sqlite_site.insert(3)
        taking.answers.append(503)
        run(sqlite_site, webhook_url=url, webhook_secret_file=secret)
        second = sqlite_site.insert(3)
        run(sqlite_site, webhook_url=url, webhook_secret_file=secret)
        refused, *taken = taking.requests
    kept = [event for _, body in taken for event in json.loads(body)["events"]]
    assert json.loads(refused[1])["events"][0] == kept[0]
    assert sorted(event["message_id"] for event in kept) == [*first, *second]


def test_silence_after_the_dot_is_told_as_a_doubt_and_then_as_accepted(site: Site) -> None:
    with Relay({"dot": [DROP]}) as relay:
        site.register(relay.port)
        message_id = site.insert_one(recipients="ann@example.net")
        run(site, "--until-empty", "--wait", "10s", retry_doubt_delay="1s")
    found = [(str(event.kind), event.claim_no) for event in events.listing(site.db, message_id=message_id)]
    assert found == [("doubt", 1), ("accepted", 2)]


def test_a_wrong_password_is_told_as_a_pause(site: Site) -> None:
    with Relay({"mail": "530 5.7.0 authentication required"}) as relay:
        site.register(relay.port)
        site.insert(3)
        with site.run() as runner:
            event = eventually(lambda: next(iter(events.listing(site.db, kinds=["paused"])), None), "a pause is told")
            runner.stop()
            assert runner.wait() == 0
    assert event is not None
    assert (event.subject, len(events.listing(site.db))) == ("account=main", 1)
    assert "530 5.7.0 authentication required" in (event.reply or "")


def test_what_a_mail_asks_of_notifications_is_said_to_a_relay_that_understands(site: Site) -> None:
    with Relay(extensions=(*EXTENSIONS, "DSN")) as relay:
        site.register(relay.port)
        message_id = site.insert_one(recipients="ann@example.net", dsn_notify="failure,delay", dsn_ret="hdrs")
        run(site)
    said = [line for line in relay.commands if line.upper().startswith(("MAIL", "RCPT"))]
    assert "RET=HDRS" in said[0]
    assert f"ENVID={message_id}" in said[0]
    assert "NOTIFY=FAILURE,DELAY" in said[1]
    assert "ORCPT=rfc822;ann@example.net" in said[1]


def test_kinds_that_nobody_wants_are_not_recorded(sqlite_site: Site) -> None:
    with Relay(REFUSES_BOB) as relay:
        sqlite_site.register(relay.port)
        sqlite_site.insert_one(recipients="ann@example.net")
        bad = sqlite_site.insert_one(recipients="bob@example.net")
        run(sqlite_site, events_record="bounced, expired")
    assert [(event.kind, event.message_id) for event in events.listing(sqlite_site.db)] == [("bounced", bad)]
