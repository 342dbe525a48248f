"""A provider that refuses everything for an hour fails two messages, and not the backlog."""

from __future__ import annotations

from typing import Any

from outbox.store import accounts
from tests.relay import Relay, Session
from tests.runner.test_pauses import SOON, end_pauses, past, two_runners, until_probes
from tests.running import SHOP, Site, eventually

SPAM = "554 5.7.1 message content rejected"


def failed(site: Site) -> list[int]:
    query = "SELECT message_id FROM outbox_delivery WHERE state = 'failed' ORDER BY message_id"
    return [message_id for (message_id,) in site.query(query)]


def dots(relay: Relay) -> int:
    return relay.commands.count(".")


def test_the_backlog_waits_and_goes_when_the_relay_takes_mail_again(site: Site) -> None:
    with Relay({"dot": SPAM}) as relay:
        site.register(relay.port)
        site.insert(40)
        with site.run(**SOON) as runner:
            site.until(failed=2, queued=38)
            runner.says(r"status=deferred \(554 5\.7\.1")
            lost = failed(site)
            account = accounts.account(site.db, "main")
            assert (account.brake, sorted(account.failed_by_brake), account.probes) == ("dot 554 5.7.1", lost, 1)
            assert account.pause_reason.startswith("brake: ")
            assert site.query("SELECT count(*) FROM outbox_journal WHERE verb = 'account pause'") == [(1,)]
            listed = site.outbox("account", "list")[1]
            assert "brake: " in listed
            assert f"outbox retry {lost[0]} {lost[1]}" in listed
            assert dots(relay) <= 5, "the three of the row, and what was under way beside them"

            tried = dots(relay)
            for turn in (2, 3):
                end_pauses(site)
                until_probes(site, turn)
                site.until(failed=2, queued=38)
                assert dots(relay) == tried + turn - 1
            attempts = "SELECT count(DISTINCT message_id) FROM outbox_attempt WHERE code = 554"
            assert site.query(attempts) == [(dots(relay),)], "each probe is another message"

            relay.script.clear()
            end_pauses(site)
            site.until(failed=2, sent=38)
            assert site.query("SELECT brake, pause_reason, probes FROM outbox_account") == [(None, None, 0)]
            assert f"outbox retry {lost[0]} {lost[1]}" in site.outbox("account", "show", "main")[1]
            assert site.outbox("retry", *map(str, lost))[0] == 0
            site.until(sent=40)
            assert "outbox retry" not in site.outbox("account", "show", "main")[1]
        site.audit(relay.messages)


def test_two_runners_obey_one_brake(site: Site) -> None:
    with Relay({"dot": SPAM}) as relay:
        site.register(relay.port)
        with two_runners(site):
            site.insert(40)
            for probes in (1, 2):  # one that looked before the brake and claims behind it fails its own two by then
                end_pauses(site)
                until_probes(site, probes)
                eventually(lambda: "sending" not in site.states(), "what was under way is back")
            assert len(failed(site)) <= 4, "two of each runner"
            tried, lost = dots(relay), failed(site)
            end_pauses(site)
            until_probes(site, 3)
            eventually(lambda: "sending" not in site.states(), "the probe is back")
            assert (dots(relay), failed(site)) == (tried + 1, lost)
            relay.script.clear()
            end_pauses(site)
            site.until(failed=len(lost), sent=40 - len(lost))
        site.audit(relay.messages)


def test_one_sender_whose_mail_is_refused_does_not_brake_the_others(site: Site) -> None:
    def content(session: Session, line: str) -> str | None:
        return SPAM if session.sender == SHOP else None

    with Relay({"dot": content}) as relay:
        site.register(relay.port, connections=1)
        site.query("INSERT INTO outbox_sender (address, account) VALUES ('other@example.com', 'main')")
        with site.run(**SOON):
            for turn in range(1, 4):
                site.insert(1)
                site.insert(1, sender="other@example.com")
                done: dict[str, Any] = {"sent": turn, "failed": min(turn, 2)} | ({"queued": 1} if turn == 3 else {})
                site.until(**done)
            braked = site.query("SELECT address, brake FROM outbox_sender WHERE brake IS NOT NULL")
            assert braked == [(SHOP, "dot 554 5.7.1")]
            assert site.query("SELECT pause_reason FROM outbox_account") == [(None,)]
            site.insert(3, sender="other@example.com")
            site.until(sent=6, failed=2, queued=1)


def test_a_sender_whose_backlog_is_refused_does_not_keep_the_others_of_its_account_waiting(site: Site) -> None:
    def content(session: Session, line: str) -> str | None:
        return SPAM if session.sender == SHOP else None

    with Relay({"dot": content}) as relay:
        site.register(relay.port)
        site.query("INSERT INTO outbox_sender (address, account) VALUES ('other@example.com', 'main')")
        site.insert(20, due_at=past(hours=1))
        with site.run(**SOON):
            site.until(failed=2, queued=18)
            site.insert(5, sender="other@example.com")
            end_pauses(site)
            until_probes(site, 2)  # by what has been due for longest
            end_pauses(site)
            site.until(failed=2, queued=18, sent=5)
            until_probes(site, 1, "outbox_sender")
            braked = site.query("SELECT address, brake FROM outbox_sender WHERE brake IS NOT NULL")
            assert braked == [(SHOP, "dot 554 5.7.1")]
            assert site.query("SELECT pause_reason, brake FROM outbox_account") == [(None, None)]
            site.insert(5, sender="other@example.com")
            site.until(failed=2, queued=18, sent=10)
        site.audit(relay.messages)


def test_a_refused_message_that_is_left_alone_fails_in_the_end(site: Site) -> None:
    with Relay({"dot": SPAM}) as relay:
        site.register(relay.port)
        site.insert(3)
        with site.run(**SOON):
            site.until(failed=2, queued=1)
            site.query(
                "UPDATE outbox_delivery SET first_attempt_at = ? WHERE state = 'queued'"
                " AND first_attempt_at IS NOT NULL",
                past(hours=49),
            )
            end_pauses(site)
            site.until(failed=3)
        assert accounts.account(site.db, "main").brake == "dot 554 5.7.1"
        assert sorted(accounts.account(site.db, "main").failed_by_brake) == failed(site)


def test_unknown_mailboxes_are_no_row(site: Site) -> None:
    with Relay({"rcpt": "550 5.1.1 no such user"}) as relay:
        site.register(relay.port)
        site.insert(20)
        with site.run(**SOON):
            site.until(failed=20)
        assert site.query("SELECT pause_reason, brake FROM outbox_account") == [(None, None)]


def test_a_brake_can_be_switched_off(site: Site) -> None:
    with Relay({"dot": SPAM}) as relay:
        site.register(relay.port)
        site.insert(20)
        with site.run(retry_brake_after="0"):
            site.until(failed=20)
