"""A message whose time is over never gets its dot, wherever it is by then: in line, connecting, or in the dialogue."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from outbox.clock import Clock
from outbox.store.rows import moment
from tests.relay import HANG, Drip, Relay, Session
from tests.running import Site, eventually

BIG = "x" * 60 + "\r\n"
TIME = 2.5
"""Seconds that a message has: enough for it to be claimed and begun."""


def soon(seconds: float) -> str:
    return str(moment(Clock().now() + timedelta(seconds=seconds)))


def ended(site: Site, message_id: int) -> tuple[Any, ...]:
    """State, dot mark, reply, and how the attempt ended."""
    delivery, attempt = site.delivery(message_id), site.attempt(message_id)
    return delivery["state"], attempt["dot_at"], delivery["last_reply"], attempt["outcome"]


@pytest.mark.parametrize(
    "script",
    [
        {"mail": HANG},
        {"rcpt": HANG},
        {"rcpt": Drip("250 2.1.5 ok", 0.3)},
        {"data": HANG},
        {"data": ("354 go on", HANG)},
    ],
    ids=["silent at MAIL", "silent at RCPT", "dripping at RCPT", "silent at DATA", "not reading the body"],
)
def test_a_dialogue_is_cut_off_before_its_dot(site: Site, script: dict[str, Any]) -> None:
    with Relay(script, receive_buffer=4096) as relay:
        site.register(relay.port)
        with site.run() as runner:
            runner.started()
            message_id = site.insert_one(recipients="ann@example.net", text_body=BIG * 60_000, expires_at=soon(TIME))
            site.until(expired=1)
            relay.release()
            state, dot_at, reply, outcome = ended(site, message_id)
            assert (state, dot_at, outcome) == ("expired", None, "deferred")
            assert "its time (expires_at) was over" in reply
            assert runner.says("status=expired")
            other = site.insert_one(recipients="bob@example.net")
            relay.script.clear()
            site.until(expired=1, sent=1)
        assert [each.message_id.partition(".")[0] for each in relay.messages] == [f"<{other}"]
        assert sum(line == "." for line in relay.commands) == 1
        site.audit(relay.messages)


def test_refused_recipients_stay_refused(site: Site) -> None:
    script = {"rcpt:ann@example.net": "550 5.1.1 no such user", "rcpt:bob@example.net": HANG}
    with Relay(script, extensions=()) as relay:
        site.register(relay.port)
        with site.run() as runner:
            runner.started()
            message_id = site.insert_one(recipients="ann@example.net, bob@example.net", expires_at=soon(TIME))
            site.until(expired=1)
        fates = site.query("SELECT address, fate FROM outbox_fate WHERE message_id = ? ORDER BY 1", message_id)
        assert fates == [("ann@example.net", "bounced"), ("bob@example.net", "deferred")]


def test_a_message_that_waited_too_long_for_its_place_is_not_begun(site: Site) -> None:
    with Relay({"dot": [HANG]}) as relay:
        site.register(relay.port, connections=1)
        site.insert(1)
        with site.run():
            eventually(lambda: "." in relay.commands, "the place is taken")
            late = site.insert_one(recipients="late@example.net", expires_at=soon(TIME))
            eventually(lambda: site.delivery(late)["state"] == "sending", "it waits for the place")
            outlive(site, late)
            relay.release()
            site.until(sent=1, expired=1)
        assert not any("late@" in line for line in relay.commands)
        assert site.attempt(late)["outcome"] == "relinquished"


def outlive(site: Site, message_id: int) -> None:
    """Until its time is over."""
    expires_at = site.delivery(message_id)["expires_at"]
    until = expires_at if isinstance(expires_at, str) else str(moment(expires_at))
    eventually(lambda: soon(0) > until, "its time is over")


def outliving(site: Site, then: str | None = None) -> Callable[[Session, str], str | None]:
    """An answer of the relay that comes when the time of the first message is over."""

    def answer(session: Session, line: str) -> str | None:
        with closing(Site(site.url, site.folder)) as own:  # this thread's
            outlive(own, own.query("SELECT min(message_id) FROM outbox_delivery")[0][0])
        return then

    return answer


def test_a_connection_that_took_too_long_is_kept_for_another_message(site: Site) -> None:
    with Relay({"ehlo": [outliving(site)]}) as relay:
        site.register(relay.port, connections=1)
        with site.run() as runner:
            runner.started()
            late = site.insert_one(recipients="late@example.net", expires_at=soon(TIME))
            site.until(expired=1)
            site.insert(1)
            site.until(expired=1, sent=1)
        assert "its time (expires_at) was over" in site.delivery(late)["last_reply"]
        assert len(relay.sessions) == 1
        assert not any("late@" in line for line in relay.commands)


def test_a_dot_that_is_out_is_waited_for(site: Site) -> None:
    with Relay({"dot": outliving(site)}) as relay:
        site.register(relay.port)
        with site.run() as runner:
            runner.started()
            message_id = site.insert_one(recipients="ann@example.net", expires_at=soon(TIME))
            site.until(sent=1)
        assert site.delivery(message_id)["doubts"] == 0


def test_the_fault_of_a_relay_counts_although_the_message_is_late(site: Site) -> None:
    with Relay({"banner": outliving(site, "421 4.3.2 not now")}) as relay:
        site.register(relay.port)
        with site.run() as runner:
            runner.started()
            message_id = site.insert_one(recipients="ann@example.net", expires_at=soon(TIME))
            site.until(expired=1)
    assert "not now" in site.delivery(message_id)["last_reply"]
    assert site.query("SELECT breaker_failures FROM outbox_account") == [(1,)]
