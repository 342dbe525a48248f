"""TLS where a relay offers it: from the first offer on it is required, for all runners, because the database knows."""

from __future__ import annotations

from pathlib import Path

import trustme

from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.store import accounts, senders
from outbox.store.journal import Act
from tests.relay import Relay, server_context
from tests.runner.errands import send
from tests.running import SHOP, Site


def register(site: Site, port: int, ca_file: str = "") -> None:
    act = Act("test", Clock().now())
    with site.db.atomic():
        accounts.add_account(site.db, Account("main", "127.0.0.1", port, Tls.OPPORTUNISTIC, ca_file=ca_file), act)
        senders.add_sender(site.db, Sender(SHOP, "main"), act)


def test_a_relay_without_tls_is_served_in_clear(site: Site, tmp_path: Path) -> None:
    with Relay() as relay:
        register(site, relay.port)
        site.insert(2)
        send(site, tmp_path)
        assert len(relay.messages) == 2
    assert accounts.account(site.db, "main").starttls_seen_at is None


def test_what_has_been_offered_once_is_required_ever_after(site: Site, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(authority.issue_cert("127.0.0.1"))
    with Relay(tls="starttls", context=context) as relay:
        register(site, relay.port, str(tmp_path / "ca.pem"))
        [first] = site.insert(1)
        send(site, tmp_path)
        assert len(relay.messages) == 1
        assert site.attempt(first)["tls"].startswith("TLSv1.")
        assert accounts.account(site.db, "main").starttls_seen_at is not None

        relay.tls = None  # somebody in between takes the offer away
        [second] = site.insert(1)
        send(site, tmp_path)
        assert len(relay.messages) == 1
        assert [line for session in relay.sessions[1:] for line in session.commands if "MAIL" in line.upper()] == []

    assert site.delivery(second)["state"] == "queued"
    assert "STARTTLS" in site.attempt(second)["reply"]
    assert accounts.account(site.db, "main").breaker_failures == 1


def test_an_offer_counts_whatever_came_of_it(site: Site, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Relay(tls="starttls", context=server_context(stranger.issue_cert("127.0.0.1"))) as relay:
        register(site, relay.port, str(tmp_path / "ca.pem"))
        site.insert(1)
        send(site, tmp_path)
        relay.tls = None
        site.insert(1)
        send(site, tmp_path)
        assert relay.messages == []
    assert accounts.account(site.db, "main").starttls_seen_at is not None
