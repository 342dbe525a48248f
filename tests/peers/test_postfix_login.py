"""A real Postfix with STARTTLS and Dovecot's logins: who may sign in, whom we trust, and who may speak as whom."""

from __future__ import annotations

import pytest

from tests.peers.accounts import sign_in
from tests.peers.authority import Authority
from tests.peers.dovecot import Dovecot
from tests.peers.mails import accepted, copies, insert_assorted, same_bytes
from tests.peers.postfix import Postfix
from tests.running import SHOP, Site, eventually

pytestmark = pytest.mark.usefixtures("dovecot")


def the_mail_waits(site: Site, postfix: Postfix, count: int) -> None:
    """None has failed, none counts a failure, none has left."""
    assert site.states() == {"queued": count}
    assert site.query("SELECT DISTINCT failures, doubts FROM outbox_delivery") == [(0, 0)]
    assert {"paused"} <= set(site.attempts()) <= {"paused", "relinquished"}
    assert site.query("SELECT count(*) FROM outbox_fate WHERE fate IN ('bounced', 'accepted')")[0][0] == 0
    assert copies(site, postfix.deliveries) == []


def test_mail_goes_over_verified_tls_with_a_login(sqlite_site: Site, postfix: Postfix, authority: Authority) -> None:
    site = sqlite_site
    login = sign_in(site, postfix.ports["login"], ca_file=authority.ca_file)
    numbers = insert_assorted(site)
    assert login.until_empty() == []
    assert site.states() == {"sent": len(numbers)}
    assert [row[0] for row in site.query("SELECT DISTINCT substr(tls, 1, 7) FROM outbox_attempt")] == ["TLSv1.3"]
    expected = accepted(site)
    eventually(lambda: len(copies(site, postfix.deliveries)) >= len(expected), "everything is in the mailbox")
    assert copies(site, postfix.deliveries) == expected
    assert same_bytes(site, postfix.deliveries)
    assert "sasl_method=PLAIN, sasl_username=shop" in postfix.log


def test_a_wrong_password_pauses_the_account_and_fails_nothing(
    sqlite_site: Site, postfix: Postfix, dovecot: Dovecot, authority: Authority
) -> None:
    site = sqlite_site
    login = sign_in(site, postfix.ports["login"], ca_file=authority.ca_file, password="wrong horse")
    site.insert(5)
    login.until_empty()
    the_mail_waits(site, postfix, 5)
    [reason] = site.query("SELECT pause_reason FROM outbox_account")[0]
    assert "535" in reason
    assert site.query("SELECT paused_until FROM outbox_account")[0][0] is not None
    assert site.attempts()["paused"] <= 3, "one try on each connection at most, or the login is locked out"

    login.password_file.write_text(dovecot.password)
    login.command("account", "set-password", "main", "--password-file", str(login.password_file))
    assert login.until_empty() == []
    assert site.states() == {"sent": 5}


@pytest.mark.parametrize("trusted", ["unrelated", "another name"])
def test_a_relay_that_cannot_be_verified_gets_nothing(
    sqlite_site: Site, postfix: Postfix, authority: Authority, trusted: str
) -> None:
    site = sqlite_site
    ca_file, host = (authority.unrelated, "localhost") if trusted == "unrelated" else (authority.ca_file, "127.0.0.1")
    login = sign_in(site, postfix.ports["login"], ca_file=ca_file, host=host)
    site.insert(2)
    login.until_empty()
    the_mail_waits(site, postfix, 2)
    assert "certificate" in site.query("SELECT reply FROM outbox_attempt WHERE outcome = 'paused'")[0][0]


def test_without_a_login_the_relay_says_so_and_nothing_fails(
    sqlite_site: Site, postfix: Postfix, authority: Authority
) -> None:
    site = sqlite_site
    login = sign_in(site, postfix.ports["login"], ca_file=authority.ca_file, username="")
    site.insert(2)
    login.until_empty()
    the_mail_waits(site, postfix, 2)


@pytest.mark.parametrize("service", ["login", "login, at once"])
def test_a_sender_that_is_not_the_logins_is_paused_and_the_others_are_not(
    sqlite_site: Site, postfix: Postfix, authority: Authority, service: str
) -> None:
    """553 5.7.1 … not owned by user: said at RCPT or, at once, at MAIL."""
    site = sqlite_site
    login = sign_in(site, postfix.ports[service], ca_file=authority.ca_file)
    login.command("sender", "add", "news@example.com", "--account", "main")
    site.insert(3, sender="news@example.com", priority=0)
    site.insert(3)
    login.until_empty()
    rows = site.query("SELECT sender, state, count(*) FROM outbox_delivery GROUP BY sender, state ORDER BY sender")
    assert [tuple(row) for row in rows] == [("news@example.com", "queued", 3), (SHOP, "sent", 3)]
    paused = site.query("SELECT address, paused FROM outbox_pause WHERE paused IS NOT NULL")
    assert [row[0] for row in paused] == ["news@example.com"]
    assert "not owned by user shop" in paused[0][1]
    assert site.query("SELECT count(*) FROM outbox_delivery WHERE failures > 0")[0][0] == 0
