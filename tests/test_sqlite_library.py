"""The extra `sqlite`: with its library in place, everything that opens a SQLite file uses it.

The library is looked for in the folder OUTBOX_TEST_SQLITE, else `.venv/outbox-sqlite` (`.ci/run` makes one:
``pip install --target FOLDER pysqlite3``). It is not installed where the tests run, because two copies of
SQLite in one process damage what both have open.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outbox.store import engine
from tests.relay import Relay
from tests.running import ROOT, Program, Runner, Site, command
from tests.running import sqlite_site as sqlite_site

FOLDER = Path(os.environ.get("OUTBOX_TEST_SQLITE") or ROOT / ".venv" / "outbox-sqlite")
PATH = os.pathsep.join((str(FOLDER), str(ROOT)))
CONTRACT = (
    "tests/contract/test_store_claiming.py",
    "tests/contract/test_store_settling.py",
    "tests/contract/test_store_reclaiming.py",
    "tests/runner/test_clerk.py",
)

needs_library = pytest.mark.skipif(not (FOLDER / "pysqlite3").is_dir(), reason=f"no pysqlite3 in {FOLDER}")


@needs_library
def test_doctor_and_a_runner_use_it_and_have_nothing_to_say_of_the_bug(sqlite_site: Site) -> None:
    environment = {"OUTBOX_DATABASE": sqlite_site.url, "PYTHONPATH": PATH}
    with Relay() as relay:
        sqlite_site.register(relay.port)
        sqlite_site.insert(20)
        with Runner(command("run", "--until-empty"), sqlite_site.folder, **environment) as runner:
            assert runner.wait() == 0
        sqlite_site.until(1, sent=20)
        sqlite_site.audit(relay.messages)
    assert runner.of_machine == []
    with Program(command("doctor"), sqlite_site.folder, **environment) as doctor:
        doctor.wait()
    assert " of pysqlite3, " in doctor.output
    assert "WAL-reset" not in doctor.output


def test_a_runner_warns_of_a_library_with_the_bug(sqlite_site: Site) -> None:
    with sqlite_site.run("--until-empty") as runner:
        assert runner.wait() == 0
    told = [line for line in runner.of_machine if line.endswith(f"{engine.WAL_RESET_BUG}; {engine.REMEDY}")]
    assert len(told) == engine.has_wal_reset_bug()


@needs_library
def test_the_contract_holds_with_it() -> None:
    """The store's own tests, once more: errors of another module have to be understood, too."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "not postgres"]
    done = subprocess.run(
        [*command, *CONTRACT],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
