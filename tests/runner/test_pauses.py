"""What a runner has paused is tried by one message at a time, over all runners: real processes, real relays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest

from outbox.clock import Clock
from outbox.store import accounts
from outbox.store.rows import moment
from tests.relay import HANG, Relay
from tests.running import SHOP, Runner, Site, eventually

SOON = {"retry_floor": "50ms"}


def past(**by: float) -> str:
    return str(moment(Clock().now() - timedelta(**by)))


def pause(site: Site, *, probes: int = 1, reason: str = "auth: 535 5.7.8 no") -> None:
    """As a runner has done it, a quarter of an hour ago."""
    site.query(
        "UPDATE outbox_account SET pause_reason = ?, paused_until = ?, probes = ?", reason, past(seconds=1), probes
    )


def end_pauses(site: Site) -> None:
    """Time passes, until whatever is paused is half-open."""
    for table in ("outbox_account", "outbox_sender"):
        site.query(f"UPDATE {table} SET paused_until = ? WHERE paused_until IS NOT NULL", past(seconds=1))
    site.query("UPDATE outbox_account SET breaker_until = ? WHERE breaker_until IS NOT NULL", past(seconds=1))


def probes(site: Site, table: str = "outbox_account") -> int:
    return int(site.query(f"SELECT max(probes) FROM {table}")[0][0])


def until_probes(site: Site, count: int, table: str = "outbox_account") -> None:
    """Until it has been paused so many times in a row."""
    eventually(lambda: probes(site, table) == count, f"pause {count} in a row")


def until_failures(site: Site, count: int) -> None:
    """Until both accounts of the relay say that it failed so many times in a row."""
    read = "SELECT min(breaker_failures), max(breaker_failures) FROM outbox_account"
    eventually(lambda: site.query(read) == [(count, count)], f"failure {count} in a row")


@contextmanager
def two_runners(site: Site, **settings: str) -> Iterator[tuple[Runner, Runner]]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(site.run(**SOON, **settings)) for _ in range(2))
        for each in (first, second):
            each.started()
        yield first, second


def logins(relay: Relay) -> int:
    return sum(line.startswith("AUTH") for line in relay.commands)


@pytest.fixture
def guarded(site: Site) -> Iterator[tuple[Site, Relay, dict[str, str]]]:
    """A relay that wants a login and refuses it, and an account for it with a password; and the settings that name the
    key.
    """
    key, password = site.folder / "key", site.folder / "password"
    settings = {"key_file": str(key)}
    assert site.outbox("key", "generate", **settings)[0] == 0
    password.write_text("correct horse")
    with Relay({"auth": "535 5.7.8 no"}, credentials={"shop": "correct horse"}) as relay:
        login = ("--tls", "none", "--username", "shop", "--password-file", str(password))
        added = site.outbox("account", "add", "main", "--relay", f"127.0.0.1:{relay.port}", *login, **settings)
        assert added[0] == 0, added
        assert site.outbox("sender", "add", SHOP, "--account", "main")[0] == 0
        yield site, relay, settings


def test_two_runners_try_a_login_once_after_each_pause(guarded: tuple[Site, Relay, dict[str, str]]) -> None:
    site, relay, settings = guarded
    site.insert(20)
    pause(site)
    with two_runners(site, **settings):
        for turn in (2, 3, 4):
            until_probes(site, turn)
            site.until(queued=20)
            assert logins(relay) == turn - 1
            end_pauses(site)
        until_probes(site, 5)
        until = accounts.account(site.db, "main").paused_until
        assert until is not None
        assert timedelta(hours=23) < until - Clock().now() < timedelta(hours=25)
        del relay.script["auth"]
        end_pauses(site)
        site.until(sent=20)
        assert site.query("SELECT pause_reason, paused_until, probes, probe_until FROM outbox_account") == [
            (None, None, 0, None)
        ]
        assert 1 + 4 <= logins(relay) <= 1 + 4 + 6
        assert site.query("SELECT count(*) FROM outbox_journal WHERE verb = 'account recover'") == [(1,)]
    site.audit(relay.messages)


def test_a_relay_with_two_accounts_is_tried_by_one_of_them(site: Site) -> None:
    with Relay({"banner": "421 4.3.2 not now"}) as relay:
        site.register(relay.port)
        site.register(relay.port, account="other", sender="other@example.com")
        site.insert(10)
        site.insert(10, sender="other@example.com")
        rested = "UPDATE outbox_account SET breaker_failures = ?, breaker_until = ?, breaker_reason = 'banner: 421'"
        site.query(rested, 5, past(seconds=1))
        with two_runners(site):
            for failures in (6, 7):
                until_failures(site, failures)
                site.until(queued=20)
                assert len(relay.sessions) == failures - 5
                if failures == 6:
                    end_pauses(site)
            relay.script.clear()
            end_pauses(site)
            site.until(sent=20)
            cleared = "SELECT breaker_failures, breaker_until, probe_until FROM outbox_account"
            assert site.query(cleared) == [(0, None, None)] * 2
        site.audit(relay.messages)


def test_a_sender_that_is_refused_is_tried_alone_and_others_go_on(site: Site) -> None:
    with Relay({f"mail:{SHOP}": "553 5.7.1 sender address rejected: not owned by user"}) as relay:
        site.register(relay.port)
        site.query("INSERT INTO outbox_sender (address, account) VALUES ('other@example.com', 'main')")
        site.insert(10)
        with site.run(**SOON):
            until_probes(site, 1, "outbox_sender")
            site.until(queued=10)
            refused = sum(SHOP in line for line in relay.commands)
            end_pauses(site)
            until_probes(site, 2, "outbox_sender")
            site.insert(5, sender="other@example.com")
            site.until(queued=10, sent=5)
            assert sum(SHOP in line for line in relay.commands) == refused + 1
            relay.script.clear()
            end_pauses(site)
            site.until(sent=15)
            assert site.query("SELECT max(probes) FROM outbox_sender") == [(0,)]
        site.audit(relay.messages)


def test_a_probe_that_tells_nothing_leaves_it_to_the_next_message(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.insert(3, due_at=past(hours=2), headers='{"X-Broken": 7}')
        site.insert(2, due_at=past(hours=1), recipients="nobody at all")
        site.insert(10)
        pause(site)
        with site.run(**SOON) as runner:
            eventually(lambda: site.states().get("sent", 0) >= 10, "the account works again")
            assert probes(site) == 0
            assert runner.process.poll() is None
        assert site.query("SELECT count(*) FROM outbox_delivery WHERE state IN ('queued', 'sending')") == [(0,)]


def test_a_prober_that_dies_is_overtaken_when_its_mail_is_taken_back(site: Site) -> None:
    with Relay({"ehlo": [HANG]}) as relay:
        site.register(relay.port)
        site.insert(10)
        pause(site)
        with site.run(**SOON) as first:
            eventually(lambda: relay.commands, "it is under way")
            with site.run(**SOON) as second:
                second.started()
                first.kill()
                site.until(sent=10)
            assert sum(line.startswith("EHLO") for line in relay.sessions[0].commands) == 1
        site.audit(relay.messages)


def test_what_a_person_has_paused_is_never_tried(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.query("INSERT INTO outbox_sender (address, account) VALUES ('other@example.com', 'main')")
        site.query("UPDATE outbox_sender SET pause_reason = 'operator: no', probes = 2 WHERE address = ?", SHOP)
        site.insert(5)
        site.insert(5, sender="other@example.com")
        with site.run(**SOON):
            site.until(queued=5, sent=5)
            site.query("UPDATE outbox_sender SET paused_until = ? WHERE address = ?", past(hours=-1), SHOP)
            site.insert(1, sender="other@example.com")
            site.until(queued=5, sent=6)
        assert site.query("SELECT pause_reason FROM outbox_sender WHERE address = ?", SHOP) == [("operator: no",)]
        assert not any(SHOP in line for line in relay.commands)


def test_an_old_refusal_does_not_pause_a_repaired_account(site: Site) -> None:
    def repaired(session: Any, line: str) -> str | None:
        if len(relay.sessions) == 1:
            with_password = "UPDATE outbox_account SET credential_version = credential_version + 1"
            own = Site(site.url, site.folder)  # a connection of this thread's own
            own.query(with_password)
            own.close()
            return "530 5.7.0 log in first"
        return None

    with Relay({"mail": repaired}) as relay:
        site.register(relay.port, connections=1)
        site.insert(3)
        with site.run(**SOON):
            site.until(sent=3)
        assert site.query("SELECT pause_reason, probes FROM outbox_account") == [(None, 0)]
        assert site.attempts()["paused"] == 1


def test_the_idle_connections_of_what_is_paused_are_closed(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.insert(3)
        with site.run(**SOON):
            site.until(sent=3)
            relay.script["mail"] = "530 5.7.0 log in first"
            site.insert(1)
            site.until(sent=3, queued=1)
            eventually(lambda: all("QUIT" in each.commands for each in relay.sessions), "they are closed", 8)
