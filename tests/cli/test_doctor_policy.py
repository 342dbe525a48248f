"""outbox doctor: what it knows of staging, rules, limits, suppression, and of who is told."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from outbox.core.limits import Span, aligned
from outbox.store.filters import written
from tests.cli.installation import checks, well, words_of
from tests.cli.program import Program
from tests.stories import Stories

SECRET = "whsec_c2VjcmV0IG9mIHRoZSBzaG9wLCAzMiBieXRlcy4="


@pytest.fixture
def outbox(program: Program) -> Program:
    return well(program)


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


# -- staging, rules, limits, suppression


@pytest.mark.parametrize(
    ("mode", "env", "words"),
    [
        ("off", {}, "off: this runner mails nobody; all mail waits"),
        ("redirect", {"REDIRECT_TO": "qa@example.org"}, "redirect: this runner mails qa@example.org and nobody else"),
        (
            "allowlist",
            {"ALLOW": "a@example.org, *@b.example, c@example.org, d@example.org"},
            "allowlist: this runner mails only a@example.org, *@b.example, c@example.org and 1 more; all others bounce",
        ),
    ],
)
def test_a_mode_for_staging_is_a_warning_that_says_who_gets_mail(
    outbox: Program, monkeypatch: pytest.MonkeyPatch, mode: str, env: dict[str, str], words: str
) -> None:
    assert [each for each in outbox.json("doctor")["checks"] if each["check"] == "deliver"] == []
    for name, value in {"MODE": mode, **env}.items():
        monkeypatch.setenv(f"OUTBOX_DELIVER_{name}", value)
    (check,) = checks(outbox.json("doctor"), "deliver", "warn")
    assert check["words"] == words
    assert "the environment variable OUTBOX_DELIVER_MODE" in check["hint"]


def test_a_configuration_that_would_mail_from_a_copy_is_a_note_with_the_line_that_is_missing(outbox: Program) -> None:
    file = outbox.home / "outbox.toml"
    content = file.read_text(encoding="utf-8")
    line = re.search(r"^database_uuid = .*$", content, flags=re.MULTILINE)
    assert line is not None
    file.write_text(content.replace(line[0], ""), encoding="utf-8")
    (check,) = checks(outbox.json("doctor"), "deliver", "note")
    assert "also from a copy of this database" in check["words"]
    assert check["hint"] == f"{line[0]} in outbox.toml"


def test_a_rule_that_is_none_is_a_warning(outbox: Program, stories: Stories) -> None:
    outbox.run("rule", "add", "slower", "--verdict", "defer", "--scope", "account")
    assert words_of(outbox.json("doctor"), "rule", "ok") == ["1 reply rule"]
    stories.sql("INSERT INTO outbox_reply_rule (pattern, verdict, scope) VALUES ('(', 'defer', 'message')")
    (check,) = checks(outbox.json("doctor"), "rule", "warn")
    assert check["words"].startswith("reply rule 2 is not asked: ")
    assert check["hint"] == "outbox rule remove 2"


def test_a_limit_of_nobody_is_a_warning(outbox: Program, stories: Stories) -> None:
    outbox.run("limit", "set", "sender", "*@example.com", "--per-day", "5")
    outbox.run("limit", "set", "domain", "example.net", "--per-day", "5")
    assert words_of(outbox.json("doctor"), "limit", "ok") == ["2 limits, none used up"]
    stories.sql("INSERT INTO outbox_limit (scope, name, per_day) VALUES ('account', 'gone', 5)")
    stories.sql("INSERT INTO outbox_limit (scope, name, per_day) VALUES ('sender', '*@example.org', 5)")
    assert [(each["words"], each["hint"]) for each in checks(outbox.json("doctor"), "limit", "warn")] == [
        ("there is a limit for account gone, and no such account", "outbox limit remove account gone"),
        ("there is a limit for sender *@example.org, and no such sender", "outbox limit remove sender '*@example.org'"),
    ]


def test_a_limit_that_is_used_up_is_a_note_with_the_time(outbox: Program, stories: Stories) -> None:
    outbox.run("limit", "set", "account", "shop", "--per-day", "1200", "--per-minute", "30")
    day = aligned(Span.DAY, datetime.now(UTC))
    row = "('account', 'shop', 'day', ?, 1199, 0)"
    stories.sql(f"INSERT INTO outbox_usage (scope, name, span, began_at, used, before) VALUES {row}", written(day))
    assert checks(outbox.json("doctor"), "limit", "note") == []
    stories.sql("UPDATE outbox_usage SET used = 1200")
    (words,) = words_of(outbox.json("doctor"), "limit", "note")
    until = re.fullmatch(r"limit of 1,200 a day for account shop is used up until (\S+)", words)
    assert until is not None
    assert day + timedelta(days=1) <= datetime.fromisoformat(until[1]) < day + timedelta(days=1, minutes=2)


def test_the_suppressed_are_counted_as_long_as_they_are(outbox: Program, stories: Stories) -> None:
    outbox.run("suppress", "add", "ann@example.net", "*@example.org", "--reason", "hard bounce")
    sql = "INSERT INTO outbox_suppression (address, reason, until) VALUES ('b@example.net', 'x', ?)"
    stories.sql(sql, "2026-03-01T00:00:00.000Z")
    assert words_of(outbox.json("doctor"), "suppression", "note") == ["2 addresses and domains get no mail"]
    outbox.run("suppress", "remove", "ann@example.net", "*@example.org")
    assert checks(outbox.json("doctor"), "suppression", "note") == []


# -- who is told


@pytest.fixture
def hooked(outbox: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """With a webhook, whose URL has a secret in it."""
    secret = outbox.home / "webhook.secret"
    secret.write_text(SECRET + "\n", encoding="utf-8")
    secret.chmod(0o600)
    monkeypatch.setenv("OUTBOX_WEBHOOK_URL", "https://hooks.example.com/canary-path")
    monkeypatch.setenv("OUTBOX_WEBHOOK_SECRET_FILE", str(secret))
    return outbox


def test_a_webhook_without_its_library_is_a_failure(hooked: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    report = hooked.json("doctor")
    assert words_of(report, "webhook", "ok") == ["posts to hooks.example.com"]
    monkeypatch.setitem(sys.modules, "httpx2", None)
    (check,) = checks(hooked.json("doctor", code=1), "webhook", "fail")
    assert check["hint"] == "pip install 'mail-outbox[webhook]'"
    assert "canary-path" not in "".join(hooked.printed)


def test_a_webhook_whose_secret_is_missing_is_a_failure(hooked: Program) -> None:
    (hooked.home / "webhook.secret").unlink()
    (check,) = checks(hooked.json("doctor", code=1), "webhook", "fail")
    assert check["words"].startswith("cannot read webhook.secret_file ")


@pytest.mark.skipif(os.name == "nt", reason="POSIX file modes")
def test_a_webhook_whose_secret_others_can_read_is_a_failure(hooked: Program) -> None:
    (hooked.home / "webhook.secret").chmod(0o640)
    (check,) = checks(hooked.json("doctor", code=1), "webhook", "fail")
    assert "is open to other users" in check["words"]
    assert check["hint"].startswith("chmod 600 ")
    assert SECRET not in "".join(hooked.printed)


def test_events_that_nobody_is_told_are_a_warning_after_ten_minutes(hooked: Program, stories: Stories) -> None:
    _event(stories, "webhook_due", minutes=9)
    _event(stories, "notice_due", minutes=60)
    assert checks(hooked.json("doctor"), "webhook", "warn") == []
    _event(stories, "webhook_due", minutes=25)
    (words,) = words_of(hooked.json("doctor"), "webhook", "warn")
    expected = r"2 events are still to be told, the oldest for 25m.*: hooks\.example\.com does not accept them, or .*"
    assert re.fullmatch(expected, words)


def test_notices_in_the_name_of_a_stranger_are_a_failure(
    outbox: Program, stories: Stories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_NOTICES_SENDER", "postmaster@example.org")
    assert [each for each in outbox.json("doctor")["checks"] if each["check"] == "notices"] == []
    monkeypatch.setenv("OUTBOX_NOTICES_FAILURE", "true")
    (check,) = checks(outbox.json("doctor", code=1), "notices", "fail")
    assert check["hint"] == "outbox sender add postmaster@example.org --account NAME"
    monkeypatch.setenv("OUTBOX_NOTICES_SENDER", "postmaster@example.com")
    assert words_of(outbox.json("doctor"), "notices", "ok") == ["from postmaster@example.com"]
    _event(stories, "notice_due", minutes=11)
    (words,) = words_of(outbox.json("doctor"), "notices", "warn")
    assert words.startswith("1 event is still to be told, the oldest for 11m")


# -- planting


def _event(stories: Stories, flag: str, *, minutes: int) -> None:
    """One that somebody is still to hear of, so old."""
    at = written(datetime.now(UTC) - timedelta(minutes=minutes))
    due = "1" if "sqlite" in type(stories.store).__module__ else "true"
    stories.sql(f"INSERT INTO outbox_event (at, kind, subject, {flag}) VALUES (?, 'paused', 'account=shop', {due})", at)
