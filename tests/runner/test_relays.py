"""A relay that refuses everybody, is away, does not know our password, or falls silent: its fault fails no message."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import pytest

from tests.relay import Relay
from tests.running import Site, eventually

SOON = {"retry_floor": "50ms"}
"""The wait after a fault of a relay whose breaker has not tripped."""


@pytest.mark.parametrize(
    "script",
    [{"banner": "554 5.3.2 no service here"}, {"ehlo": "421 4.3.2 come back later"}],
    ids=["554-at-the-banner", "421-at-EHLO"],
)
def test_a_relay_that_refuses_everybody_fails_no_message(sqlite_site: Site, script: Mapping[str, Any]) -> None:
    site = sqlite_site
    with Relay(script) as relay:
        site.register(relay.port)
        site.insert(20)
        with site.run(**SOON) as runner:
            rests(site)
            assert len(relay.sessions) < 10, "it is left alone after five failures, but for those under way"
            relay.script.clear()
            assert site.outbox("account", "resume", "main")[0] == 0
            site.until(sent=20)
            assert runner.process.poll() is None
        assert len(relay.messages) == 20
        site.audit(relay.messages)


def test_a_relay_that_is_away_costs_no_message_anything(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens: connections are refused
        port = taken.getsockname()[1]
        site.register(port)
        site.insert(20)
        with site.run(**SOON) as runner:
            rests(site)
            with Relay() as relay:  # it comes back at another port
                site.query("UPDATE outbox_account SET relay_port = ?, breaker_until = NULL", relay.port)
                site.until(sent=20)
            assert runner.process.poll() is None
        assert site.query("SELECT max(breaker_failures) FROM outbox_account") == [(0,)], "one success closes it"
        site.audit(relay.messages)


def test_what_met_a_relay_that_is_away_is_deferred_and_a_retry_sends_it(site: Site) -> None:
    with Relay() as relay:
        site.register(1)  # nobody is there
        [number] = site.insert(1)
        with site.run("--until-empty") as runner:
            assert runner.wait() == 0
        assert site.query("SELECT state FROM outbox_status") == [("deferred",)]
        assert "deferred" in site.outbox("show", str(number))[1]
        assert site.outbox("stats", "--json")[1].count('"deferred": 1') == 1
        site.query("UPDATE outbox_account SET relay_port = ?", relay.port)
        assert site.outbox("retry", "--state", "deferred", "--yes")[0] == 0
        with site.run("--until-empty") as runner:
            assert runner.wait() == 0
        assert site.states() == {"sent": 1}


def rests(site: Site) -> None:
    """Until the breaker has tripped: people can see it, and no message has failed or been counted against."""
    eventually(lambda: site.query("SELECT 1 FROM outbox_account WHERE breaker_until IS NOT NULL"), "the breaker trips")
    site.until(queued=20)
    assert "is left alone until" in site.outbox("account", "list")[1]
    assert site.query("SELECT max(failures), max(doubts) FROM outbox_delivery") == [(0, 0)]
    assert set(site.attempts()) <= {"paused", "relinquished"}


def test_a_wrong_password_pauses_the_account_after_a_login_a_connection(sqlite_site: Site) -> None:
    site = sqlite_site
    key, password = str(site.folder / "key"), site.folder / "password"
    assert site.outbox("key", "generate", key_file=key)[0] == 0
    with Relay(credentials={"shop": "correct horse"}) as relay:
        password.write_text("battery staple")
        login = ("--tls", "none", "--username", "shop", "--password-file", str(password))
        address = f"127.0.0.1:{relay.port}"
        assert site.outbox("account", "add", "main", "--relay", address, *login, key_file=key)[0] == 0
        assert site.outbox("sender", "add", "shop@example.com", "--account", "main")[0] == 0
        site.insert(20)
        with site.run("-q", key_file=key) as runner:
            eventually(
                lambda: site.query("SELECT 1 FROM outbox_account WHERE pause_reason IS NOT NULL"), "it is paused"
            )
            site.until(queued=20)
            assert 1 <= sum(line.startswith("AUTH") for line in relay.commands) <= 3, "providers lock who tries on"
            assert site.query("SELECT max(failures) FROM outbox_delivery") == [(0,)]
            assert "paused until" in site.outbox("account", "list")[1]

            password.write_text("correct horse")
            changed = site.outbox("account", "set-password", "main", "--password-file", str(password), key_file=key)
            assert changed[0] == 0, changed
            site.until(sent=20)
            runner.stop()
            assert runner.wait() == 0
            assert "battery" not in runner.output
        site.audit(relay.messages)
