"""SQLITE_BUSY_SNAPSHOT: who reads, and then writes in the same transaction, while somebody else commits in between."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee
import pytest

from outbox import Mail, enqueue, enqueue_many
from outbox.store.database import connect, sqlite_path
from outbox.store.engine import sqlite3
from tests.cli.conftest import sqlite_program as sqlite_program
from tests.cli.program import CANARY, Program
from tests.relay import Relay
from tests.running import Program as Process
from tests.running import Site
from tests.torture.spoiler import Spoiler, spoil_all

MAIL = Mail(sender="shop@example.com", to="ann@example.net", subject="Order 7", text="Thanks")
SNAPSHOT = "SQLITE_BUSY_SNAPSHOT"


@pytest.fixture
def spoilers(monkeypatch: pytest.MonkeyPatch) -> list[Spoiler]:
    """Of every SQLite file that is opened in this process."""
    found: list[Spoiler] = []
    monkeypatch.setattr(peewee.SqliteDatabase, "_connect", spoil_all(found))
    return found


def test_the_spoiler_can_tell(sqlite_url: str, spoilers: list[Spoiler]) -> None:
    with closing(connect(sqlite_url)) as db:
        db.execute_sql("BEGIN")
        db.execute_sql("SELECT count(*) FROM outbox").fetchall()
        with pytest.raises(peewee.OperationalError, match="locked"):
            db.execute_sql("DELETE FROM outbox_user")
        db.execute_sql("ROLLBACK")
    assert spoilers[0].refused == ["DELETE FROM outbox_user"]


VERBS = """
sender add shop@example.com --account shop
sender pause shop@example.com
sender resume shop@example.com
sender remove shop@example.com --yes
sender add shop@example.com --account shop
account pause shop
account resume shop
account set-password shop --password-stdin
limit set account shop --per-hour 1000
limit list
limit remove account shop
suppress add bob@example.net
suppress remove bob@example.net
rule list
hold 1 2
release 1
cancel 1
retry 2
hold --state queued --yes
release --state held --yes
list
show 2
events
stats
key add
key rotate
key status
schema apply
user add till --sender shop@example.com --password-stdin
user remove till
enqueue --from shop@example.com --to ann@example.net --subject Hello --text Thanks
sender remove shop@example.com --yes
account remove shop --yes
"""


def test_no_command_meets_it(sqlite_program: Program, spoilers: list[Spoiler]) -> None:
    """Each of these reads and writes while another program commits before every statement of theirs."""
    program = sqlite_program.init()
    program.add_account()
    with closing(connect(sqlite_program.url)) as db, db.atomic():
        for _ in range(3):
            enqueue(db, MAIL)
    verbs = [line.split() for line in VERBS.strip().splitlines()]
    for verb in verbs:
        program.run(*verb, stdin=CANARY + "\n" if "--password-stdin" in verb else None)
    assert [each.refused for each in spoilers] == [[]] * len(spoilers)
    assert sum(each.commits for each in spoilers) > 5 * len(verbs)


def test_no_runner_meets_it(sqlite_site: Site) -> None:
    """From its first statement to its last."""
    site, log = sqlite_site, sqlite_site.folder / "spoiled"
    with Relay({"rcpt:ann1@example.net": "550 5.1.1 no", "dot": ["451 4.3.0 later", None]}) as relay:
        site.register(relay.port)
        site.insert(40)
        command = [
            sys.executable,
            "-m",
            "tests.torture.spoiler",
            str(log),
            "run",
            "-q",
            "--until-empty",
            "--wait",
            "9s",
        ]
        with Process(command, site.folder, OUTBOX_DATABASE=site.url, OUTBOX_RETRY_FLOOR="20ms") as runner:
            assert runner.wait(60) == 0
        assert site.states() == {"sent": 39, "failed": 1}
        site.audit(relay.messages)
    *refused, commits = log.read_text().splitlines()
    assert refused == []
    assert int(commits.removeprefix("commits ")) > 100


# -- in a transaction of the application's


def commit_something(path: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(
            "INSERT INTO outbox (sender, recipients, text_body) VALUES ('shop@example.com', 'bob@example.net', 'x')"
        )


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE"])
def test_a_deferred_transaction_is_refused_as_a_whole_and_can_be_done_again(
    sqlite_url: str, begin: str, several: bool
) -> None:
    """The application sees its own driver's error at once; nothing was enqueued; the same again works."""
    path = sqlite_path(sqlite_url)

    def order(connection: Any) -> None:
        connection.execute(begin)
        connection.execute("SELECT count(*) FROM outbox").fetchall()
        if first and begin == "BEGIN":
            commit_something(path)
        if several:
            enqueue_many(connection, [MAIL, MAIL])
        else:
            enqueue(connection, MAIL)
        connection.execute("COMMIT")

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        first = True
        if begin == "BEGIN":
            with pytest.raises(sqlite3.OperationalError, match="locked") as refused:
                order(connection)
            assert getattr(refused.value, "sqlite_errorname", SNAPSHOT) == SNAPSHOT
            assert connection.in_transaction, "whose it is, ends it"
            connection.execute("ROLLBACK")
            first = False
        order(connection)
        added = 1 + several
        others = int(begin == "BEGIN")
        assert connection.execute("SELECT count(*) FROM outbox").fetchall() == [(added + others,)]


def test_through_peewee_it_is_peewees_error(sqlite_url: str, tmp_path: Path) -> None:
    application = peewee.SqliteDatabase(sqlite_path(sqlite_url))  # begins deferred
    with closing(application):
        with application.atomic():
            application.execute_sql("SELECT count(*) FROM outbox").fetchall()
            commit_something(sqlite_path(sqlite_url))
            with pytest.raises(peewee.OperationalError, match="locked"):
                enqueue(application, MAIL)
        with application.atomic("IMMEDIATE"):
            application.execute_sql("SELECT count(*) FROM outbox").fetchall()
            enqueue(application, MAIL)
        assert application.execute_sql("SELECT count(*) FROM outbox").fetchone() == (2,)
