"""How to reach an account's relay and log in to it: its settings, and its password or access token as it is now."""

from __future__ import annotations

from dataclasses import replace

from outbox.clock import Clock
from outbox.core.account import Account, Tls
from outbox.core.networks import ANYWHERE, Networks
from outbox.core.outcome import Report, Stage
from outbox.core.reply import Reply, sanitise
from outbox.core.secret import Secret
from outbox.errors import OAuthError, VaultError
from outbox.oauth.setup import MECHANISMS
from outbox.runner.registrar import Registrar
from outbox.runner.sending.tokens import Tokens
from outbox.runner.writing.clerk import Clerk
from outbox.smtp.connection import Connection
from outbox.smtp.relay import Relay
from outbox.store import accounts
from outbox.vault import open_after_rotation


class Login:
    """See above. `runner` is the id that stands in the lease of a token that is being renewed."""

    def __init__(
        self,
        clerk: Clerk,
        registrar: Registrar,
        clock: Clock,
        *,
        helo: str,
        runner: str,
        networks: Networks = ANYWHERE,
    ) -> None:
        self._clerk = clerk
        self._registrar = registrar
        self._helo, self._networks = helo, networks
        self._tokens = Tokens(clerk, clock, registrar.open_vault, runner, registrar.load_again)
        self._relays: dict[str, tuple[Account, Relay]] = {}

    async def relay(self, account: Account, *, refused: Relay | None = None) -> Relay | Report:
        """Where and how to connect now, or what keeps us from it. `refused`: how we have tried, and the relay has not
        taken that token.
        """
        try:
            relay = self._known(account)
            if account.mechanism not in MECHANISMS:
                return relay
            token = None if refused is None else refused.password
            return replace(relay, password=await self._tokens.access(account, fresh=token is not None, refused=token))
        except VaultError as error:
            return Report(Stage.LOCAL, Reply(554, "5.7.8", sanitise(str(error))))
        except OAuthError as error:
            code, status = (554, "5.7.8") if error.permanent else (454, "4.7.0")
            return Report(Stage.LOCAL, Reply(code, status, sanitise(str(error))))

    def may_refresh(self, account: Account, report: Report) -> bool:
        """Whether another token may do what this one did not: one retry, for the relay has refused the login."""
        reply = report.reply
        return account.mechanism in MECHANISMS and report.stage is Stage.AUTH and reply is not None and reply.permanent

    async def remember(self, account: Account, opened: Connection | Report) -> None:
        """A relay that has offered STARTTLS once has to offer it from then on, whatever came of it."""
        if account.tls is not Tls.OPPORTUNISTIC or account.starttls_seen_at or not opened.starttls_offered:
            return
        await self._clerk.upkeep(lambda store, now: accounts.starttls_seen(store.db, account.name, now))
        await self._registrar.refresh(force=True)

    async def close(self) -> None:
        """Until no token is being got any more."""
        await self._tokens.close()

    def _known(self, account: Account) -> Relay:
        known = self._relays.get(account.name)
        if known is not None and (known[0] is account or known[0] == account):
            return known[1]
        relay = Relay.of(account, helo=self._helo, password=self._password(account), networks=self._networks)
        self._relays[account.name] = account, relay
        return relay

    def _password(self, account: Account) -> Secret:
        if account.secret is None:
            return Secret("")
        registrar = self._registrar
        return open_after_rotation(
            registrar.open_vault, registrar.load_again, lambda vault: vault.open_account(account)
        )
