"""Runners that end by themselves: `--until-empty`, with `--wait`, and `--once`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from outbox.store.rows import moment
from tests.relay import HANG, Relay
from tests.running import Site, eventually


def in_the_future(seconds: float) -> str | None:
    return moment(datetime.now(UTC) + timedelta(seconds=seconds))


def test_until_empty_ends_and_says_what_stays_and_why(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.register(relay.port, account="second", sender="news@example.com")
        assert site.outbox("sender", "pause", "news@example.com", "--reason", "a mistake in the text")[0] == 0
        site.insert(20)
        site.insert(2, sender="news@example.com")
        due_at = in_the_future(3600)
        site.insert(1, due_at=due_at)
        [held] = site.insert(1)
        assert site.outbox("hold", str(held))[0] == 0
        with site.run("-q", "--until-empty") as runner:
            assert runner.wait() == 0

        assert site.states() == {"sent": 20, "queued": 3, "held": 1}
        assert len(relay.messages) == 20
        assert len(runner.lines) == 3
        said = "\n".join(runner.lines)
        assert "stays: 2 from news@example.com: " in said
        assert "a mistake in the text" in said
        assert f"stays: 1 from shop@example.com: due {str(due_at)[:19]}" in said
        assert "stays: 1 held" in said
        site.audit(relay.messages)


def test_until_empty_says_nothing_when_nothing_stays(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay() as relay:
        site.register(relay.port)
        with site.run("-q", "--until-empty") as idle:
            assert idle.wait() == 0
        site.insert(5)
        with site.run("-q", "--until-empty") as busy:
            assert busy.wait() == 0
        assert idle.lines == busy.lines == []
        assert site.states() == {"sent": 5}


def test_wait_does_also_what_comes_due_in_time(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        [soon] = site.insert(1, due_at=in_the_future(2))
        [later] = site.insert(1, due_at=in_the_future(600))
        with site.run("-q", "--until-empty", "--wait", "20s") as runner:
            assert runner.wait() == 0
        assert site.delivery(soon)["state"] == "sent"
        assert site.delivery(later)["state"] == "queued"
        assert [line for line in runner.lines if "stays: 1 from shop@example.com: due" in line]


def test_wait_does_also_what_is_tried_again_in_time(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay({"rcpt": ["451 4.3.0 busy"]}) as relay:
        site.register(relay.port)
        [number] = site.insert(1)
        with site.run("-q", "--until-empty", "--wait", "10s", retry_floor="1s") as runner:
            assert runner.wait() == 0
        assert site.attempts() == {"deferred": 1, "accepted": 1}
        delivery = site.delivery(number)
        assert (delivery["state"], delivery["failures"]) == ("sent", 1)
        site.audit(relay.messages)


def test_until_empty_waits_for_what_another_runner_is_sending(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay({"dot": HANG}) as relay:
        site.register(relay.port)
        site.insert(1)
        with site.run("-q") as busy:
            site.until(sending=1)
            with site.run("-q", "--until-empty") as runner:
                eventually(lambda: len(site.runners()) == 2, "the second runner is at work")
                assert runner.process.poll() is None
                relay.release()
                assert runner.wait() == 0
            assert site.states() == {"sent": 1}
            assert busy.process.poll() is None


def test_once_sends_what_it_found_and_ends(sqlite_site: Site) -> None:
    site = sqlite_site
    with Relay({"rcpt:bob@example.net": "451 4.3.0 later"}) as relay:
        site.register(relay.port)
        site.insert(4)
        site.insert(1, recipients="bob@example.net")
        site.insert(1, due_at=in_the_future(5))
        with site.run("-q", "--once", retry_floor="1s") as runner:
            assert runner.wait() == 0
        assert site.states() == {"sent": 4, "queued": 2}
        assert len(runner.lines) == 1
        assert "stays: 2 from shop@example.com: the next due" in runner.lines[0]
