"""Rows of a statement: batches whose sizes are powers of two, so that there are few texts, which stay prepared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

LARGEST = 64
"""Rows of a statement."""


def in_powers(rows: Sequence[T], largest: int = LARGEST) -> Iterator[Sequence[T]]:
    """`rows` in order, in as few batches as there can be. `largest` is a power of two."""
    start, left = 0, len(rows)
    while left:
        size = min(largest, 1 << (left.bit_length() - 1))
        yield rows[start : start + size]
        start, left = start + size, left - size


def flat(rows: Sequence[Sequence[object]]) -> list[object]:
    """The parameters of a batch."""
    return [value for row in rows for value in row]
