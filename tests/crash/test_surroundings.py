"""What a process has around it goes away or runs out: the terminal, standard error, files, threads, the right time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outbox.store.database import connect, sqlite_path
from outbox.store.rows import moment
from tests.bench.figures import Unmeasurable
from tests.relay import HANG, Relay
from tests.running import ROOT, Program, Site, command, eventually
from tests.torture.shim import Shim

LIMIT = 40
"""File descriptors: enough to start with, and not for the connections that the account would have."""


def test_a_terminal_that_is_closed_drains_it(sqlite_site: Site) -> None:
    """SIGHUP: what is past DATA ends with its reply, and not as a doubt."""
    site = sqlite_site
    with Relay({"dot": HANG}) as relay:
        site.register(relay.port, connections=2)
        site.insert(5)
        with site.run() as runner:
            eventually(lambda: relay.commands.count(".") == 2, "both have written their dot")
            runner.process.send_signal(signal.SIGHUP)
            runner.says("stopping: ")
            relay.release()
            assert runner.wait() == 0
        assert site.states() == {"sent": 2, "queued": 3}
        assert site.query("SELECT sum(doubts) FROM outbox_delivery") == [(0,)]


def test_under_nohup_it_goes_on(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port)
        environment = {"OUTBOX_DATABASE": site.url}
        with Program(["nohup", *command("run")], site.folder, **environment) as runner:
            runner.says(" serves ")
            runner.process.send_signal(signal.SIGHUP)
            site.insert(1)
            relay.wait(1)
            site.until(sent=1)
            runner.stop()
            assert runner.wait() == 0


@pytest.mark.parametrize("stream", ["gone", "full", "closed"])
def test_a_log_that_nobody_takes_stops_no_mail(sqlite_site: Site, stream: str) -> None:
    """EPIPE, ENOSPC, EBADF: each line is lost, and nothing else."""
    site = sqlite_site
    with Relay({"rcpt:ann3@example.net": "550 5.1.1 no such user"}) as relay:
        site.register(relay.port)
        site.insert(20)
        words = " ".join(command("run", "--until-empty"))
        shell = {"gone": f"{words} 2>&1 | true", "full": f"{words} >/dev/full 2>&1", "closed": f"{words} >&- 2>&-"}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OUTBOX_DATABASE": site.url}
        subprocess.run(shell[stream], shell=True, cwd=site.folder, env=environment, timeout=60, check=False)
        assert site.states() == {"sent": 19, "failed": 1}
        site.audit(relay.messages)


def test_without_file_descriptors_it_waits_and_goes_on(sqlite_site: Site) -> None:
    """EMFILE: the connections that it has do the work. That there are no more is taken for a relay that is not there:
    the account rests, the reason is said, no mail is blamed, and the runner does not end.
    """
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port, connections=2 * LIMIT)
        site.insert(100)
        limited = ["sh", "-c", f'ulimit -n {LIMIT} && exec "$@"', "sh", *command("run", "-q", "--until-empty")]
        with Program(limited, site.folder, OUTBOX_DATABASE=site.url, OUTBOX_RETRY_FLOOR="50ms") as runner:
            assert runner.wait(60) == 0
        assert "Traceback" not in runner.output
        assert site.states().keys() <= {"sent", "queued"}
        assert len(relay.messages) == site.states()["sent"] > 0
        assert site.query("SELECT sum(failures), sum(doubts), sum(crashes) FROM outbox_delivery") == [(0, 0, 0)]
        assert site.query("SELECT 1 FROM outbox_attempt WHERE reply LIKE '%Too many open files%' LIMIT 1")
        site.query("UPDATE outbox_account SET breaker_until = NULL, breaker_failures = 0")
        site.outbox("retry", "--state", "queued", "--yes")
        with site.run("-q", "--until-empty", "--wait=20s") as successor:
            assert successor.wait(60) == 0
        assert site.states() == {"sent": 100}
        site.audit(relay.messages)


DIES = """
import sys, os
from outbox.runner.writing.clerk import Clerk
serve = Clerk._serve
def dying(self):
    if os.path.exists("die"):
        raise SystemError("a fault in a library")
    serve(self)
Clerk._serve = dying
sys.argv = ["outbox", "run"]
from outbox.cli.main import main
main()
"""


def test_the_lock_files_of_the_dead_are_cleared_away(sqlite_site: Site) -> None:
    """Also when whoever declared them dead was killed before it could do so; those of others are left alone."""
    site = sqlite_site
    path = Path(sqlite_path(site.url))
    dead, unknown = (path.with_name(f"{path.name}.runner-{letter * 32}") for letter in "de")
    for each in (dead, unknown):
        each.touch()
    now = moment(datetime.now(UTC))
    site.query(
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until, dead_at)"
        " VALUES (?, 'web1', 7, '0', ?, ?, ?)",
        "d" * 32,
        *[now] * 3,
    )
    with site.run() as runner:
        eventually(lambda: not dead.exists(), "it has cleared away")
        runner.stop()
        assert runner.wait() == 0
    assert unknown.exists()


def test_without_its_clerk_it_ends_so_that_somebody_starts_it_anew(sqlite_site: Site) -> None:
    """Its thread has died, by what no code of ours raises: it says so, ends with 70, and its successor goes on."""
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port)
        site.insert(3)
        with Program([sys.executable, "-c", DIES], site.folder, OUTBOX_DATABASE=site.url) as runner:
            site.until(sent=3)
            (site.folder / "die").touch()
            site.insert(3)
            assert runner.wait() == 70
            assert "CRITICAL outbox.runner: the clerk has died" in runner.output
        (site.folder / "die").unlink()
        with site.run("-q", "--until-empty") as successor:
            assert successor.wait() == 0
        site.until(sent=6)
        site.audit(relay.messages)


def test_on_postgres_a_hosts_wrong_clock_sends_nothing_early_and_expires_nothing(
    postgres_site: Site, tmp_path: Path
) -> None:
    """The database's clock is the only one: this host is two hours ahead of it."""
    site = postgres_site
    try:
        shim = Shim(tmp_path / "shim")
    except Unmeasurable as why:
        pytest.skip(str(why))
    shim.clock(timedelta(hours=2))
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with Relay() as relay:
        site.register(relay.port)
        [early] = site.insert(1, due_at=later)
        [lasting] = site.insert(1, expires_at=later)
        with shim.runner(site, tmp_path / "nowhere", "-q", "--until-empty", log=False) as runner:
            assert runner.wait() == 0
        assert site.delivery(early)["state"] == "queued"
        assert site.delivery(lasting)["state"] == "sent"
        began = site.attempt(lasting)["started_at"]
        assert abs(began - datetime.now(UTC)) < timedelta(minutes=10), "what is recorded is the database's time"


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_no_time_zone_of_a_host_changes_when_and_as_of_when_it_is_sent(site: Site, zone: str) -> None:
    """14 hours ahead of UTC, and 3½ or 2½ behind it: all moments are UTC, and the Date header says so."""
    moment = "2026-03-29T01:30:00.000Z"  # does not exist, or exists twice, on many clocks of that day
    with Relay() as relay:
        site.register(relay.port)
        site.insert(1, created_at=moment)
        [later] = site.insert(1, due_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
        with Program(command("run", "-q", "--until-empty"), site.folder, OUTBOX_DATABASE=site.url, TZ=zone) as runner:
            assert runner.wait() == 0
        assert site.delivery(later)["state"] == "queued"
        assert [b"Date: Sun, 29 Mar 2026 01:30:00 +0000" in each.content for each in relay.messages] == [True]


def test_a_transaction_that_took_long_is_found_behind_those_that_came_later(postgres_site: Site) -> None:
    """Rows become visible out of the order of their ids: whoever asks for what is newer than the last misses it."""
    site = postgres_site
    with Relay() as relay, closing(connect(site.url)) as slow:
        site.register(relay.port)
        slow.execute_sql("BEGIN")
        slow.execute_sql(
            "INSERT INTO outbox (sender, recipients, text_body) VALUES ('shop@example.com', 'bob@example.net', 'x')"
        )
        with site.run("-q") as runner:
            site.insert(10)
            relay.wait(10)
            site.until(sent=10)
            slow.execute_sql("COMMIT")
            relay.wait(11)
            site.until(sent=11)
            runner.stop()
            assert runner.wait() == 0
        assert relay.messages[-1].recipients == ("bob@example.net",)
