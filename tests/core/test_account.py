"""Resolving senders, why they may not send, and the breaker's arithmetic."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from outbox.core.account import Account, Registry, Sender, Tls, fold, is_loopback, may_log_in, tripped

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
            assert route.blocked(until) == ""


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


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_may_do_without_tls(host: str) -> None:
    assert is_loopback(host)
    assert may_log_in(Tls.NONE, host)


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "0.0.0.0", "10.0.0.1", "::", "127.1", ""])
def test_any_other_host_needs_tls_for_a_login(host: str) -> None:
    assert not may_log_in(Tls.NONE, host)
    assert may_log_in(Tls.STARTTLS, host)
    assert may_log_in(Tls.IMPLICIT, host)
