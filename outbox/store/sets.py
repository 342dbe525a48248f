"""Many rows in one statement, on SQLite.

A statement that runs once a row costs calls of Python once a row, and takes and gives the interpreter's lock, which
another thread may want meanwhile. The text of a set is derived from that of one row, so there is one to read:

    INSERT INTO t (a, b) VALUES (?, ?)        INSERT INTO t (a, b) VALUES (?, ?),(?, ?)
    UPDATE t SET a = ? WHERE id = ?           UPDATE t SET a = m.column1 FROM (VALUES (?,?),(?,?)) AS m
                                              WHERE id = m.column2

The sizes of sets are powers of two, so that there are few texts, which stay prepared. What is updated fills its last
set with rows of NULLs, which match nothing; what is inserted comes in smaller and smaller sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import Any

from outbox.core.batches import LARGEST, flat, in_powers

_VALUES = re.compile(r"VALUES (\(\?(?:, \?)*\))")


def in_sets(sql: str, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """The statements that do for these rows what `sql` does for one, with their parameters."""
    if sql.lstrip().startswith("INSERT"):
        for each in in_powers(rows):
            yield _inserted(sql, len(each)), flat(each)
        return
    for start in range(0, len(rows), LARGEST):
        some = rows[start : start + LARGEST]
        size = 1 << (len(some) - 1).bit_length()
        yield _updated(sql, size), flat(some) + [None] * (len(some[0]) * (size - len(some)))


@lru_cache(maxsize=128)
def _inserted(sql: str, rows: int) -> str:
    return _VALUES.sub(lambda found: "VALUES " + ",".join([found[1]] * rows), sql, count=1)


@lru_cache(maxsize=128)
def _updated(sql: str, rows: int) -> str:
    """From UPDATE … SET … WHERE …, of which any RETURNING is left out."""
    numbers = count(1)
    named = re.sub(r"\?", lambda _: f"m.column{next(numbers)}", sql.partition("RETURNING")[0])
    row = f"({','.join('?' * (next(numbers) - 1))})"
    what, _, which = named.partition("WHERE")
    return f"{what}FROM (VALUES {','.join([row] * rows)}) AS m WHERE{which}"
