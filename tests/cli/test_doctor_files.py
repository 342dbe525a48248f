"""outbox doctor: who can read and write what runners leave beside the database, and mail in folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from outbox.cli.checks import database, rescued
from outbox.store.database import sqlite_path
from tests.cli.installation import checks, well, words_of
from tests.cli.program import Program

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file modes")


@pytest.fixture
def outbox(sqlite_program: Program, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Where everybody may pass, which is not so for the folders of tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(sqlite_program.home / "state"))
    for module in (database, rescued):
        monkeypatch.setattr(module, "reachable", lambda path: True)
    return well(sqlite_program)


def rescue_file(outbox: Program) -> Path:
    return Path(sqlite_path(outbox.url) + ".rescue").absolute()


def test_a_rescue_file_that_is_closed_and_empty_is_nothing_to_talk_about(outbox: Program) -> None:
    rescue_file(outbox).touch(mode=0o600)
    assert [each for each in outbox.json("doctor")["checks"] if each["check"] == "rescue"] == []


@pytest.mark.parametrize("name", ["", ".0123abcd-0", ".bad"])
def test_one_that_others_can_read_is(outbox: Program, name: str) -> None:
    path = rescue_file(outbox)
    path = path.with_name(path.name + name)
    path.touch(mode=0o600)
    path.chmod(0o644)
    (check,) = checks(outbox.json("doctor"), "rescue", "warn")
    assert "others may read or write" in check["words"]
    assert check["hint"] == f"chmod 600 {path}"


def test_so_are_results_that_wait_in_one(outbox: Program) -> None:
    path = rescue_file(outbox)
    for each, lines in ((path, "{}\n{}\n"), (path.with_name(path.name + ".bad"), "torn\n")):
        each.touch(mode=0o600)
        each.write_text(lines)
    first, second = words_of(outbox.json("doctor"), "rescue", "warn")
    assert first == f"2 results in {path} that the database did not take"
    assert second.startswith(f"1 result in {path}.bad that no runner could read")


def test_so_is_a_folder_into_which_anybody_may_put_one(outbox: Program) -> None:
    """The second place, beside the configuration's user: the first is the database's folder."""
    state = outbox.home / "state" / "outbox"
    state.mkdir(parents=True)
    state.chmod(0o777)
    assert words_of(outbox.json("doctor"), "rescue", "warn") == [
        f"every user of this machine may write into {state}, and what is in a rescue file is believed"
    ]
    state.chmod(0o1777)  # as /tmp: nobody replaces another's file there
    assert words_of(outbox.json("doctor"), "rescue", "warn") == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_so_is_one_that_is_another_users(outbox: Program) -> None:
    path = rescue_file(outbox)
    path.touch(mode=0o600)
    os.chown(path, 65534, -1)
    (words,) = words_of(outbox.json("doctor"), "rescue", "warn")
    assert "belongs to user nobody" in words


def test_mail_that_everybody_can_read_in_a_folder(outbox: Program) -> None:
    drop, bad = outbox.home / "in", outbox.home / "badmail"
    outbox.run("pickup", "add", "in", str(drop))
    for folder in (drop, bad):
        folder.chmod(0o755)
    closed, open_to_all = bad / "closed.eml.bad", bad / "open.eml.bad"
    for path, mode in ((closed, 0o600), (open_to_all, 0o644)):
        path.write_text("From: shop@example.com\n\n")
        path.chmod(mode)
    (check,) = checks(outbox.json("doctor"), "pickup", "warn")
    assert check["words"] == f"in: {bad}: every user of this machine can read 1 file of mail in it"
    assert check["hint"] == f"chmod o-rx {bad}"
    bad.chmod(0o750)
    assert words_of(outbox.json("doctor"), "pickup", "warn") == []
