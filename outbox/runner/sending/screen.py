"""Who of a message's recipients is not tried: the suppressed, and in staging those who are not allowed.

    screen.load(suppressing)                   # with every snapshot of the registry: is anybody suppressed at all?
    screened = await screen.sort(recipients)   # kept: whom to try; withheld: the fates of the others

Where nobody is suppressed and everything is live, it costs nothing: `idle` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from outbox.core.fate import RecipientFate
from outbox.core.message import Recipient
from outbox.core.staging import Mode, Staging
from outbox.core.suppression import Suppression, withheld
from outbox.runner.writing.clerk import Clerk
from outbox.store import Store
from outbox.store.suppression import suppressed


@dataclass(frozen=True, slots=True)
class Screened:
    """`withheld` are fates that no relay was asked for; they are settled with those of the attempt."""

    kept: tuple[Recipient, ...]
    withheld: tuple[RecipientFate, ...] = ()


class Screen:
    """See above."""

    def __init__(self, clerk: Clerk, staging: Staging) -> None:
        self._clerk = clerk
        self._staging = staging
        self._suppressing = False
        self._choosing = staging.mode in (Mode.ALLOWLIST, Mode.OFF)

    def load(self, suppressing: bool) -> None:
        """Whether anybody is suppressed, as `any_active` says."""
        self._suppressing = suppressing

    @property
    def idle(self) -> bool:
        """Whether `sort` would keep everybody without asking."""
        return not self._suppressing and not self._choosing

    async def sort(self, recipients: Sequence[Recipient]) -> Screened:
        """Suppressed is what the database says now; it is asked for those only who are allowed."""
        if self.idle:
            return Screened(tuple(recipients))
        fates = {}
        if self._choosing:
            fates = {
                each.position: self._staging.withheld(each)
                for each in recipients
                if not self._staging.allows(each.address)
            }
        if self._suppressing:
            asked = [each for each in recipients if each.position not in fates]
            found = await self._suppressed([each.address for each in asked])
            fates |= {each.position: withheld(each, found[each.address]) for each in asked if each.address in found}
        kept = tuple(each for each in recipients if each.position not in fates)
        return Screened(kept, tuple(fates[each.position] for each in recipients if each.position in fates))

    async def _suppressed(self, addresses: Sequence[str]) -> dict[str, Suppression]:
        return await self._clerk.read(partial(_look_up, addresses))


def _look_up(addresses: Sequence[str], store: Store) -> dict[str, Suppression]:
    return suppressed(store.db, addresses, store.now())
