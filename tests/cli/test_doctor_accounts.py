"""outbox doctor: what it knows of pauses, brakes and TLS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outbox.core.outcome import Scope
from outbox.core.pause import Pause
from outbox.core.policy import Policy
from outbox.store.filters import written
from tests.cli.installation import checks, runner, well, words_of
from tests.cli.program import Program
from tests.cli.test_pauses import SHOP, failed, pause
from tests.stories import Stories

SECRET = "whsec_c2VjcmV0IG9mIHRoZSBzaG9wLCAzMiBieXRlcy4="


@pytest.fixture
def outbox(program: Program) -> Program:
    return well(program)


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


@pytest.fixture
def shop(outbox: Program, stories: Stories) -> Program:
    """The same with a runner, so that what is due is no failure."""
    runner(stories)
    return outbox


# -- pauses


def test_what_waits_behind_a_pause_is_told_with_it_once(shop: Program, stories: Stories) -> None:
    for sender in (SHOP, SHOP, "ann@example.com"):
        stories.mail(sender=sender)
    pause(shop, Pause(Scope.ACCOUNT, "quota: 452 4.3.1 later", Policy().auth_pauses))
    report = shop.json("doctor")
    (check,) = checks(report, "account", "warn")
    assert re.fullmatch(
        r"3 messages wait: account shop is paused until 20\S+Z: quota: 452 4\.3\.1 later", check["words"]
    )
    assert check["hint"] == "outbox account resume shop"
    assert checks(report, "sender", "warn") == []


def test_an_account_that_is_probed_is_a_warning(shop: Program) -> None:
    pause(shop, Pause(Scope.ACCOUNT, "auth: 535 5.7.8 no", Policy().auth_pauses), timedelta(minutes=15))
    (check,) = checks(shop.json("doctor"), "account", "warn")
    assert check["words"] == "account shop is probing, one message at a time: auth: 535 5.7.8 no"
    assert check["hint"] == "outbox account set-password shop"


def test_a_pause_over_a_token_wants_another_setup(program: Program) -> None:
    program.init()
    relay = ("--relay", "127.0.0.1:1", "--tls", "none", "--username", SHOP)
    program.run("account", "add", "shop", *relay, "--mechanism", "xoauth2")
    program.run("account", "oauth", "shop", "--command", "--", "/bin/true")
    with Stories(program.url) as stories:
        stories.sql("UPDATE outbox_account SET pause_reason = 'auth: 535 5.7.8 no'")
    (check,) = checks(program.json("doctor"), "account", "warn")
    assert check["hint"] == "outbox account oauth shop"


def test_paused_senders_are_warnings_and_many_of_them_are_counted(shop: Program, stories: Stories) -> None:
    for number in (*range(1, 7), 6):
        stories.mail(sender=f"b{number}@example.com")
    for number in range(7):
        shop.run("sender", "add", f"b{number}@example.com", "--account", "shop")
        shop.run("sender", "pause", f"b{number}@example.com", "--reason", "under review", "--for", "2h")
    found = checks(shop.json("doctor"), "sender", "warn")
    assert len(found) == 6
    assert re.fullmatch(
        r"2 messages wait: sender b6@example\.com is paused by operator until \S+Z: under review", found[0]["words"]
    )
    assert found[0]["hint"] == "outbox sender resume b6@example.com"
    assert (found[5]["words"], found[5]["hint"]) == (
        "and 2 senders more that cannot send; 1 message waits for them",
        "outbox sender list",
    )


def test_a_paused_domain_is_resumed_by_a_command_that_a_shell_leaves_alone(shop: Program) -> None:
    shop.run("sender", "pause", "*@example.com")
    (check,) = checks(shop.json("doctor"), "sender", "warn")
    assert check["hint"] == "outbox sender resume '*@example.com'"


@pytest.mark.parametrize("scope", [Scope.ACCOUNT, Scope.SENDER])
def test_a_brake_is_a_warning_with_the_command_that_sends_again(shop: Program, scope: Scope) -> None:
    shop.run("sender", "add", SHOP, "--account", "shop")
    one, two = failed(shop, 2)
    schedule = Policy().brake_pauses
    pause(shop, Pause(scope, "brake: dot: 554 5.7.1 no", schedule, brake="dot 554 5.7.1", failed=(one, two)))
    name = "account" if scope is Scope.ACCOUNT else "sender"
    brake, paused = checks(shop.json("doctor"), name, "warn")
    assert "is braked by 'dot 554 5.7.1'; 2 messages had failed before that" in brake["words"]
    assert brake["hint"] == f"outbox retry {one} {two}"
    assert "brake: dot: 554 5.7.1 no" in paused["words"]
    shop.run("retry", str(one), str(two))
    assert len(checks(shop.json("doctor"), name, "warn")) == 1, "what was retried is nobody's trouble any more"


def test_mail_that_waits_for_a_relay_is_told_once_for_all_senders(shop: Program, stories: Stories) -> None:
    until = written(datetime.now(UTC) + timedelta(minutes=5))
    stories.sql("UPDATE outbox_account SET breaker_failures = 6, breaker_reason = 'refused', breaker_until = ?", until)
    stories.mail(sender="ann@example.com")
    stories.mail(sender="ben@example.com")
    report = shop.json("doctor")
    assert words_of(report, "relay", "warn") == ["relay smtp.example.com:587: the last 6 attempts failed: refused"]
    (words,) = words_of(report, "sender", "warn")
    assert words.startswith("2 messages from 2 senders cannot go: relay smtp.example.com:587 is left alone until ")


def test_a_command_for_an_unknown_sender_is_safe_to_paste(shop: Program, stories: Stories) -> None:
    stories.mail(sender="`reboot`@example.org")
    (check,) = checks(shop.json("doctor"), "sender", "warn")
    assert "outbox sender add '`reboot`@example.org' --account NAME" in check["hint"]


# -- TLS


@pytest.mark.parametrize(
    ("relay", "tls", "result", "words"),
    [
        ("smtp.example.com:25", "none", "warn", "talks to smtp.example.com:25 without TLS"),
        ("smtp.example.com:25", "opportunistic", "note", "mail goes in clear as long as smtp.example.com:25 has never"),
        ("127.0.0.1:25", "none", "", ""),
        ("localhost:25", "opportunistic", "", ""),
        ("smtp.example.com:587", "starttls", "", ""),
    ],
)
def test_what_goes_in_clear_is_said(program: Program, relay: str, tls: str, result: str, words: str) -> None:
    program.init().run("account", "add", "plain", "--relay", relay, "--tls", tls)
    found = [each for each in program.json("doctor")["checks"] if each["check"] == "tls"]
    assert [each["result"] for each in found] == ([result] if result else [])
    assert all(words in each["words"] for each in found)


def test_a_relay_that_has_offered_tls_must_and_the_note_says_so(program: Program) -> None:
    program.init().run("account", "add", "plain", "--relay", "smtp.example.com:25", "--tls", "opportunistic")
    with Stories(program.url) as stories:
        stories.sql("UPDATE outbox_account SET starttls_seen_at = '2026-03-01T00:00:00.000Z'")
    (check,) = checks(program.json("doctor"), "tls", "note")
    assert "has offered STARTTLS, so it must from now on" in check["words"]


def test_authorities_that_cannot_be_read_are_a_failure(program: Program) -> None:
    authority = Path("ca.pem")
    authority.write_bytes(b"")
    relay = ("--relay", "smtp.example.com:587", "--tls", "starttls")
    program.init().run("account", "add", "inside", *relay, "--ca-file", str(authority))
    authority.unlink()
    (check,) = checks(program.json("doctor", code=1), "tls", "fail")
    assert check["words"].startswith("account inside cannot connect: CA file ")
    assert "put the file back" in check["hint"]


def test_a_malformed_pin_is_a_failure(program: Program) -> None:
    relay = ("--relay", "smtp.example.com:587", "--tls", "starttls")
    program.init().run("account", "add", "inside", *relay, "--tls-pin", "3b" * 32)
    assert checks(program.json("doctor"), "tls", "fail") == []
    with Stories(program.url) as stories:
        stories.sql("UPDATE outbox_account SET tls_pins = ?", f"{'3b' * 32} 3b9f")
    (check,) = checks(program.json("doctor", code=1), "tls", "fail")
    assert "TLS pin '3b9f' is not the SHA-256 of a certificate" in check["words"]
