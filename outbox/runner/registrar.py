"""What the runner knows of the delivery policy in the database: a snapshot, taken anew every second, or when a fault
changes it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from outbox.clock import Clock
from outbox.core.account import Account, Registry, Route
from outbox.core.pause import Probe
from outbox.core.rules import Rules, for_relay
from outbox.errors import VaultError
from outbox.runner import snapshot
from outbox.runner.snapshot import Snapshot
from outbox.runner.writing.clerk import Clerk
from outbox.store import Store, accounts
from outbox.store.journal import Act
from outbox.vault import Vault

log = logging.getLogger("outbox.registrar")

FRESH = 1.0
"""Seconds for which a snapshot is good: how long a pause by an operator may take to be heard."""


class Registrar:
    """Resolves senders to accounts. `runner` is our id, and `who` how the journal names us."""

    def __init__(
        self, clerk: Clerk, clock: Clock, open_vault: Callable[[], Vault], *, runner: Callable[[], str], who: str
    ) -> None:
        self.registry = Registry()
        self._clerk = clerk
        self._clock = clock
        self._open_vault = open_vault
        self._vault: Vault | None = None
        self._runner = runner
        self._who = who
        self._taken_at = float("-inf")
        self._pausing: Counter[str] = Counter()
        self._rules: Rules = ()
        self._rules_of: dict[str, Rules] = {}
        self.on_snapshot: list[Callable[[Snapshot], None]] = []
        """Called with every snapshot, before it counts."""
        self.on_change: list[Callable[[Registry, Registry], Awaitable[None]]] = []
        """Called with the snapshot before and the one now, when they differ."""

    async def refresh(self, *, force: bool = False) -> Registry:
        """The snapshot, no older than FRESH seconds."""
        if force or self._clock.monotonic() - self._taken_at > FRESH:
            asked_at = self._clock.monotonic()
            taken = await self._clerk.read(partial(snapshot.take, self._runner()))
            before, self._taken_at = self.registry, asked_at
            self._learn(taken)
            if not self.registry.same_as(before):
                for each in self.on_change:
                    await each(before, taken.registry)
        return self.registry

    def _learn(self, taken: Snapshot) -> None:
        if taken.rules != self._rules:
            self._rules, self._rules_of = taken.rules, {}
        for each in self.on_snapshot:
            each(taken)
        self.registry = taken.registry

    def rules(self, account: Account) -> Rules:
        """The operator's rules for what its relay says."""
        host = account.relay_host
        if host not in self._rules_of:
            self._rules_of[host] = for_relay(self._rules, host)
        return self._rules_of[host]

    def load_again(self) -> bool:
        """Look once more where the keys are: whether there are others now than before."""
        known = self._vault.keys.ids if self._vault is not None else ()
        try:
            self._vault = self._open_vault()
        except VaultError:
            return False  # keys from the environment are gone once they have been read
        return self._vault.keys.ids != known

    def open_vault(self) -> Vault:
        """The vault, loaded when the first password is needed. Raises VaultError when there is no key."""
        if self._vault is None:
            self._vault = self._open_vault()
        return self._vault

    @contextmanager
    def pausing(self, account: str) -> Iterator[None]:
        """While a pause is being written that the snapshot does not show yet."""
        self._pausing[account] += 1
        try:
            yield
        finally:
            self._pausing[account] -= 1

    def is_closed(self, route: Route, now: datetime) -> bool:
        """Nothing of this route may be sent now, not even to try it."""
        return bool(self._pausing[route.account.name]) or route.is_closed(now)

    def admits(self, route: Route, probe: Probe | None, now: Callable[[], datetime]) -> bool:
        """Whether a message may go now that was claimed as this probe, or as none."""
        return not self._pausing.get(route.account.name) and (route.unhindered or route.admits(probe, now()))

    async def newer_than(self, moment: float) -> Registry:
        """The snapshot, taken anew if it is older than `moment` (monotonic)."""
        return await self.refresh(force=self._taken_at <= moment)

    def counts_failures(self, account: Account) -> bool:
        """Whether the breaker of its relay has counted anything."""
        now = self.registry.accounts.get(account.name)
        return now is not None and now.breaker_failures > 0

    async def relay_answered(self, account: Account) -> None:
        """A mail was accepted: the breaker, if it had counted anything, starts again from zero. Never raises: the mail
        is settled, and nothing may undo that.
        """
        try:
            await self._clerk.upkeep(partial(_recover, account, self._who))
            await self.refresh(force=True)
        except Exception:  # the next mail will do it
            log.exception("account %s: the breaker of its relay could not be reset", account.name)


def _recover(account: Account, who: str, store: Store, now: datetime) -> None:
    accounts.relay_recovered(store.db, account.relay_host, account.relay_port, Act(who, now))
