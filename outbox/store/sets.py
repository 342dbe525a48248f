"""Many rows in one statement, on SQLite.

A statement that runs once a row takes and gives the interpreter's lock once a row, and between two of them the event
loop may want it: with sets of rows the database works while Python does. The text of a set is derived from that of one
row, so there is one to read:

    INSERT INTO t (a, b) VALUES (?, ?)        INSERT INTO t (a, b) VALUES (?, ?),(?, ?)
    UPDATE t SET a = ? WHERE id = ?           UPDATE t SET a = m.column1 FROM (VALUES (?,?),(?,?)) AS m
                                              WHERE id = m.column2
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count

_VALUES = re.compile(r"VALUES (\(\?(?:, \?)*\))")


@lru_cache(maxsize=512)
def for_a_set(sql: str, rows: int) -> str:
    """The statement for so many rows at once, from that for one: an INSERT … VALUES, or an UPDATE … SET … WHERE …, of
    which any RETURNING is left out.
    """
    if sql.lstrip().startswith("INSERT"):
        return _VALUES.sub(lambda found: "VALUES " + ",".join([found[1]] * rows), sql, count=1)
    numbers = count(1)
    named = re.sub(r"\?", lambda _: f"m.column{next(numbers)}", sql.partition("RETURNING")[0])
    row = f"({','.join('?' * (next(numbers) - 1))})"
    what, _, which = named.partition("WHERE")
    return f"{what}FROM (VALUES {','.join([row] * rows)}) AS m WHERE{which}"
