"""Which refusals this runner has met in a row: what `outbox.core.brake` is told before each decision."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.core.account import Registry, Route
from outbox.core.brake import Streak, Streaks, signature_of
from outbox.core.fate import RecipientFate
from outbox.core.settlement import NO_STREAKS

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
            return NO_STREAKS
        name, (account, of_sender) = route.account.name, route.brakes
        if not (account or of_sender or name in self._of_account or name in self._of_sender):
            return NO_STREAKS  # as for almost every mail
        return Streaks(
            Streak(account, braked=True) if account else self._of_account.get(name, _NONE),
            Streak(of_sender, braked=True) if of_sender else self._of_sender.get(name, {}).get(sender, _NONE),
        )

    def after(
        self, sender: str, account: str, message_id: int, fates: Sequence[RecipientFate], *, spared: bool
    ) -> None:
        """One attempt more. Nothing is kept of what has no streak."""
        if account not in self._of_account and account not in self._of_sender and not signature_of(fates):
            return
        senders = self._of_sender.setdefault(account, {})
        for streaks, key in ((self._of_account, account), (senders, sender)):
            streak = streaks.pop(key, _NONE).then(message_id, fates, spared=spared)
            if streak != _NONE:
                streaks[key] = streak
        if not senders:
            del self._of_sender[account]

    def see(self, before: Registry, now: Registry) -> None:
        """A brake that is over, for whatever reason, ends what has led to it. A sender's row outlives the brake of its
        account: when others' mail has ended that, its own may still be refused.
        """
        senders = [each for key, each in before.senders.items() if each.brake and not _brake(now.senders.get(key))]
        ended = {name for name, each in before.accounts.items() if each.brake and not _brake(now.accounts.get(name))}
        for name in ended | {each.account for each in senders}:
            self._of_account.pop(name, None)
        for each in senders:
            self._of_sender.pop(each.account, None)


def _brake(row: object) -> str:
    return getattr(row, "brake", "")
