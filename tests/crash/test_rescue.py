"""Results that the database does not take before the end are kept in a file, and the next runner writes them down."""

from __future__ import annotations

import json
import stat
import sys
import threading
import time
from pathlib import Path

from outbox.store.database import dialect, sqlite_path
from tests.relay import HANG, Accept, Relay, Session
from tests.relay_session import Answer
from tests.running import Site


def rescue_file(site: Site) -> Path:
    if dialect(site.db) == "sqlite":
        return Path(sqlite_path(site.url) + ".rescue")
    return site.folder / "outbox" / "outbox.rescue"


def test_results_that_the_database_does_not_take_are_rescued(site: Site) -> None:
    asked, locked = threading.Event(), threading.Event()

    def answer(session: Session, line: str) -> Answer:
        asked.set()
        locked.wait(10)
        return None

    with Relay({"dot": [answer, Accept(HANG)]}) as relay:
        site.register(relay.port, connections=2)
        site.insert(4)
        with site.run() as runner:
            assert asked.wait(10)
            relay.wait(1)
            with site.db.atomic():
                if dialect(site.db) == "postgres":
                    site.query("LOCK TABLE outbox_delivery IN ACCESS EXCLUSIVE MODE")
                locked.set()
                relay.wait(2)
                runner.stop()
                runner.says("stopping")
                hurried_at = time.monotonic()
                runner.stop()
                assert runner.wait() == 0
                took = time.monotonic() - hurried_at
                print(f"ended {took:.2f} s after the second signal")
                assert took < 2
        assert "wait in" in runner.output
        assert site.states() == {"sending": 4}
        assert site.attempts() == {"open": 4}
        kept = rescue_file(site)
        if sys.platform != "win32":
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        results = [json.loads(line)["result"] for line in filter(None, kept.read_text().splitlines())]
        assert sorted(results) == ["accepted", "relinquished", "relinquished"]

        with site.run("--until-empty") as successor:
            assert successor.wait() == 0
        assert site.states() == {"sent": 4}
        assert site.attempts() == {"accepted": 4, "relinquished": 2, "doubt": 1}
        assert len(relay.messages) == 5, "what was rescued once; what was in doubt, once more"
        assert not kept.exists()
        site.audit(relay.messages)
