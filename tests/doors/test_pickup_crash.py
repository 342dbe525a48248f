"""Killed wherever it hurts, a scanner of a pickup folder makes one mail of each file, and leaves each in one place."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doors.mortal import POINTS
from tests.running import Program, Site

if sys.platform == "win32":
    pytest.skip("there is no kill -9", allow_module_level=True)

FILES = 1000
RUBBISH = 10
"""Every tenth file is no mail."""


def content(number: int) -> bytes:
    if number % RUBBISH == 0:
        return f"no header of number {number:04}\n\nfor nobody\n".encode()
    return f"From: shop@example.com\nTo: ann{number:04}@example.net\nSubject: {number:04}\n\nThanks\n".encode()


def elsewhere() -> Iterator[Path]:
    """A folder on another volume, if there is one."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no second volume here")
    with tempfile.TemporaryDirectory(dir=shared) as made:
        yield Path(made)


other_volume = pytest.fixture(name="other_volume")(elsewhere)


def lives(site: Site, folders: dict[str, Path], plan: list[str]) -> list[str]:
    """What became of each life of this plan."""
    paths = json.dumps({name: str(path) for name, path in folders.items()})
    with Program([sys.executable, "-m", "tests.doors.mortal", site.url, paths, *plan], site.folder) as program:
        assert program.wait(60) == 0
        return [line for line in program.output.splitlines() if line.startswith(tuple(f"{each}:" for each in ALL))]


ALL = (*POINTS, "never")


def all_killed(plan: list[str]) -> list[str]:
    return [*(f"{each} killed" for each in plan), "never:1 ended 0"]


def fill(folders: dict[str, Path], count: int) -> None:
    for path in folders.values():
        path.mkdir(parents=True)
    for number in range(count):
        (folders["drop"] / f"{number:04}.eml").write_bytes(content(number))


def end_all(site: Site) -> None:
    """Every third mail fails, the others are sent."""
    with site.db.atomic():
        site.query(
            "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate)"
            " SELECT id, 0, 1, recipients, 'to', CASE WHEN id - id / 3 * 3 = 0 THEN 'bounced' ELSE 'accepted' END"
            " FROM outbox"
        )
        site.query(
            "UPDATE outbox_delivery SET final_at = due_at,"
            " state = CASE WHEN message_id - message_id / 3 * 3 = 0 THEN 'failed' ELSE 'sent' END"
        )


def everything(*folders: Path) -> Counter[bytes]:
    """The contents of all files that are there, hidden ones too, but for reasons and locks."""
    files = [each for folder in folders for each in folder.rglob("*") if each.is_file()]
    return Counter(each.read_bytes() for each in files if each.suffix != ".json" and each.name != ".lock")


def check(site: Site, folders: dict[str, Path], count: int) -> None:
    mails = count - len(range(0, count, RUBBISH))
    assert site.query("SELECT count(*), count(DISTINCT recipients) FROM outbox") == [(mails, mails)]
    assert site.query("SELECT count(*), count(message_id) FROM outbox_pickup_file") == [(count, mails)]
    assert site.query("SELECT count(*) FROM outbox_pickup_file WHERE done_at IS NULL") == [(0,)]
    assert everything(*folders.values()) == Counter(content(number) for number in range(count))
    assert everything(folders["drop"]) == Counter()
    bad = sorted(each.name for each in folders["bad"].iterdir() if each.suffix != ".json")
    assert sorted(f"{each}.json" for each in bad) == sorted(each.name for each in folders["bad"].glob("*.json"))
    assert len(bad) == site.query("SELECT count(*) FROM outbox_pickup_file WHERE result = 'bad'")[0][0]


def test_a_thousand_files_and_a_kill_at_every_point(site: Site, tmp_path: Path) -> None:
    folders = {name: tmp_path / "mail" / name for name in ("drop", "bad", "sent")}
    fill(folders, FILES)
    first = ["taken:1", "taken:40", "read:70", "entered:1", "entered:55", "committed:30", "told:3", "moving:2"]
    first += ["moved:2", "committed:90", "read:1"]
    assert lives(site, folders, first) == all_killed(first)
    end_all(site)
    then = ["moving:1", "moved:20", "told:5", "done:40", "moved:1", "moving:60"]
    assert lives(site, folders, then) == all_killed(then)
    check(site, folders, FILES)


def test_archives_on_another_volume(sqlite_site: Site, tmp_path: Path, other_volume: Path) -> None:
    folders = {"drop": tmp_path / "drop", "bad": other_volume / "bad", "sent": other_volume / "sent"}
    fill(folders, 60)
    first = ["copied:1", "removed:2", "told:1", "moved:1", "removed:1", "committed:3"]
    assert lives(sqlite_site, folders, first) == all_killed(first)
    end_all(sqlite_site)
    then = ["copied:1", "removed:1", "copied:7", "removed:9", "moved:3", "told:2", "done:2"]
    assert lives(sqlite_site, folders, then) == all_killed(then)
    check(sqlite_site, folders, 60)
