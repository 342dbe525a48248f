"""Several runners on one database: no leader, nothing twice, nothing lost."""

from __future__ import annotations

import os
import signal
import time

from tests.relay import HANG, Relay
from tests.running import Site, eventually


def test_two_runners_share_two_thousand_mails_without_a_duplicate(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q") as first, site.run("-q") as second:
            eventually(lambda: len(site.runners()) == 2, "both are at work")
            began = time.monotonic()
            site.insert(2000)
            site.until(60, sent=2000)
            took = time.monotonic() - began
            for each in (first, second):
                each.stop()
                assert each.wait() == 0, each.output

        shares = [row[0] for row in site.query("SELECT count(*) FROM outbox_attempt GROUP BY runner_id")]
        print(f"2000 mails in {took:.1f} s, shared {shares}")
        assert len(relay.messages) == 2000
        assert len({message.message_id for message in relay.messages}) == 2000
        assert site.attempts() == {"accepted": 2000}
        assert len(shares) == 2
        assert min(shares) >= 100, "both did their part"
        assert site.runners() == [], "both have left"
        site.audit(relay.messages)


def pids(site: Site) -> set[int]:
    """The processes of the runners that nobody has declared dead."""
    return {row[0] for row in site.query("SELECT pid FROM outbox_runner WHERE dead_at IS NULL")}


def test_processes_share_the_work_and_a_killed_one_starts_anew(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q", "--processes", "2") as parent:
            eventually(lambda: len(site.runners()) == 2, "two runners")
            site.insert(100)
            site.until(sent=100)
            victim = min(pids(site))
            os.kill(victim, signal.SIGKILL)
            parent.says("ended with status -9; starting it anew")
            eventually(lambda: len(pids(site) - {victim}) == 2, "two runners again")
            site.insert(20)
            site.until(sent=120)
            parent.stop()
            assert parent.wait() == 0, parent.output
        assert len(relay.messages) == 120
        site.audit(relay.messages)


def test_processes_end_when_there_is_nothing_left(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port)
        site.insert(200)
        with site.run("-q", "--processes", "2", "--until-empty") as parent:
            assert parent.wait() == 0, parent.output
            assert "Fatal" not in parent.output
        assert site.states() == {"sent": 200}
        assert site.runners() == []
        site.audit(relay.messages)


def test_processes_drain_and_end_when_their_parent_was_killed(site: Site) -> None:
    with Relay({"dot": HANG}) as relay:
        site.register(relay.port, connections=1)
        with site.run("-q", "--processes", "2") as parent:
            eventually(lambda: len(site.runners()) == 2, "two runners")
            site.insert(8)
            eventually(lambda: relay.commands.count(".") == 2, "each of the two has written a dot")
            parent.kill()
            relay.release()
            parent.silent()  # its children have ended, too
        assert site.runners() == []
        assert site.attempts()["accepted"] >= 2
        assert site.attempts()["doubt"] == site.attempts()["lost"] == site.attempts()["open"] == 0
        with site.run("--until-empty") as successor:
            assert successor.wait() == 0
        assert site.states() == {"sent": 8}
        assert len(relay.messages) == 8
        site.audit(relay.messages)
