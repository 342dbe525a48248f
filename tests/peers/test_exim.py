"""A real Exim: another reading of SMTP than Postfix's, and other words for its refusals."""

from __future__ import annotations

from tests.peers.accounts import outbox, sign_in
from tests.peers.authority import Authority
from tests.peers.exim import Exim
from tests.peers.mails import accepted, copies, insert_assorted, same_bytes
from tests.running import Site, eventually


def everything_arrives(site: Site, exim: Exim) -> None:
    expected = accepted(site)
    eventually(lambda: len(copies(site, exim.deliveries)) >= len(expected), "everything is in the mailbox")
    assert copies(site, exim.deliveries) == expected
    assert same_bytes(site, exim.deliveries)


def test_exim_takes_what_the_runner_sends_and_changes_nothing(sqlite_site: Site, exim: Exim) -> None:
    site = sqlite_site
    site.register(exim.port)
    numbers = insert_assorted(site)
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    assert runner.lines == []
    assert site.states() == {"sent": len(numbers)}
    assert site.delivery(numbers[0])["last_reply"].startswith("OK id=")
    everything_arrives(site, exim)


def test_exim_takes_mail_over_verified_tls_with_a_login(sqlite_site: Site, exim: Exim, authority: Authority) -> None:
    site = sqlite_site
    login = sign_in(site, exim.port, ca_file=authority.ca_file)
    site.insert(5)
    assert login.until_empty() == []
    assert site.states() == {"sent": 5}
    assert [row[0] for row in site.query("SELECT DISTINCT substr(tls, 1, 7) FROM outbox_attempt")] == ["TLSv1.3"]
    everything_arrives(site, exim)


def test_each_refusal_reaches_as_far_as_exim_means_it(sqlite_site: Site, exim: Exim) -> None:
    """One recipient, one message's content, one sender; and one recipient who is to come again later."""
    site = sqlite_site
    site.register(exim.port)
    site.register(exim.port, account="second", sender="banned@example.com")
    mixed = site.insert_one(recipients="ann@example.net, nobody@example.net, later@example.net")
    forbidden = site.insert_one(recipients="bo@example.net", subject="forbidden")
    banned = site.insert(2, sender="banned@example.com")
    [fine] = site.insert(1)
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait() == 0
    fates = {row[0]: tuple(row[1:]) for row in site.query("SELECT address, fate, code, status FROM outbox_fate")}
    assert fates["ann@example.net"][:2] == ("accepted", 250)
    assert fates["nobody@example.net"] == ("bounced", 550, "5.1.1")
    assert fates["later@example.net"] == ("deferred", 451, "4.7.1")
    assert fates["bo@example.net"] == ("bounced", 554, "5.7.1")
    assert site.delivery(mixed)["state"] == "queued"
    assert site.delivery(forbidden)["state"] == "failed"
    assert site.delivery(fine)["state"] == "sent"
    assert {site.delivery(number)["state"] for number in banned} == {"queued"}
    assert [row[0] for row in site.query("SELECT address FROM outbox_pause WHERE paused IS NOT NULL")] == [
        "banned@example.com"
    ]

    exim.let_in()
    outbox(site, "retry", "--state", "deferred", "--sender", "shop@example.com", "--yes")
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait() == 0
    assert site.delivery(mixed)["state"] == "failed"  # nobody@ was refused; the others have it
    everything_arrives(site, exim)
