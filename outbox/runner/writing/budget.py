"""How much mail may be in memory at a time."""

from __future__ import annotations

from collections import Counter


def under_way(octets: int) -> int:
    """What a stored message of so many octets takes until it is composed: itself, and at most 78 octets for 57 of it,
    for that is what base64 makes of them.
    """
    return octets + octets * 78 // 57


class ByteBudget:
    """Bytes, shared by accounts: what fits is taken. Whoever holds nothing may always take one message, however large
    and however much the others hold: else one relay that hangs, with large mail, would stop all the others.
    """

    def __init__(self, room: int) -> None:
        self._half = room // 2
        self._room = room
        self._held: Counter[str] = Counter()

    @property
    def has_room(self) -> bool:
        return self._room > 0

    @property
    def is_half_free(self) -> bool:
        return self._room > self._half

    def admits(self, owner: str, size: int = 1) -> bool:
        return size <= self._room or self._held[owner] == 0

    def take(self, owner: str, size: int) -> None:
        self._room -= size
        self._held[owner] += size

    def give(self, owner: str, size: int) -> None:
        self._room += size
        self._held[owner] -= size
        if not self._held[owner]:
            del self._held[owner]
