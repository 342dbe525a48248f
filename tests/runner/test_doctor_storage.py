"""`outbox doctor` finds what keeps a database from being written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from outbox.store.database import sqlite_path
from outbox.store.identity import LOG_TOO_LARGE
from tests.running import Site


@contextmanager
def small_disk(folder: Path, octets: int) -> Iterator[None]:
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={octets}", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_lock_that_somebody_keeps(sqlite_site: Site) -> None:
    with sqlite_site.db.atomic():
        status, said = sqlite_site.outbox("doctor")
    assert status == 1
    assert "kept the database locked" in " ".join(said.split())
    assert "kept the database locked" not in " ".join(sqlite_site.outbox("doctor")[1].split())


def test_a_log_that_cannot_be_emptied(sqlite_site: Site) -> None:
    """It is only its size that is looked at."""
    path = sqlite_path(sqlite_site.url)
    with closing(sqlite3.connect(path)) as idle:
        idle.execute("BEGIN")
        idle.execute("SELECT count(*) FROM outbox").fetchall()
        os.truncate(f"{path}-wal", LOG_TOO_LARGE)
        said = " ".join(sqlite_site.outbox("doctor")[1].split())
    assert "the write-ahead log has 64" in said
    assert "keeps an old read transaction open" in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_nearly_full(sqlite_site: Site, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    with small_disk(small, 8 << 20):
        (small / "outbox.db").write_bytes(Path(sqlite_path(sqlite_site.url)).read_bytes())
        status, said = sqlite_site.outbox("--database", str(small / "outbox.db"), "doctor")
    assert status == 1
    assert "are free where the database is" in " ".join(said.split())
