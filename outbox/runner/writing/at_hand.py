"""What messages say that was read along with their claim, until it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from outbox.core.settlement import Claim
from outbox.store import Content


class AtHand:
    """Belongs to the event loop. `release` is called with the account and the octets of what is not wanted any more."""

    def __init__(self, release: Callable[[str, int], None]) -> None:
        self._release = release
        self._read: dict[tuple[int, int], tuple[str, Content]] = {}

    def put(self, read: Iterable[tuple[Claim, str, Content]]) -> None:
        for claim, account, content in read:
            self._read[claim.message_id, claim.claim_no] = account, content

    def take(self, claim: Claim, account: str) -> Content | None:
        """What it says, if it was read for this account."""
        found = self._read.pop((claim.message_id, claim.claim_no), None)
        if found is None:
            return None
        owner, content = found
        if owner == account:
            return content
        self._release(owner, content.size)  # its sender has moved meanwhile
        return None

    def drop(self, message_id: int, claim_no: int) -> None:
        """The claim is settled: nobody will ask, if nobody has."""
        if (found := self._read.pop((message_id, claim_no), None)) is not None:
            owner, content = found
            self._release(owner, content.size)
