"""Mail through an account that takes tokens: the real runner, a relay that takes the current token only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outbox import keys
from outbox.clock import Clock
from outbox.core.account import Account, Mechanism, Sender, Tls
from outbox.core.secret import Secret
from outbox.oauth.setup import Grant, Setup
from outbox.store import accounts, oauth, senders, tables
from outbox.store.journal import Act
from outbox.store.oauth import Sealed
from outbox.vault import Binding, Kind, Vault
from tests.oauth.endpoint import ERROR, Endpoint, Reply
from tests.relay import Relay
from tests.runner.errands import mail, send
from tests.running import SHOP, Site


class OnlyTheCurrent(dict[str, str]):
    """What a relay knows: everybody's password is the token that the endpoint gave last, unless it is revoked."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__({SHOP: "-"})
        self.endpoint = endpoint
        self.revoked: set[str] = set()

    def get(self, user: str, default: Any = None) -> Any:
        current = self.endpoint.tokens[-1:]
        return current[0] if current and current[0] not in self.revoked else "nobody has this"


@pytest.fixture
def vault() -> Vault:
    return Vault(keys.Keys((keys.new(),), keys.Origin.ENVIRONMENT))


def known_to(relay: Relay, endpoint: Endpoint) -> OnlyTheCurrent:
    known = OnlyTheCurrent(endpoint)
    relay.credentials = known
    return known


def register(site: Site, relay: Relay, endpoint: Endpoint, vault: Vault, mechanism: Mechanism) -> None:
    account = Account("main", "127.0.0.1", relay.port, Tls.NONE, mechanism, SHOP)
    setup = Setup(
        Grant.REFRESH_TOKEN,
        endpoint.token_url,
        endpoint.device_url,
        client_id="app",
        refresh_token=Secret("canary-refresh-1"),
    )
    act = Act("test", Clock().now())
    sealed = Sealed(vault.seal(setup.pack(), Binding.of(account), Kind.OAUTH), vault.key_id)
    with site.db.atomic():
        accounts.add_account(site.db, account, act)
        senders.add_sender(site.db, Sender(SHOP, "main"), act)
        oauth.save(site.db, account, sealed, act, "account oauth")


def logins(relay: Relay) -> int:
    return sum(command.startswith("AUTH ") for command in relay.commands)


def state(site: Site, message_id: int) -> tuple[Any, ...]:
    (row,) = site.query("SELECT state, failures FROM outbox_delivery WHERE message_id = ?", message_id)
    return tuple(row)


@pytest.mark.parametrize("mechanism", [Mechanism.XOAUTH2, Mechanism.OAUTHBEARER])
def test_mail_goes_with_one_token_that_is_nowhere_in_clear(
    site: Site, tmp_path: Path, vault: Vault, mechanism: Mechanism, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with Endpoint() as endpoint, Relay(mechanisms=(str(mechanism).upper(),)) as relay:
        known_to(relay, endpoint)
        register(site, relay, endpoint, vault, mechanism)
        sent = [mail(site) for _ in range(5)]
        send(site, tmp_path, vault)
        assert len(relay.messages) == 5
        assert {session.user for session in relay.sessions if session.commands} == {SHOP}
        assert len(endpoint.requests) == 1
    assert {state(site, each) for each in sent} == {("sent", 0)}
    assert "canary" not in caplog.text
    for table in tables.TABLES:
        assert "canary" not in repr(list(table.select().dicts().execute(site.db)))


def test_a_refused_token_is_renewed_and_tried_once_more(site: Site, tmp_path: Path, vault: Vault) -> None:
    with Endpoint() as endpoint, Relay(mechanisms=("XOAUTH2",)) as relay:
        known = known_to(relay, endpoint)
        register(site, relay, endpoint, vault, Mechanism.XOAUTH2)
        mail(site)
        send(site, tmp_path, vault)
        known.revoked.add(endpoint.current)
        second = mail(site)
        send(site, tmp_path, vault)
        assert (len(relay.messages), len(endpoint.requests), logins(relay)) == (2, 2, 3)
    assert state(site, second) == ("sent", 0)
    assert not accounts.account(site.db, "main").pause_reason


def test_a_second_refusal_pauses_the_account(site: Site, tmp_path: Path, vault: Vault) -> None:
    refusal = {"auth": "535 5.7.3 Authentication unsuccessful"}
    with Endpoint() as endpoint, Relay(refusal, mechanisms=("XOAUTH2",)) as relay:
        known_to(relay, endpoint)
        register(site, relay, endpoint, vault, Mechanism.XOAUTH2)
        waiting = [mail(site) for _ in range(3)]
        send(site, tmp_path, vault)
        assert logins(relay) <= 2 * 3  # three connections at most, each with one more try
        assert len(endpoint.requests) == 2
    assert {state(site, each) for each in waiting} == {("queued", 0)}
    assert "535 5.7.3" in accounts.account(site.db, "main").pause_reason


def test_a_withdrawn_consent_pauses_the_account_and_says_what_to_do(site: Site, tmp_path: Path, vault: Vault) -> None:
    with Endpoint(ERROR("invalid_grant", "revoked")) as endpoint, Relay(mechanisms=("XOAUTH2",)) as relay:
        known_to(relay, endpoint)
        register(site, relay, endpoint, vault, Mechanism.XOAUTH2)
        waiting = mail(site)
        send(site, tmp_path, vault)
        assert relay.commands == []
    assert state(site, waiting) == ("queued", 0)
    paused = accounts.account(site.db, "main")
    assert "invalid_grant: revoked; re-consent needed: outbox account login main" in paused.pause_reason


def test_an_endpoint_in_trouble_pauses_the_account_for_minutes(site: Site, tmp_path: Path, vault: Vault) -> None:
    with Endpoint(Reply(503)) as endpoint, Relay(mechanisms=("XOAUTH2",)) as relay:
        known_to(relay, endpoint)
        register(site, relay, endpoint, vault, Mechanism.XOAUTH2)
        waiting = mail(site)
        send(site, tmp_path, vault)
        assert relay.commands == []
        paused = accounts.account(site.db, "main")
        assert "answers 503" in paused.pause_reason
        assert paused.paused_until is not None
        assert 0 < (paused.paused_until - Clock().now()).total_seconds() < 20 * 60
    assert state(site, waiting) == ("queued", 0)
