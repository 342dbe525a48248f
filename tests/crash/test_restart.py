"""PostgreSQL is restarted, without a word to its clients, while runners are at work: they come back by themselves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.bench.figures import Unmeasurable
from tests.postgres_server import Server
from tests.relay import Relay, Session
from tests.relay_session import Answer
from tests.running import Site

MAILS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of this module's own."""
    try:
        with Server() as started:
            yield started
    except Unmeasurable as why:
        pytest.skip(f"POSTGRESQL RESTARTS ARE NOT TESTED: {why}")


@pytest.fixture
def restarted_site(server: Server, tmp_path: Path) -> Iterator[Site]:
    with closing(Site(server.fresh(), tmp_path)) as site:
        yield site


def unharmed(site: Site) -> None:
    """Every result was kept until it could be written. A claim whose COMMIT was not acknowledged is lost, and nothing
    else: no mail was under way.
    """
    attempts = site.attempts()
    assert attempts["accepted"] == MAILS
    assert set(attempts) <= {"accepted", "lost"}


def test_a_runner_goes_on_when_the_server_is_back(restarted_site: Site, server: Server) -> None:
    site = restarted_site
    site.db.close()

    def answer(session: Session, line: str) -> Answer:
        server.restart(2.5)
        return None

    with Relay({"dot": [None] * 20 + [answer]}) as relay:
        site.db.connect()
        site.register(relay.port)
        site.insert(MAILS)
        site.db.close()  # or it would be cut, too
        with site.run() as runner:
            relay.wait(40, 30)
            site.db.connect()
            site.until(sent=MAILS)
            unharmed(site)
            assert len(site.runners()) == 1
            site.insert(1)
            committed_at = time.monotonic()
            relay.wait(MAILS + 1)
            assert time.monotonic() - committed_at < 1
            site.until(sent=MAILS + 1)
            runner.stop()
            assert runner.wait() == 0
            assert "Traceback" not in runner.output
        assert len(relay.messages) == MAILS + 1
        site.audit(relay.messages)


def test_two_runners_survive_a_restart_of_the_server_together(restarted_site: Site, server: Server) -> None:
    site = restarted_site
    site.close()

    restarted = threading.Event()

    def answer(session: Session, line: str) -> Answer:
        server.restart()
        restarted.set()
        return None

    with Relay({"dot": [None] * 20 + [answer]}) as relay:
        site.db.connect()
        site.register(relay.port)
        with site.run(run_renew="500ms") as first, site.run(run_renew="500ms") as second:
            first.started()
            second.started()
            site.insert(MAILS)
            site.close()
            assert restarted.wait(30)
            site.db.connect()
            site.until(sent=MAILS)
            unharmed(site)
            assert len(site.runners()) == 2
            for each in (first, second):
                each.stop()
                assert each.wait() == 0
                assert "Traceback" not in each.output
                assert "declared dead" not in each.output, "they all come back; nobody has to take over"
        site.audit(relay.messages)
