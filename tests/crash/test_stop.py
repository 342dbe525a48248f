"""A SIGTERM while the database does not answer: whatever waits for it is given up in time."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from outbox.store.database import connect
from tests.relay import Relay
from tests.running import Site, eventually

GRACE = 1.0
SLOW = 2.0
"""Seconds that a busy machine may take besides."""


@pytest.mark.parametrize("waiting", [0, 3])
def test_a_locked_database_and_an_open_scan_do_not_hold_up_the_end(
    sqlite_site: Site, tmp_path: Path, waiting: int
) -> None:
    site, folder = sqlite_site, tmp_path / "in"
    code, words = site.outbox("pickup", "add", "in", str(folder), "--badmail", str(tmp_path / "bad"), "--settle", "0s")
    assert code == 0, words
    with Relay() as relay:
        site.register(relay.port)
        with site.run(run_grace=f"{GRACE:g}s") as runner, closing(connect(site.url)) as other:
            runner.says("in: watching")
            site.insert(waiting)
            other.execute_sql("BEGIN IMMEDIATE")
            (folder / "order.eml").write_text("From: shop@example.com\nTo: ann@example.net\n\nThanks\n")
            eventually(lambda: not (folder / "order.eml").exists(), "the scan has come to the database")
            since = time.monotonic()
            runner.stop()
            assert runner.wait() in (0, 1)
            assert time.monotonic() - since < GRACE + 1 + SLOW
            other.execute_sql("ROLLBACK")
        with site.run(run_grace="1s") as successor:
            site.until(sent=waiting + 1)
            successor.stop()
            assert successor.wait() == 0
        site.audit(relay.messages)
