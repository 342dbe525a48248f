"""Suppressed recipients, with the runner as people run it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.relay import Relay
from tests.running import Site, eventually


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as running:
        yield running


def send(site: Site) -> None:
    with site.run("--until-empty") as runner:
        assert runner.wait() == 0


def fates(site: Site, message_id: int) -> dict[str, tuple[str, str]]:
    rows = site.query("SELECT address, fate, status, reply FROM outbox_fate WHERE message_id = ?", message_id)
    return {address: (fate, f"{status} {reply}") for address, fate, status, reply in rows}


def test_a_suppressed_recipient_is_not_tried_and_the_others_are(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    assert site.outbox("suppress", "add", "BOB@example.net", "--reason", "hard bounce")[0] == 0
    [number] = site.insert(1, recipients="ann@example.net, Bob <bob@Example.NET>", cc="cyd@example.net")
    send(site)

    assert [each.recipients for each in relay.messages] == [("ann@example.net", "cyd@example.net")]
    assert [line for line in relay.commands if line.upper().startswith("RCPT") and "bob" in line.lower()] == []
    assert site.states() == {"failed": 1}
    told = fates(site, number)
    assert [told[who][0] for who in ("ann@example.net", "cyd@example.net")] == ["accepted", "accepted"]
    assert told["bob@Example.NET"] == (
        "bounced",
        "5.7.1 suppressed: hard bounce; `outbox suppress remove bob@example.net`, then retry",
    )
    rows = site.query("SELECT code FROM outbox_recipient WHERE fate = 'bounced'")
    assert [tuple(row) for row in rows] == [(None,)]


def test_a_message_for_suppressed_recipients_only_is_settled_without_a_relay(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    assert site.outbox("suppress", "add", "*@example.net")[0] == 0
    [number] = site.insert(1)
    send(site)

    assert relay.sessions == []
    assert site.delivery(number)["state"] == "failed"
    assert "suppressed: by request" in site.delivery(number)["last_reply"]
    shown = site.outbox("show", str(number))[1]
    assert f"`outbox retry {number}`" in shown
    assert "outbox sender add" not in shown


def test_what_is_no_longer_suppressed_is_sent_by_a_retry_to_whom_it_was_not(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    assert site.outbox("suppress", "add", "bob@example.net")[0] == 0
    [number] = site.insert(1, recipients="ann@example.net, bob@example.net")
    send(site)
    assert site.outbox("suppress", "remove", "bob@example.net")[0] == 0
    assert site.outbox("retry", str(number))[0] == 0
    send(site)

    assert [each.recipients for each in relay.messages] == [("ann@example.net",), ("bob@example.net",)]
    assert site.states() == {"sent": 1}
    site.audit(relay.messages)


def test_a_runner_hears_of_a_suppression_and_of_its_end(site: Site, relay: Relay) -> None:
    site.register(relay.port)
    with site.run() as runner:
        runner.started()
        site.insert(1)
        site.until(sent=1)
        assert site.outbox("suppress", "add", "ann0@example.net", "--for", "1h")[0] == 0

        def sent_or_failed() -> bool:
            site.insert(1)
            eventually(lambda: site.states().get("queued", 0) + site.states().get("sending", 0) == 0, "not settled")
            return "failed" in site.states()

        eventually(sent_or_failed, "the suppression is not heard")
        runner.stop()
        assert runner.wait() == 0
    site.audit(relay.messages)
