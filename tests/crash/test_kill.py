"""kill -9 in mid-batch: what was committed is sent, and every extra copy has been announced.

The relay kills the runner while it answers a dot. Up to then there is nothing wrong in the runner's world.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.relay import DROP, HANG, Accept, Relay, Session
from tests.relay_session import Answer
from tests.running import Program, Site, eventually

MAILS = 24
BEFORE_THE_KILL = 7
"""Dots that are answered as usual."""


def killing(victims: list[Program]) -> Callable[[Session, str], Answer]:
    """An answer that kills the runner, and is never heard."""

    def answer(session: Session, line: str) -> Answer:
        for victim in victims:
            victim.kill()
        return DROP

    return answer


@pytest.mark.parametrize(
    ("on_doubt", "accepts"),
    [("retry", False), ("retry", True), ("hold", True)],
    ids=["retry-before-acceptance", "retry-after-acceptance", "hold-after-acceptance"],
)
def test_a_killed_runner_loses_no_mail_and_every_copy_is_announced(site: Site, on_doubt: str, accepts: bool) -> None:
    victims: list[Program] = []
    kill = killing(victims)
    fatal: Answer = Accept(kill) if accepts else kill
    with Relay({"dot": [None] * BEFORE_THE_KILL + [fatal]}) as relay:
        site.register(relay.port)
        site.insert(MAILS, on_doubt=on_doubt)
        with site.run() as victim:
            victims.append(victim)
            victim.wait()
        with site.run("--until-empty") as survivor:
            assert survivor.wait() == 0

        attempts = site.attempts()
        assert 1 <= attempts["doubt"] <= 3, "one at the kill, and at most one for each other connection"
        if on_doubt == "hold":
            site.until(1, sent=MAILS - attempts["doubt"], held=attempts["doubt"])
            assert max(copies_of_each(relay)) == 1
        else:
            site.until(1, sent=MAILS)
            assert len(relay.messages) - MAILS <= attempts["doubt"]
        assert sum(row[0] for row in site.query("SELECT doubts FROM outbox_delivery")) == attempts["doubt"]
        assert attempts["open"] == 0
        site.audit(relay.messages)


def copies_of_each(relay: Relay) -> list[int]:
    received = [message.message_id for message in relay.messages]
    return [received.count(each) for each in set(received)]


def test_what_a_killed_runner_held_goes_out_in_less_than_two_seconds(site: Site) -> None:
    with Relay({"dot": HANG}) as relay:
        site.register(relay.port)
        site.insert(3)
        with site.run() as victim, site.run() as survivor:
            eventually(lambda: relay.commands.count(".") == 3, "all three have written their dot")
            survivor.started()
            relay.script["dot"] = None
            busy = {row[0][:8] for row in site.query("SELECT lease_owner FROM outbox_delivery WHERE state = 'sending'")}
            first, second = (victim, survivor) if busy == {victim.started()} else (survivor, victim)
            assert busy == {first.started()}, "one of the two has claimed all three"
            killed_at = time.monotonic()
            first.kill()
            site.until(2, sent=3)
            print(f"recovered {time.monotonic() - killed_at:.2f} s after the kill")
            assert second.process.poll() is None
        assert site.attempts() == {"doubt": 3, "accepted": 3}
        site.audit(relay.messages)


def test_a_message_that_keeps_killing_its_runner_is_held_after_three_times(site: Site) -> None:
    victims: list[Program] = []
    with Relay({"rcpt:poison@example.net": killing(victims)}) as relay:
        site.register(relay.port)
        poison = site.insert_one(recipients="poison@example.net")
        for _ in range(3):
            with site.run() as victim:
                victims[:] = [victim]
                victim.wait()
        others = site.insert(6)
        with site.run("--until-empty") as survivor:
            assert survivor.wait() == 0

        site.until(1, held=1, sent=len(others))
        assert site.delivery(poison)["hold_reason"].startswith("its last three attempts were lost")
        assert site.attempts()["lost"] == 3, "before the dot: not a doubt"
        assert "stays: 1 held" in survivor.output
        site.audit(relay.messages)


def test_a_runner_that_was_killed_while_idle_leaves_nothing_behind(site: Site) -> None:
    with Relay() as relay:
        site.register(relay.port)
        site.insert(1)
        with site.run() as victim, site.run() as survivor:
            site.until(sent=1)
            survivor.started()
            victim.started()
            eventually(lambda: len(site.runners()) == 2, "two runners")
            victim.kill()
            eventually(lambda: len(site.runners()) == 1, "the dead one is declared dead", 2)
            site.insert(1)
            site.until(2, sent=2)
        site.audit(relay.messages)
