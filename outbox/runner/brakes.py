"""Which refusals this runner has met in a row: what `outbox.core.brake` is told before each decision."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.core.account import Registry, Route
from outbox.core.brake import Streak, Streaks
from outbox.core.fate import RecipientFate

_NONE = Streak()


class Brakes:
    """Streaks by account, and by sender within it. They are this runner's own; a brake is in the database, and so every
    runner's.
    """

    def __init__(self) -> None:
        self._of_account: dict[str, Streak] = {}
        self._of_sender: dict[str, dict[str, Streak]] = {}

    def before(self, sender: str, route: Route | None) -> Streaks:
        """What an attempt of this sender meets: a brake, or else what there has been in a row."""
        if route is None:
            return Streaks()
        account, of_sender = (Streak(each, braked=True) if each else _NONE for each in route.brakes)
        name = route.account.name
        return Streaks(
            account if account.braked else self._of_account.get(name, _NONE),
            of_sender if of_sender.braked else self._of_sender.get(name, {}).get(sender, _NONE),
        )

    def after(
        self, sender: str, account: str, message_id: int, fates: Sequence[RecipientFate], *, spared: bool
    ) -> None:
        """One attempt more. Nothing is kept of a sender without a streak."""
        self._of_account[account] = self._of_account.get(account, _NONE).then(message_id, fates, spared=spared)
        senders = self._of_sender.setdefault(account, {})
        streak = senders.pop(sender, _NONE).then(message_id, fates, spared=spared)
        if streak != _NONE:
            senders[sender] = streak

    def see(self, before: Registry, now: Registry) -> None:
        """A brake that is over, for whatever reason, ends what has led to it."""
        ended = {name for name, each in before.accounts.items() if each.brake and not _brake(now.accounts.get(name))}
        ended |= {
            each.account for key, each in before.senders.items() if each.brake and not _brake(now.senders.get(key))
        }
        for name in ended:
            self._of_account.pop(name, None)
            self._of_sender.pop(name, None)


def _brake(row: object) -> str:
    return getattr(row, "brake", "")
