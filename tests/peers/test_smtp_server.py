"""Nodemailer's smtp-server: replies without enhanced codes, and a line reader that is neither C nor Python."""

from __future__ import annotations

from tests.peers.accounts import outbox, sign_in
from tests.peers.authority import Authority
from tests.peers.mails import accepted, copies, insert_assorted, same_bytes
from tests.peers.smtp_server import SmtpServer
from tests.running import Site


def test_smtp_server_takes_what_the_runner_sends_and_changes_nothing(
    sqlite_site: Site, smtp_server: SmtpServer
) -> None:
    site = sqlite_site
    site.register(smtp_server.port)
    numbers = insert_assorted(site)
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait(60) == 0
    assert runner.lines == []
    assert site.states() == {"sent": len(numbers)}
    assert copies(site, smtp_server.deliveries) == accepted(site)
    assert same_bytes(site, smtp_server.deliveries)


def test_smtp_server_takes_mail_over_verified_tls_with_a_login(
    sqlite_site: Site, smtp_server: SmtpServer, authority: Authority
) -> None:
    site = sqlite_site
    login = sign_in(site, smtp_server.port, ca_file=authority.ca_file, mechanism="login")
    site.insert(5, subject="signed in")
    assert login.until_empty() == []
    assert site.states() == {"sent": 5}
    assert copies(site, smtp_server.deliveries) == accepted(site)
    assert [(each["secure"], each["user"]) for each in smtp_server.kept[-5:]] == [(True, "shop")] * 5


def test_a_wrong_password_pauses_the_account_and_fails_nothing(
    sqlite_site: Site, smtp_server: SmtpServer, authority: Authority
) -> None:
    site = sqlite_site
    login = sign_in(site, smtp_server.port, ca_file=authority.ca_file, password="wrong horse")
    site.insert(5)
    login.until_empty()
    assert site.states() == {"queued": 5}
    assert "535" in site.query("SELECT pause_reason FROM outbox_account")[0][0]
    assert copies(site, smtp_server.deliveries) == []


def test_refusals_without_enhanced_codes_are_the_recipients_own(sqlite_site: Site, smtp_server: SmtpServer) -> None:
    site = sqlite_site
    site.register(smtp_server.port)
    people = ("ann@example.net", "nobody@example.net", "later@example.net")
    number = site.insert_one(recipients=", ".join(people))
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait() == 0
    fates = {row[0]: tuple(row[1:]) for row in site.query("SELECT address, fate, code FROM outbox_fate")}
    assert fates == {people[0]: ("accepted", 250), people[1]: ("bounced", 550), people[2]: ("deferred", 450)}
    assert site.delivery(number)["state"] == "queued"
    outbox(site, "retry", "--state", "deferred", "--yes")
    with site.run("-q", "--until-empty") as runner:
        assert runner.wait() == 0
    assert site.delivery(number)["state"] == "failed"  # nobody@ was refused; the others have it, once each
    assert copies(site, smtp_server.deliveries) == accepted(site) == [(number, people[0]), (number, people[2])]
