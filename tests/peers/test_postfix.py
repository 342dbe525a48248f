"""A real Postfix takes what the runner sends, and stores the same bytes, whatever its limits are."""

from __future__ import annotations

import pytest

from tests.peers.mails import accepted, copies, insert_assorted, same_bytes
from tests.peers.postfix import Postfix
from tests.running import Site, eventually


def everything_arrives(site: Site, postfix: Postfix) -> None:
    """What the database calls accepted is in the mailbox, once each, as it was sent."""
    expected = accepted(site)
    eventually(lambda: len(copies(site, postfix.deliveries)) >= len(expected), "everything is in the mailbox")
    assert copies(site, postfix.deliveries) == expected
    assert same_bytes(site, postfix.deliveries)


@pytest.mark.parametrize("service", ["plain", "no pipelining"])
def test_postfix_takes_what_the_runner_sends_and_changes_nothing(site: Site, postfix: Postfix, service: str) -> None:
    site.register(postfix.ports[service])
    numbers = insert_assorted(site)
    site.insert(50)
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    assert runner.lines == []
    assert site.states() == {"sent": len(numbers) + 50}
    assert site.query("SELECT DISTINCT code, status FROM outbox_fate") == [(250, "2.0.0")]
    assert "queued as" in site.delivery(numbers[0])["last_reply"]
    everything_arrives(site, postfix)


def test_postfix_refuses_one_recipient_and_takes_the_other(sqlite_site: Site, postfix: Postfix) -> None:
    site = sqlite_site
    site.register(postfix.ports["plain"])
    number = site.insert_one(recipients="ann@example.net, nobody@example.net, bo@example.net")
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait() == 0
    assert site.delivery(number)["state"] == "failed"
    fates = site.query("SELECT address, fate, code FROM outbox_fate ORDER BY position")
    assert [tuple(row) for row in fates] == [
        ("ann@example.net", "accepted", 250),
        ("nobody@example.net", "bounced", 554),
        ("bo@example.net", "accepted", 250),
    ]
    assert "Access denied" in site.delivery(number)["last_reply"]
    everything_arrives(site, postfix)


def test_three_hundred_recipients_of_a_relay_that_takes_fifty_at_a_time(sqlite_site: Site, postfix: Postfix) -> None:
    site = sqlite_site
    site.register(postfix.ports["few recipients"])
    people = [f"ann{turn}@example.net" for turn in range(300)]
    number = site.insert_one(recipients=", ".join(people[:100]), bcc=", ".join(people[100:]))
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    assert runner.lines == []
    assert site.delivery(number)["state"] == "sent"
    assert accepted(site) == sorted((number, address) for address in people)
    assert postfix.log.count("nrcpt=50 (queue active)") == 6, "in the pieces that it takes"
    everything_arrives(site, postfix)


@pytest.mark.parametrize(
    ("service", "said_by"), [("small", "not sent, says Outbox"), ("small, unannounced", "file too big")]
)
def test_a_mail_larger_than_the_relay_takes_fails_alone(
    sqlite_site: Site, postfix: Postfix, service: str, said_by: str
) -> None:
    site = sqlite_site
    site.register(postfix.ports[service])
    [large] = site.insert(1, text_body="Thanks for your order.\n" * 2000)
    [small] = site.insert(1)
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait() == 0
    assert site.delivery(small)["state"] == "sent"
    refused = site.delivery(large)
    assert (refused["state"], refused["last_status"]) == ("failed", "5.3.4")
    assert said_by in refused["last_reply"]
    everything_arrives(site, postfix)
