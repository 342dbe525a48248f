"""Operators' rules and a relay's own words, in the hands of the real runner."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from outbox.core.outcome import Scope, Verdict
from outbox.store.journal import Act
from outbox.store.rows import moment_of
from outbox.store.rules import add_rule
from tests.relay import Relay
from tests.runner.errands import mail, send
from tests.running import Site

NOW = datetime.fromisoformat("2026-03-01T12:00:00Z")


def add(site: Site, pattern: str, verdict: Verdict, scope: Scope, **how: Any) -> int:
    with site.db.atomic():
        return add_rule(site.db, Act("ann", NOW), pattern=pattern, verdict=verdict, scope=scope, **how).id


def waits(site: Site, message_id: int) -> timedelta:
    """From the end of the attempt to the due time."""
    due, ended = moment_of(site.delivery(message_id)["due_at"]), moment_of(site.attempt(message_id)["ended_at"])
    return due - ended


def test_a_rule_makes_a_refusal_for_good_one_for_now_and_the_reply_is_kept(site: Site, tmp_path: Path) -> None:
    with Relay({"rcpt": ["550 5.7.1 come on a Monday"]}) as relay:
        site.register(relay.port)
        rule = add(site, "monday", Verdict.DEFER, Scope.RECIPIENT, delay=timedelta(hours=20))
        message_id = mail(site)
        send(site, tmp_path)
        attempt, delivery = site.attempt(message_id), site.delivery(message_id)
        assert (attempt["outcome"], attempt["rule"]) == ("deferred", rule)
        assert (attempt["code"], attempt["status"], attempt["reply"]) == (550, "5.7.1", "come on a Monday")
        assert (delivery["state"], delivery["failures"]) == ("queued", 1)
        assert timedelta(hours=19) < waits(site, message_id) < timedelta(hours=21), "longer than retry.ceiling"


def test_a_rule_makes_a_refusal_for_now_one_for_good(site: Site, tmp_path: Path) -> None:
    with Relay({"dot": "451 4.2.1 account disabled"}) as relay:
        site.register(relay.port)
        rule = add(site, r"^451 4\.2\.1 .*disabled", Verdict.BOUNCE, Scope.MESSAGE)
        message_id = mail(site)
        send(site, tmp_path)
        assert site.delivery(message_id)["state"] == "failed"
        assert (site.attempt(message_id)["outcome"], site.attempt(message_id)["rule"]) == ("bounced", rule)


def test_a_rule_that_reaches_the_account_pauses_it_and_fails_no_message(site: Site, tmp_path: Path) -> None:
    with Relay({"rcpt": "550 Wartungsfenster"}) as relay:
        site.register(relay.port)
        rule = add(site, "wartung", Verdict.BOUNCE, Scope.ACCOUNT)
        message_id = mail(site)
        send(site, tmp_path)
        assert (site.delivery(message_id)["state"], site.delivery(message_id)["failures"]) == ("queued", 0)
        assert (site.attempt(message_id)["outcome"], site.attempt(message_id)["rule"]) == ("paused", rule)
        assert site.query("SELECT pause_reason FROM outbox_account") == [("rcpt: 550 Wartungsfenster",)]


def test_a_rule_of_another_relay_does_not_count(site: Site, tmp_path: Path) -> None:
    with Relay({"rcpt": "550 5.7.1 come on a Monday"}) as relay:
        site.register(relay.port)
        add(site, "monday", Verdict.DEFER, Scope.RECIPIENT, relay="*.example.com")
        message_id = mail(site)
        send(site, tmp_path)
        assert site.delivery(message_id)["state"] == "failed"
        assert site.attempt(message_id)["rule"] is None


def test_a_row_that_is_no_rule_stops_no_mail(site: Site, tmp_path: Path) -> None:
    with Relay({"rcpt:bob@example.net": "550 5.1.1 unknown"}) as relay:
        site.register(relay.port)
        site.query("INSERT INTO outbox_reply_rule (pattern, verdict, scope) VALUES ('(', 'defer', 'relay')")
        refused, welcome = mail(site, recipients="bob@example.net"), mail(site)
        send(site, tmp_path)
        assert site.delivery(refused)["state"] == "failed"
        assert site.delivery(welcome)["state"] == "sent"


def test_a_relay_that_says_when_is_asked_then(site: Site, tmp_path: Path) -> None:
    script = {
        "rcpt:bob@example.net": "451 4.3.0 try again in 40 minutes",
        "rcpt:cyd@example.net": "450 4.2.0 greylisted",
    }
    with Relay(script) as relay:
        site.register(relay.port)
        told, greylisted = (mail(site, recipients=f"{each}@example.net") for each in ("bob", "cyd"))
        send(site, tmp_path)
        assert timedelta(minutes=40) <= waits(site, told) <= timedelta(minutes=41)
        assert timedelta(minutes=4, seconds=50) <= waits(site, greylisted) <= timedelta(minutes=6)
