"""The database's file is replaced, renamed, deleted or damaged under a runner: no dot is written for what it says."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from outbox.store.database import connect, sqlite_path
from outbox.store.identity import OpenFile
from outbox.store.migrate import apply
from tests.relay import Relay, Session
from tests.relay_session import Answer
from tests.running import Site


def copy(source: Path, target: Path) -> None:
    """A sound copy of a database that is in use."""
    with closing(sqlite3.connect(source)) as db:
        db.execute("VACUUM INTO ?", (str(target),))


def put(made: Path, path: Path) -> None:
    """`made` in the place of `path`, and of its log."""
    for beside in (f"{path}-wal", f"{path}-shm"):
        os.unlink(beside)
    made.rename(path)


def away(path: Path) -> Path:
    """The file and its log, moved out of the way."""
    aside = path.with_name("aside.db")
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def run_until_data(site: Site, then: Callable[[], None]) -> Relay:
    """A relay that does `then` when the first mail comes to its DATA: before the mark, and before the dot."""

    def answer(session: Session, line: str) -> Answer:
        then()
        return None

    return Relay({"data": [answer]})


def test_a_runner_stops_before_the_next_dot_when_another_database_takes_the_place_of_its_own(
    sqlite_site: Site,
) -> None:
    site, path = sqlite_site, Path(sqlite_path(sqlite_site.url))

    def replace() -> None:
        another = path.with_name("another.db")
        made = connect(f"sqlite:///{another}")
        apply(made)
        made.close()
        put(another, path)

    with run_until_data(site, replace) as relay:
        site.register(relay.port, connections=1)
        site.insert(5)
        site.db.close()
        with site.run() as runner:
            assert runner.wait() == 3
        assert relay.messages == [], "a dot was written after the file had been replaced"
        assert "CRITICAL" in runner.output
        assert "another has taken its place" in runner.output
        assert not [line for line in runner.lines if "is refused, and kept" in line]
    # What it knew is for the other database, and is not written into this one.
    site.db.connect()
    with site.run("--until-empty") as successor:
        assert successor.wait() == 0
    assert site.states() == {}
    kept = [each.name for each in path.parent.glob("*.rescue.*")]
    assert len(kept) == 1
    assert "for another database" in successor.output


def test_a_runner_waits_for_a_file_that_is_gone_and_goes_on_when_it_is_back(sqlite_site: Site) -> None:
    site, path = sqlite_site, Path(sqlite_path(sqlite_site.url))
    aside: list[Path] = []

    def move() -> None:
        aside.append(away(path))

    with run_until_data(site, move) as relay:
        site.register(relay.port, connections=1)
        site.insert(5)
        site.db.close()
        with site.run() as runner:
            runner.says(r"WARNING .*renamed, deleted or replaced under this runner")
            runner.says(r"WARNING .*waiting for the database")
            assert relay.messages == [], "a dot was written after the file was gone"
            for suffix in ("-shm", "-wal", ""):
                aside[0].with_name(aside[0].name + suffix).rename(path.with_name(path.name + suffix))
            runner.says("the database answers again")
            site.db.connect()
            site.until(sent=5)
            runner.stop()
            assert runner.wait() == 0
        site.audit(relay.messages)


def test_an_idle_runner_finds_a_copy_of_its_database_and_goes_on_with_that(sqlite_site: Site) -> None:
    site, path = sqlite_site, Path(sqlite_path(sqlite_site.url))
    with Relay() as relay:
        site.register(relay.port)
        site.insert(3)
        with site.run() as runner:
            site.until(sent=3)
            site.db.close()
            copied = path.with_name("copy.db")
            copy(path, copied)
            put(copied, path)
            site.db = connect(site.url)
            site.insert(2)
            runner.says("replaced under this runner")
            site.until(sent=5)
        site.audit(relay.messages)


def test_a_log_that_is_deleted_is_noticed(sqlite_site: Site) -> None:
    site, path = sqlite_site, Path(sqlite_path(sqlite_site.url))
    with run_until_data(site, lambda: os.unlink(f"{path}-wal")) as relay:
        site.register(relay.port, connections=1)
        site.insert(3)
        with site.run() as runner:
            runner.says("or its log was renamed, deleted or replaced")
            assert relay.messages == []
            runner.kill()


def test_a_damaged_file_ends_the_runner_and_nothing_is_sent(sqlite_site: Site) -> None:
    site, path = sqlite_site, Path(sqlite_path(sqlite_site.url))
    with Relay() as relay:
        site.register(relay.port)
        site.insert(40)
        [[page, size]] = site.query(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size)"
            " FROM sqlite_master WHERE name = 'outbox_delivery'"
        )
        site.db.close()  # the last connection: the log is folded into the file
        with path.open("r+b") as file:
            file.seek((page - 1) * size)
            file.write(b"\xff" * size)
        with site.run() as runner:
            assert runner.wait() == 3
        assert relay.messages == []
        assert "the database is damaged" in runner.output
        assert "sqlite3 FILE .recover" in runner.output
        shutil.copyfile(path, path.with_name("evidence.db"))
        status, said = site.outbox("doctor")
        assert status == 1
        assert "malformed" in said


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody delete what is open")
def test_a_path_that_leads_to_another_file_is_told_from_one_that_does_not(sqlite_url: str) -> None:
    path = sqlite_path(sqlite_url)
    file = OpenFile(path)
    assert file.settle()
    assert file.is_in_place()
    os.rename(path, path + ".old")
    assert not file.is_in_place()
    shutil.copyfile(path + ".old", path)
    assert not file.is_in_place()
    os.replace(path + ".old", path)
    assert file.is_in_place()
