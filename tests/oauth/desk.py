"""What the tests of tokens share: an account, its vault and clock, and runners."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from outbox import keys
from outbox.core.account import Account, Mechanism, Tls
from outbox.core.secret import Secret
from outbox.errors import OAuthError
from outbox.oauth.setup import Grant, Setup
from outbox.runner.sending import tokens as tokens_module
from outbox.runner.sending.tokens import Direct, Tokens
from outbox.store import accounts, oauth
from outbox.store.database import connect
from outbox.store.journal import Act
from outbox.store.oauth import OAuth, Sealed
from outbox.vault import Binding, Kind, Vault
from tests.clock import FakeClock
from tests.oauth.endpoint import Endpoint

HOUR = timedelta(hours=1)
REFRESH = "canary-refresh-1"
SHOP = Account("shop", "127.0.0.1", 2525, Tls.NONE, Mechanism.XOAUTH2, "shop@example.com")


@dataclass
class Desk:
    """An account, its vault and clock, and as many runners as a test wants, each with a connection of its own."""

    url: str
    stack: ExitStack
    clock: FakeClock
    vault: Vault
    account: Account = SHOP

    def set_up(self, setup: Setup) -> None:
        """What `outbox account oauth` does."""
        db = self.connect()
        packed = self.vault.seal(setup.pack(), Binding.of(self.account), Kind.OAUTH)
        with db.atomic():
            if not accounts.accounts(db):
                accounts.add_account(db, self.account, Act("test", self.clock.now()))
            sealed = Sealed(packed, self.vault.key_id)
            oauth.save(db, self.account, sealed, Act("test", self.clock.now()), "account oauth")
        self.account = accounts.account(db, "shop")

    def connect(self) -> Any:
        return self.stack.enter_context(closing(connect(self.url)))

    def runner(self, who: str = "a" * 32, **options: Any) -> Tokens:
        options.setdefault("open_vault", lambda: self.vault)
        return Tokens(Direct(self.connect(), self.clock), self.clock, who=who, **options)

    @property
    def row(self) -> OAuth:
        found = oauth.find(self.connect(), "shop")
        assert found is not None
        return found

    @property
    def setup(self) -> Setup:
        binding = Binding.of(self.account)
        return Setup.unpack(self.vault.open(self.row.setup, binding, key_id=self.row.key_id, kind=Kind.OAUTH))


@pytest.fixture
def desk(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(tokens_module, "LOOK_EVERY", 0.01)
    vault = Vault(keys.Keys((keys.new(),), keys.Origin.ENVIRONMENT))
    with ExitStack() as stack:
        yield Desk(database_url, stack, FakeClock(), vault)


@pytest.fixture(autouse=True)
def no_canary_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert "canary" not in caplog.text


def person(server: Endpoint) -> Setup:
    return Setup(
        Grant.REFRESH_TOKEN,
        server.token_url,
        server.device_url,
        client_id="app",
        client_secret=Secret("canary-secret"),
        refresh_token=Secret(REFRESH),
    )


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def failure(tokens: Tokens, account: Account, *, fresh: bool = False) -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        asyncio.run(tokens.access(account, fresh=fresh))
    assert "account shop" in str(caught.value)
    assert "canary" not in f"{caught.value!r} {caught.value.hint}"
    return caught.value
