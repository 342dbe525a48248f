"""What may be claimed now: what no pause, no limit and no staging mode keeps back."""

from __future__ import annotations

from datetime import datetime

from outbox.core.account import Account, Route
from outbox.core.staging import Staging
from outbox.runner.claiming.quota import Quota
from outbox.runner.registrar import Registrar


class Gate:
    """Asked before every claim, so it answers from memory."""

    def __init__(self, registrar: Registrar, quota: Quota, staging: Staging) -> None:
        self._registrar = registrar
        self._quota = quota
        self._staging = staging

    @property
    def is_open(self) -> bool:
        """Whether anything is claimed at all."""
        return self._staging.claims

    def is_closed(self, route: Route, now: datetime) -> bool:
        """Nothing of this route may be claimed now, not even to try it."""
        return self._registrar.is_closed(route, now) or bool(self._quota.blocked(route, now))

    def room(self, route: Route, now: datetime) -> int | None:
        """How many messages of this sender are worth to be claimed now; None for any number."""
        return self._quota.room(route, now)

    def places(self, account: Account) -> int:
        """How many connections we may have to its relay at a time; at least one, for what was claimed before."""
        return max(1, self._quota.places(account))

    def reason(self, route: Route | None, now: datetime) -> str:
        """Why nothing of this route is claimed now, in words; empty if it is."""
        if not self.is_open:
            return f"[deliver] mode is {self._staging.mode}: nothing is sent"
        return "" if route is None else route.blocked(now) or self._quota.blocked(route, now)
