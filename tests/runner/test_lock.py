"""The runner and the applications share a database: neither keeps the other out."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from outbox.store.database import connect, dialect, sqlite_path
from outbox.store.rows import moment
from tests.relay import HANG, Relay, Session
from tests.relay_session import Answer
from tests.running import Program, Site, eventually

APPLICATION = """
import json, sqlite3, sys, time

db = sqlite3.connect(sys.argv[1])  # as it comes: five seconds of patience
until = time.monotonic() + float(sys.argv[2])
waits, errors = [], []
while time.monotonic() < until:
    began = time.perf_counter()
    try:
        with db:
            db.execute("INSERT INTO outbox (sender, recipients, subject, text_body) VALUES "
                       "('shop@example.com', 'ann@example.net', 'Order 7', 'Thanks')")
    except sqlite3.Error as error:
        errors.append(f"{type(error).__name__}: {error}")
    waits.append(time.perf_counter() - began)
waits.sort()
print(json.dumps({"inserted": len(waits) - len(errors), "errors": errors, "median": waits[len(waits) // 2],
                  "p99": waits[len(waits) * 99 // 100], "longest": waits[-1]}))
"""
BACKLOG = 3000


def test_applications_insert_without_an_error_while_the_runner_drains_at_full_speed(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port, connections=10)
        site.insert(BACKLOG)
        with site.run("-q") as runner:
            relay.wait(50)
            command = [sys.executable, "-c", APPLICATION, sqlite_path(site.url), "2"]
            with Program(command, site.folder) as application:
                before, began = len(relay.messages), time.monotonic()
                assert application.wait() == 0
                rate = (len(relay.messages) - before) / (time.monotonic() - began)
                found = json.loads(application.output)
            waits = ", ".join(f"{name} {found[name] * 1000:.1f} ms" for name in ("median", "p99", "longest"))
            print(f"{found['inserted']} inserts: {waits}; meanwhile {rate:.0f} mails a second")
            assert found["errors"] == []
            assert found["inserted"] > 100
            assert found["p99"] < 1
            assert rate > 50, "the runner was not kept out either"
            runner.stop()
            assert runner.wait() == 0
            assert runner.complaints == []
        assert set(site.states()) <= {"sent", "queued"}
        assert sum(site.states().values()) == BACKLOG + found["inserted"]
        assert set(site.attempts()) <= {"accepted", "relinquished"}
        site.audit(relay.messages)


@pytest.mark.parametrize("stage", ["data", "dot"], ids=["before-the-mark", "before-the-settlement"])
def test_a_lock_held_for_three_seconds_loses_nothing(sqlite_site: Site, stage: str) -> None:
    held_for_three_seconds(sqlite_site, stage)


def test_a_locked_table_loses_nothing(postgres_site: Site) -> None:
    held_for_three_seconds(postgres_site, "dot")


def held_for_three_seconds(site: Site, stage: str) -> None:
    asked, locked = threading.Event(), threading.Event()

    def answer(session: Session, line: str) -> Answer:
        asked.set()
        locked.wait(10)
        return None

    with Relay({stage: [None, None, answer]}) as relay:
        site.register(relay.port)
        site.insert(12)
        with site.run():
            assert asked.wait(10)
            with site.db.atomic():  # on SQLite this is the lock
                if dialect(site.db) == "postgres":
                    site.query("LOCK TABLE outbox_delivery IN ACCESS EXCLUSIVE MODE")
                locked.set()
                until = time.monotonic() + 3
                eventually(lambda: time.monotonic() > until, "three seconds")
            released_at = time.monotonic()
            site.until(sent=12)
            took = time.monotonic() - released_at
            print(f"all sent {took:.2f} s after the lock was released")
            assert took < 2
        assert site.attempts() == {"accepted": 12}
        site.audit(relay.messages)


def test_two_signals_end_a_runner_that_waits_for_the_database(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.insert(3)
        with site.db.atomic():
            if dialect(site.db) == "postgres":
                site.query("LOCK TABLE outbox_runner IN ACCESS EXCLUSIVE MODE")
            with site.run("-q") as runner:
                eventually(lambda: waits_for_the_lock(site), "it has connected, and waits")
                stopped_at = time.monotonic()
                runner.process.send_signal(signal.SIGTERM)
                runner.process.send_signal(signal.SIGINT)
                assert runner.wait() == 0
                assert time.monotonic() - stopped_at < 3
        assert site.states() == {"queued": 3}
        assert relay.messages == []


def waits_for_the_lock(site: Site) -> bool:
    """On PostgreSQL the server says so; on SQLite the runner takes its lock file just before."""
    if dialect(site.db) == "postgres":
        return bool(site.query("SELECT 1 FROM pg_locks WHERE relation = 'outbox_runner'::regclass AND NOT granted"))
    return any(site.folder.glob("*.runner-*"))


def test_a_row_that_somebody_else_has_locked_holds_up_nobody_but_itself(postgres_site: Site) -> None:
    """An operator's forgotten transaction, or a host that went away in the middle of one."""
    site = postgres_site
    with Relay({"dot": [HANG]}) as relay:
        site.register(relay.port)
        [stuck] = site.insert(1)
        later = moment(datetime.now(UTC) + timedelta(hours=1))
        with site.run("-q") as victim, closing(connect(site.url)) as somebody:
            eventually(lambda: "." in relay.commands, "its dot is written")
            [late] = site.insert(1, due_at=later, expires_at=moment(datetime.now(UTC) + timedelta(seconds=1)))
            with somebody.atomic() as transaction:
                somebody.execute_sql("SELECT 1 FROM outbox_delivery FOR UPDATE")
                victim.kill()
                with site.run("-q"):
                    eventually(lambda: len(site.runners()) == 1, "the first one is declared dead")
                    site.insert(5)
                    eventually(lambda: site.states().get("sent") == 5, "the others are sent", 5)
                    assert site.delivery(stuck)["state"] == "sending"
                    assert site.delivery(late)["state"] == "queued"
                    transaction.rollback()
                    site.until(sent=6, expired=1)
