"""SIGTERM and Ctrl-C: what is past DATA is finished, the rest is given back untried. A second one ends at once."""

from __future__ import annotations

import signal
import time

import pytest

from tests.relay import HANG, Accept, Relay
from tests.running import Site, eventually

CONNECTIONS = 3


def test_a_stop_finishes_what_is_past_data_and_gives_back_the_rest(site: Site) -> None:
    stopped_by(signal.SIGTERM, site)


def test_ctrl_c_does_the_same(sqlite_site: Site) -> None:
    stopped_by(signal.SIGINT, sqlite_site)


def stopped_by(number: signal.Signals, site: Site) -> None:
    with Relay({"dot": HANG}) as relay:
        site.register(relay.port, connections=CONNECTIONS)
        site.insert(30)
        with site.run() as runner:
            eventually(lambda: relay.commands.count(".") == CONNECTIONS, "every connection has written its dot")
            claimed = site.states()["sending"]
            runner.process.send_signal(number)
            site.insert(5)  # too late for this runner
            eventually(lambda: site.states()["sending"] == CONNECTIONS, "the rest is given back")
            relay.release()
            assert runner.wait() == 0

        assert claimed > CONNECTIONS
        assert site.states() == {"sent": CONNECTIONS, "queued": 35 - CONNECTIONS}
        assert site.attempts() == {"accepted": CONNECTIONS, "relinquished": claimed - CONNECTIONS}
        assert site.query("SELECT max(failures), max(doubts), max(crashes) FROM outbox_delivery") == [(0, 0, 0)]
        assert site.runners() == []
        assert "cut off" not in runner.output

        with site.run("--until-empty") as successor:
            assert successor.wait() == 0
        assert site.states() == {"sent": 35}
        assert len(relay.messages) == 35
        site.audit(relay.messages)


def test_a_relay_that_stays_silent_after_the_dot_is_waited_for_as_long_as_grace_says(site: Site) -> None:
    with Relay({"dot": Accept(HANG)}) as relay:
        site.register(relay.port, connections=CONNECTIONS)
        site.insert(30)
        with site.run("--grace", "700ms") as runner:
            relay.wait(CONNECTIONS)
            stopped_at = time.monotonic()
            runner.stop()
            assert runner.wait() == 0
            assert 0.7 <= time.monotonic() - stopped_at < 3
        assert f"{CONNECTIONS} deliveries under way are cut off at the end of the grace period" in runner.output
        finish(site, relay, doubts=CONNECTIONS)


def test_a_second_signal_ends_it_at_once_and_leaves_nothing_that_the_next_runner_cannot_finish(site: Site) -> None:
    with Relay({"dot": Accept(HANG), "quit": HANG}) as relay:
        site.register(relay.port, connections=CONNECTIONS)
        site.insert(30)
        with site.run() as runner:
            relay.wait(CONNECTIONS)
            runner.stop()
            runner.says("stopping: 12 deliveries under way, 3 of them past DATA")
            stopped_at = time.monotonic()
            runner.stop()
            assert runner.wait() == 0
            took = time.monotonic() - stopped_at
            print(f"ended {took:.2f} s after the second signal")
            assert took < 2
        finish(site, relay, doubts=CONNECTIONS)


def finish(site: Site, relay: Relay, *, doubts: int) -> None:
    """Another runner sends what is left. Those whose dot was out are in doubt, and only those."""
    relay.script["dot"] = None
    relay.release()
    with site.run("--until-empty") as successor:
        assert successor.wait() == 0
    assert site.states() == {"sent": 30}
    attempts = site.attempts()
    assert attempts["doubt"] == doubts
    assert attempts["lost"] == attempts["open"] == 0
    site.audit(relay.messages)


@pytest.mark.parametrize("stage", ["banner", "data"])
def test_a_stop_does_not_wait_for_what_is_not_past_data(sqlite_site: Site, stage: str) -> None:
    site = sqlite_site
    with Relay({stage: HANG}) as relay:
        site.register(relay.port, connections=CONNECTIONS)
        site.insert(9)
        with site.run() as runner:
            eventually(
                lambda: site.states() == {"sending": 9} and len(relay.sessions) == CONNECTIONS, "all are under way"
            )
            stopped_at = time.monotonic()
            runner.stop()
            assert runner.wait(10) == 0
            print(f"ended after {time.monotonic() - stopped_at:.2f} s")
            assert time.monotonic() - stopped_at < 4
        assert site.attempts() == {"relinquished": 9}
        assert site.states() == {"queued": 9}
        assert site.query("SELECT max(failures), max(doubts), max(crashes) FROM outbox_delivery") == [(0, 0, 0)]
