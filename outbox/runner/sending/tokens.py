"""The access tokens of accounts that log in with OAuth: got, kept, and renewed before they end.

    tokens = Tokens(clerk, clock, registrar.open_vault, who=runner_id)
    token = await tokens.access(account)               # for every connection; from memory, nearly always
    token = await tokens.access(account, fresh=True, refused=token)   # once, after the relay has refused it (535)
    await tokens.close()                               # before the clerk ends

A token is renewed at 80 % of its life, by one runner at a time: whoever takes the lease in the database (see
`outbox.store.oauth`). The others use the old token as long as it is good; after that they wait for the new one. When
renewing fails, the old token is used as long as it is good, too. A refresh token that the endpoint has replaced is
stored together with the access token it came with; so that it is not lost, what has been begun is ended, also when
nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol, TypeVar, cast

from outbox.clock import Clock
from outbox.core.account import Account
from outbox.core.secret import Secret
from outbox.errors import OAuthError, VaultError
from outbox.oauth.granted import Granted, obtain
from outbox.oauth.setup import Setup
from outbox.store import Store
from outbox.store import oauth as stored
from outbox.store.oauth import OAuth, Sealed
from outbox.store.opened import Database
from outbox.vault import Binding, Kind, Vault, open_after_rotation

log = logging.getLogger("outbox.oauth")

T = TypeVar("T")

PATIENCE = 45.0
"""Seconds that somebody waits for a token that another runner is getting: longer than getting one may take."""
LOOK_EVERY = 0.2
"""Seconds between two looks whether it is there."""
REST = timedelta(seconds=30)
"""After a failure, nobody asks again before that."""
MARGIN = timedelta(seconds=5)
"""A token that ends so soon is not used any more: it has to get to the relay."""


class Statements(Protocol):
    """What is needed of the clerk; a command line does it on a connection of its own."""

    def now(self) -> datetime: ...

    def read(self, verb: Callable[[Store], T]) -> Awaitable[T]: ...

    def upkeep(self, verb: Callable[[Store, datetime], T]) -> Awaitable[T]: ...


class Direct:
    """The same on a connection of one's own, each write in a transaction."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self.db = db
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    async def read(self, verb: Callable[[Store], T]) -> T:
        return verb(cast("Store", self))  # as much of a store as these verbs ask for: its connection

    async def upkeep(self, verb: Callable[[Store, datetime], T]) -> T:
        with self.db.atomic():
            return verb(cast("Store", self), self.now())


@dataclass(frozen=True, slots=True)
class _Known:
    """A token as it was handed out last, with what the account's row then said of where it goes. Who changes the row
    need not tell by the version: a token in memory goes nowhere else than a sealed one.
    """

    token: Secret
    binding: Binding
    credential_version: int
    refresh_at: datetime
    expires_at: datetime

    def is_for(self, account: Account) -> bool:
        return self.credential_version == account.credential_version and self.binding == Binding.of(account)


@dataclass(slots=True)
class Tokens:
    """See above. One for a runner; for its event loop only.

    open_vault   raises VaultError when there is no key
    who          names the runner in the lease; different for each
    load_again   called when a secret does not open: whether `open_vault` now has other keys than before
    """

    clerk: Statements
    clock: Clock
    open_vault: Callable[[], Vault]
    who: str
    load_again: Callable[[], bool] = lambda: False
    _known: dict[str, _Known] = field(default_factory=dict)
    _refused: dict[str, Secret] = field(default_factory=dict)
    _asking: dict[Binding, asyncio.Task[Secret]] = field(default_factory=dict)

    async def access(self, account: Account, *, fresh: bool = False, refused: Secret | None = None) -> Secret:
        """The access token to log in with, good for some seconds at least.

        `fresh` says that the relay has refused the token `refused` (None: the one that was handed out last): another
        one is got, unless somebody has got one already. Raises OAuthError (its message names the account; `permanent`
        tells whether a person has to act), and VaultError when the setup does not open. Being cancelled does not end
        the request that is under way.
        """
        name = account.name
        known = self._known.get(name)
        if known is not None and not known.is_for(account):
            known = None
        if fresh:
            refused = refused or (known.token if known is not None else None)
            if refused is not None:
                self._refused[name] = refused
            if known is not None and known.token == refused:
                del self._known[name]
                known = None
        if known is not None and self.clerk.now() < known.refresh_at:
            return known.token
        token = await self._asked_for(account)
        if fresh and token == refused:  # that had been under way before
            token = await self._asked_for(account)
        return token

    async def close(self, patience: float = 10.0) -> None:
        """Until nothing is under way, for at most `patience` seconds. What is cut off loses no mail, but may lose a
        refresh token that the endpoint has just replaced.
        """
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=patience)
        for each in self._asking.values():
            each.cancel()

    async def _asked_for(self, account: Account) -> Secret:
        """One at a time for an account as it is; whoever else comes meanwhile waits for the same."""
        binding = Binding.of(account)
        asking = self._asking.get(binding)
        if asking is None:
            asking = self._asking[binding] = asyncio.create_task(self._current(account))
            asking.add_done_callback(partial(self._asked, binding))
        return await asyncio.shield(asking)

    def _asked(self, binding: Binding, task: asyncio.Task[Secret]) -> None:
        del self._asking[binding]
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody did, that is nothing to complain about

    async def _current(self, account: Account) -> Secret:
        """The token of the row, or a new one."""
        until = self.clock.monotonic() + PATIENCE
        while True:
            row = await self.clerk.read(lambda store: stored.find(store.db, account.name))
            if row is None:
                words, command = "it has no OAuth setup", f"outbox account oauth {account.name}"
                raise OAuthError(f"account {account.name}: {words}: {command}", permanent=True, hint=command)
            now = self.clerk.now()
            known = self._still_good(account, row, now)
            if known is not None and now < known.refresh_at:
                return known.token
            lease = partial(_take, account.name, self.who, row.version)
            if not row.is_leased(now) and await self.clerk.upkeep(lease):
                renewed = await self._renew(account, row, known)
                if renewed is not None:
                    return renewed
            elif known is not None:
                return known.token
            elif row.is_leased(now) and not row.refreshing_by:
                raise _failed(account, "the last try to get a token has failed a moment ago", permanent=False)
            if self.clock.monotonic() > until:
                by = f"runner {row.refreshing_by[:8]}" if row.refreshing_by else "others"
                raise _failed(account, f"waited in vain for a token that {by} should get", permanent=False)
            await asyncio.sleep(LOOK_EVERY)

    def _still_good(self, account: Account, row: OAuth, now: datetime) -> _Known | None:
        """The row's token, opened, while it is good; remembered from then on."""
        if row.token is None or row.refresh_at is None or row.expires_at is None or now >= row.expires_at - MARGIN:
            return None
        try:
            token = self._open(account, row, row.token, Kind.TOKEN)
        except VaultError as error:
            log.warning("%s; another one is got", error)
            return None
        if token == self._refused.get(account.name):
            return None
        version = account.credential_version
        known = _Known(token, Binding.of(account), version, row.refresh_at, row.expires_at)
        self._known[account.name] = known
        return known

    # -- renewing, with the lease in hand

    async def _renew(self, account: Account, row: OAuth, known: _Known | None) -> Secret | None:
        """A new token, stored. None when the lease, or the setup, is not ours any more: what is in the database now
        counts. Where getting one fails, the old one as long as it is good.
        """
        rest_until = setup = None
        kept = False
        try:
            setup = self._setup(account, row)
            granted = await obtain(setup)
            now = self.clerk.now()
            kept = await self._store(account, row, setup, granted)
        except OAuthError as error:
            rest_until = None if error.permanent and known is None else self.clerk.now() + REST
            if known is None:
                raise _explained(account, setup, error) from None
            log.warning("account %s: its access token could not be renewed, and is used on: %s", account.name, error)
            return known.token
        finally:
            if not kept:
                await self.clerk.upkeep(partial(_release, account.name, self.who, row.version, rest_until))
        if not kept:
            return None
        self._refused.pop(account.name, None)  # whatever was got, it deserves a trial
        ends = (now + granted.life * stored.REFRESH_AT, now + granted.life)
        self._known[account.name] = _Known(granted.access_token, Binding.of(account), account.credential_version, *ends)
        return granted.access_token

    async def _store(self, account: Account, row: OAuth, setup: Setup, granted: Granted) -> bool:
        self.load_again()  # a key that was retired while the token was on its way must not seal it
        vault, binding = self.open_vault(), Binding.of(account)
        renewed = setup.renewed(granted.refresh_token) if granted.refresh_token is not None else setup
        sealed = Sealed(
            vault.seal(renewed.pack(), binding, Kind.OAUTH),
            vault.key_id,
            vault.seal(granted.access_token, binding, Kind.TOKEN),
            granted.life,
        )
        if not await self.clerk.upkeep(partial(_write, account.name, self.who, row.version, sealed)):
            log.warning("account %s: its OAuth setup was changed while a token was got", account.name)
            return False
        log.info("account %s: got an access token, good for %d s", account.name, granted.life.total_seconds())
        return True

    def _setup(self, account: Account, row: OAuth) -> Setup:
        packed = self._open(account, row, row.setup, Kind.OAUTH)
        try:
            return Setup.unpack(packed)
        except ValueError as error:
            raise VaultError(f"account {account.name}: {error}") from None

    def _open(self, account: Account, row: OAuth, sealed: str, kind: Kind) -> Secret:
        binding = Binding.of(account)
        return open_after_rotation(
            self.open_vault,
            self.load_again,
            lambda vault: vault.open(sealed, binding, key_id=row.key_id, kind=kind),
        )


def _failed(account: Account, words: str, *, permanent: bool, hint: str = "") -> OAuthError:
    return OAuthError(f"account {account.name}: {words}", permanent=permanent, hint=hint)


def _explained(account: Account, setup: Setup | None, error: OAuthError) -> OAuthError:
    """The same, saying whose it is and what a person does about it: the message is what a pause will show."""
    if not error.permanent or error.hint:
        return _failed(account, str(error), permanent=error.permanent, hint=error.hint)
    code = getattr(error, "code", "")
    consent = code in ("invalid_grant", "interaction_required", "consent_required", "access_denied")
    verb = "login" if consent and setup is not None and setup.device_url else "oauth"
    command = f"outbox account {verb} {account.name}"
    what = "re-consent needed" if consent else "the setup is to be corrected"
    return _failed(account, f"{error}; {what}: {command}", permanent=True, hint=command)


def _take(name: str, who: str, version: int, store: Store, now: datetime) -> bool:
    return stored.take(store.db, name, who, version, now)


def _write(name: str, who: str, version: int, sealed: Sealed, store: Store, now: datetime) -> bool:
    return stored.write(store.db, name, who, version, sealed, now)


def _release(name: str, who: str, version: int, rest_until: datetime | None, store: Store, now: datetime) -> bool:
    return stored.release(store.db, name, who, version, rest_until)
