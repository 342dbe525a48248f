"""Resolving senders, why they may not send, and the breaker's arithmetic."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from outbox.core.account import (
    BY_OPERATOR,
    PROBING,
    Account,
    Registry,
    Route,
    Sender,
    Tls,
    fold,
    is_loopback,
    may_log_in,
    tripped,
)
from outbox.core.outcome import Scope
from outbox.core.pause import Probe, Subject

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOP = Account("shop", "smtp.example.com", 587, Tls.STARTTLS)
OTHER = Account("other", "2001:db8::1", 25, Tls.NONE)


def test_an_exact_address_wins_over_its_domain_and_nothing_else_resolves() -> None:
    registry = Registry([SHOP, OTHER], [Sender("a@example.com", "other"), Sender("*@example.com", "shop")])
    exact, whole = registry.resolve("A@Example.COM"), registry.resolve("b@example.com")
    assert exact is not None
    assert whole is not None
    assert (exact.account.name, whole.account.name) == ("other", "shop")
    for stranger in (
        "a@sub.example.com",
        "a@example.com.evil.test",
        "example.com",
        "",
        "@",
        "*@example.com",
        "@example.com",
    ):
        assert registry.resolve(stranger) is None, stranger


def test_an_address_belongs_to_one_account_only() -> None:
    registry = Registry([SHOP, OTHER], [Sender("a@example.com", "other"), Sender("*@example.com", "shop")])
    assert registry.allows("other", "a@example.com")
    assert not registry.allows("shop", "a@example.com")
    assert registry.allows("shop", "b@example.com")
    assert not registry.allows("shop", "b@example.org")


def test_a_domain_in_its_own_script_is_the_same_domain() -> None:
    registry = Registry([SHOP], [Sender("*@xn--bcher-kva.example", "shop")])
    for written in ("x@Bücher.example", "x@bücher.example", "x@XN--BCHER-KVA.example"):
        assert registry.allows("shop", written), written


def test_only_ascii_letters_of_the_local_part_are_folded_as_the_database_does_it() -> None:
    assert fold("ÜBER@Example.com") == "Über@example.com"
    assert fold("STRASSE@a.b") == "strasse@a.b"
    assert fold("not a domain@..") == "not a domain@.."


def test_a_sender_whose_account_is_missing_does_not_resolve() -> None:
    assert Registry([], [Sender("a@example.com", "gone")]).resolve("a@example.com") is None


@pytest.mark.parametrize("until", [None, NOW + timedelta(seconds=1)])
def test_whatever_is_paused_says_why_and_until_when(until: datetime | None) -> None:
    words = " until 2026-03-01T12:00:01Z" if until else ""
    reason = "mail: 553 no"
    own, whole = Sender("a@example.com", "shop"), Sender("*@example.com", "shop")
    cases = {
        f"sender a@example.com is paused{words}: mail: 553 no": (
            [SHOP],
            [replace(own, pause_reason=reason, paused_until=until), whole],
        ),
        f"sender *@example.com is paused{words}: mail: 553 no": (
            [SHOP],
            [own, replace(whole, pause_reason=reason, paused_until=until)],
        ),
        f"account shop is paused{words}: mail: 553 no": (
            [replace(SHOP, pause_reason=reason, paused_until=until)],
            [own, whole],
        ),
    }
    for expected, (accounts, senders) in cases.items():
        route = Registry(accounts, senders).resolve("a@example.com")
        assert route is not None
        assert route.blocked(NOW) == expected
        if until is not None:
            assert route.blocked(until) == expected.replace(f"paused{words}", PROBING)


def test_a_paused_domain_of_another_account_does_not_stop_an_exact_address() -> None:
    senders = [Sender("a@example.com", "other"), Sender("*@example.com", "shop", pause_reason="no")]
    route = Registry([SHOP, OTHER], senders).resolve("a@example.com")
    assert route is not None
    assert route.blocked(NOW) == ""


def test_a_relay_left_alone_blocks_until_its_time_is_up() -> None:
    resting = replace(OTHER, breaker_until=NOW + timedelta(minutes=1), breaker_reason="connect: refused")
    expected = "relay [2001:db8::1]:25 is left alone until 2026-03-01T12:01:00Z: connect: refused"
    assert resting.blocked(NOW) == expected
    assert resting.blocked(NOW + timedelta(minutes=1)) == ""


def test_the_breaker_opens_at_the_fifth_failure_and_doubles_to_fifteen_minutes() -> None:
    waits, failures = [], 0
    for _ in range(12):
        failures, until = tripped(failures, NOW)
        waits.append(None if until is None else int((until - NOW).total_seconds()))
    assert waits == [None, None, None, None, 30, 60, 120, 240, 480, 900, 900, 900]
    assert tripped(10**9, NOW) == (10**9 + 1, NOW + timedelta(minutes=15))


# ---- half-open

ENDED = NOW - timedelta(seconds=1)
SENDER = Sender("a@example.com", "shop")
PAUSED = replace(SHOP, pause_reason="auth: 535 no", paused_until=ENDED)
RESTED = replace(SHOP, breaker_failures=5, breaker_until=ENDED, breaker_reason="connect: refused")
THE_ACCOUNT = Subject(Scope.ACCOUNT, "shop")
THE_RELAY = Subject(Scope.RELAY, "smtp.example.com", 587)
THE_SENDER = Subject(Scope.SENDER, "a@example.com")


@pytest.mark.parametrize(
    ("route", "subjects"),
    [
        (Route(PAUSED, SENDER), (THE_ACCOUNT,)),
        (Route(RESTED, SENDER), (THE_RELAY,)),
        (Route(SHOP, replace(SENDER, pause_reason="mail: 553 no", paused_until=NOW)), (THE_SENDER,)),
        (
            Route(
                replace(RESTED, pause_reason="x", paused_until=NOW), replace(SENDER, pause_reason="y", paused_until=NOW)
            ),
            (THE_RELAY, THE_ACCOUNT, THE_SENDER),
        ),
        (
            Route(SHOP, SENDER, Sender("*@example.com", "shop", pause_reason="x", paused_until=ENDED)),
            (Subject(Scope.SENDER, "*@example.com"),),
        ),
    ],
)
def test_what_a_runner_has_paused_is_half_open_when_that_is_over(route: Route, subjects: tuple[Subject, ...]) -> None:
    assert route.half_open(NOW) == subjects
    assert not route.is_closed(NOW)
    assert PROBING in route.blocked(NOW)
    assert not route.admits(None, NOW)
    assert route.admits(Probe(subjects, NOW), NOW)
    assert not route.admits(Probe(subjects[1:], NOW), NOW)


@pytest.mark.parametrize(
    "account",
    [
        SHOP,
        replace(PAUSED, pause_reason=f"{BY_OPERATOR}moving"),
        replace(PAUSED, paused_until=None),
        replace(PAUSED, paused_until=NOW + timedelta(seconds=1)),
        replace(RESTED, breaker_until=NOW + timedelta(seconds=1)),
        replace(RESTED, breaker_failures=4),
    ],
    ids=["no pause", "a person's", "without an end", "not over", "resting", "never tripped"],
)
def test_nothing_else_is_half_open(account: Account) -> None:
    assert Route(account, SENDER).half_open(NOW) == ()


def test_a_probe_does_not_get_through_a_new_pause() -> None:
    paused_again = replace(PAUSED, paused_until=NOW + timedelta(hours=1))
    assert not Route(paused_again, SENDER).admits(Probe((THE_ACCOUNT,), NOW), NOW)


def test_somebody_tries_for_as_long_as_the_row_says() -> None:
    tried = Route(replace(PAUSED, probe_until=NOW + timedelta(seconds=1)), SENDER)
    assert tried.is_probed(NOW)
    assert not tried.is_probed(NOW + timedelta(seconds=1))
    assert not Route(PAUSED, SENDER).is_probed(NOW)


def test_a_pause_is_named_before_what_is_only_probing() -> None:
    route = Route(replace(SHOP, pause_reason="auth: 535 no"), replace(SENDER, pause_reason="x", paused_until=ENDED))
    assert route.blocked(NOW) == "account shop is paused: auth: 535 no"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_may_do_without_tls(host: str) -> None:
    assert is_loopback(host)
    assert may_log_in(Tls.NONE, host)


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "0.0.0.0", "10.0.0.1", "::", "127.1", ""])
def test_any_other_host_needs_tls_for_a_login(host: str) -> None:
    assert not may_log_in(Tls.NONE, host)
    assert may_log_in(Tls.STARTTLS, host)
    assert may_log_in(Tls.IMPLICIT, host)
