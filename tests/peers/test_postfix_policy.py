"""What a real Postfix refuses, and how far each refusal reaches: greylisting, its tables, a client it does not know."""

from __future__ import annotations

from typing import Any

import pytest

from tests.peers.accounts import outbox
from tests.peers.mails import accepted, copies
from tests.peers.postfix import Postfix
from tests.running import SHOP, Site, eventually


def run_until_empty(site: Site) -> list[str]:
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    return runner.lines


def fates(site: Site) -> dict[str, tuple[Any, ...]]:
    rows = site.query("SELECT address, fate, code, status FROM outbox_fate")
    return {row[0]: tuple(row[1:]) for row in rows}


def arrived(site: Site, postfix: Postfix) -> list[tuple[int, str]]:
    """The copies in the mailbox, once there are as many as the database calls accepted."""
    expected = len(accepted(site))
    eventually(lambda: len(copies(site, postfix.deliveries)) >= expected, "what was accepted is in the mailbox")
    return copies(site, postfix.deliveries)


def test_greylisted_mail_is_deferred_and_later_accepted(site: Site, postfix: Postfix) -> None:
    site.register(postfix.ports["greylisting"])
    token = "pg" if site.url.startswith("postgres") else "lite"
    people = [f"{name}-{token}@example.net" for name in ("ann", "bo", "strict")]
    numbers = [site.insert_one(recipients=address) for address in people]
    run_until_empty(site)
    assert site.states() == {"queued": 3}
    assert fates(site) == {
        people[0]: ("deferred", 450, "4.2.0"),
        people[1]: ("deferred", 450, "4.2.0"),
        people[2]: ("deferred", 451, "4.7.1"),
    }
    assert set(people) <= set(postfix.greylist.deferred)
    assert "Greylisted" in site.delivery(numbers[0])["last_reply"]
    assert [site.delivery(number)["failures"] for number in numbers] == [1, 1, 1]
    assert site.query("SELECT paused FROM outbox_pause WHERE paused IS NOT NULL") == []

    outbox(site, "retry", "--state", "deferred", "--yes")
    run_until_empty(site)
    assert site.states() == {"sent": 3}
    assert arrived(site, postfix) == sorted(zip(numbers, people, strict=True))


def test_only_the_greylisted_recipient_waits(sqlite_site: Site, postfix: Postfix) -> None:
    """One mail for two: the one whom the relay knows already has it at once, and is not sent it again."""
    site = sqlite_site
    site.register(postfix.ports["greylisting"])
    known, new = "known-to-greylist@example.net", "new-to-greylist@example.net"
    postfix.greylist.answer({"protocol_state": "RCPT", "sender": SHOP, "recipient": known})
    number = site.insert_one(recipients=f"{known}, {new}")
    run_until_empty(site)
    assert site.delivery(number)["state"] == "queued"
    assert fates(site) == {known: ("accepted", 250, "2.0.0"), new: ("deferred", 450, "4.2.0")}
    outbox(site, "retry", "--state", "deferred", "--yes")
    run_until_empty(site)
    assert site.delivery(number)["state"] == "sent"
    assert arrived(site, postfix) == [(number, known), (number, new)]


def test_what_the_tables_say_of_a_recipient_is_said_of_that_recipient(sqlite_site: Site, postfix: Postfix) -> None:
    site = sqlite_site
    site.register(postfix.ports["tables"])
    people = ["ann", "gone", "full", "busy"]
    number = site.insert_one(recipients=", ".join(f"{name}@example.net" for name in people))
    [other] = site.insert(1)
    run_until_empty(site)
    assert {name: fates(site)[f"{name}@example.net"] for name in people} == {
        "ann": ("accepted", 250, "2.0.0"),
        "gone": ("bounced", 550, "5.1.1"),
        "full": ("deferred", 452, "4.2.2"),
        "busy": ("deferred", 450, "4.2.1"),
    }
    assert site.delivery(number)["state"] == "queued"
    assert site.delivery(other)["state"] == "sent"
    assert arrived(site, postfix) == [(number, "ann@example.net"), (other, "ann0@example.net")]


def test_a_sender_that_the_tables_refuse_fails_no_message_of_another(sqlite_site: Site, postfix: Postfix) -> None:
    """Said at RCPT, where Postfix says everything, "550 5.7.1 … not authorized" may be about the recipient: so it is
    that message's alone, and the sender's other mail is tried.
    """
    site = sqlite_site
    site.register(postfix.ports["tables"])
    site.register(postfix.ports["tables"], account="second", sender="news@example.com")
    site.insert(2)
    site.insert(1, sender="news@example.com")
    run_until_empty(site)
    assert site.query("SELECT count(*) FROM outbox_delivery WHERE sender = ? AND state = 'sent'", SHOP)[0][0] == 2
    [news] = site.query("SELECT state, last_code, last_reply FROM outbox_delivery WHERE sender = 'news@example.com'")
    assert news[0] != "sent"
    assert news[1] == 550
    assert "not authorized" in news[2]
    assert len(arrived(site, postfix)) == 2


@pytest.mark.parametrize(
    ("service", "words"),
    [("stranger", "Client host rejected"), ("stranger at once", ""), ("no relaying", "Relay access denied")],
)
def test_a_relay_that_does_not_let_us_in_fails_no_message(
    sqlite_site: Site, postfix: Postfix, service: str, words: str
) -> None:
    site = sqlite_site
    site.register(postfix.ports[service])
    domain = "example.org" if service == "no relaying" else "example.net"
    numbers = [site.insert_one(recipients=f"ann{turn}@{domain}") for turn in range(4)]
    run_until_empty(site)
    assert site.states() == {"queued": 4}
    assert [site.delivery(number)["failures"] for number in numbers] == [0] * 4
    assert {"paused"} <= set(site.attempts()) <= {"paused", "relinquished"}
    assert words in site.query("SELECT reply FROM outbox_attempt WHERE outcome = 'paused'")[0][0]
    if service != "stranger at once":  # that one is the relay's fault, which counts in its breaker
        assert words in site.query("SELECT pause_reason FROM outbox_account")[0][0]
    assert copies(site, postfix.deliveries) == []
