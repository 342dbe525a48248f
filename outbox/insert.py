"""The INSERT of a mail, and of many mails in one statement.

A statement with 64 rows costs PostgreSQL an eighth of 64 statements: it reads the checks of the table once for each
statement, and there are many. On SQLite it saves the copies of pages that each statement in a savepoint makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias

from outbox.core.batches import LARGEST, in_powers

Row: TypeAlias = tuple[object, ...]

PARAMETERS = 999
"""Of a statement: what SQLite has always taken."""

OCTETS = 1024 * 1024
"""About what the rows of a statement may hold together: it is in memory as a whole, more than once."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How statements and values are written for one driver. `marker` stands for a parameter (PEP 249 qmark, format;
    asyncpg's own)."""

    marker: str
    returning: bool  # the id of a single row comes from RETURNING; else from the cursor: SQLite has it only since 3.35
    text_times: bool  # times are stored as text: 2026-03-01T09:30:00.000Z
    key: str  # how RETURNING says a dedup_key, so that it is str or UTF-8 whatever the application has set
    numbered: bool = False  # markers have their number behind them: $1, $2

    def time(self, value: object) -> object:
        """A time (or None) as the driver takes it."""
        if self.text_times and isinstance(value, datetime):
            return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return value

    def parameter(self, column: str) -> str:
        """The marker for `column`."""
        if column != "headers" or not self.returning:
            return self.marker
        # A driver told to send str as text, not as "unknown", would find no cast from text to jsonb. asyncpg asks the
        # server of what type a parameter is: as jsonb, a codec of the application's would encode it once more.
        return f"CAST({self.marker}::text AS jsonb)" if self.numbered else f"CAST({self.marker} AS jsonb)"

    def numbers(self, sql: str) -> str:
        """A statement, composed of constants and markers, as the driver takes it."""
        if not self.numbered:
            return sql
        before, *pieces = sql.split(self.marker)
        return before + "".join(f"{self.marker}{number}{piece}" for number, piece in enumerate(pieces, 1))


SQLITE = Dialect("?", returning=False, text_times=True, key="CAST(dedup_key AS BLOB)")
POSTGRES = Dialect("%s", returning=True, text_times=False, key="dedup_key")
ASYNCPG = Dialect("$", returning=True, text_times=False, key="dedup_key", numbered=True)


@dataclass(frozen=True, slots=True)
class Insert:
    """The INSERT of mails of which these columns are given."""

    dialect: Dialect
    columns: tuple[str, ...]

    def one(self) -> str:
        """For one row."""
        return _one_row(self.dialect, self.columns)

    def many(self, rows: int) -> str:
        """For so many rows. Those that were inserted come back, in their order; `ids` reads them."""
        return _many_rows(self.dialect, self.columns, rows)

    def sets(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        """`rows` in order, a batch for each statement; large rows go alone."""
        largest = LARGEST
        while largest * len(self.columns) > PARAMETERS:
            largest //= 2
        for some in in_powers(rows, largest):
            if _octets(some) <= OCTETS:
                yield some
            else:
                yield from ([row] for row in some)

    def ids(self, rows: Sequence[Row], inserted: Sequence[Any]) -> list[int | None]:
        """The id of each of the rows, or None where its key was there already, from what `many` gave back."""
        if "dedup_key" not in self.columns:
            return [int(back[0]) for _, back in zip(rows, inserted, strict=True)]
        place = self.columns.index("dedup_key")
        coming = iter(inserted)
        back = next(coming, None)
        found: list[int | None] = []
        for row in rows:
            if back is not None and _text(back[1]) == row[place]:
                found.append(int(back[0]))
                back = next(coming, None)
            else:
                found.append(None)
        return found


@lru_cache(maxsize=256)
def _one_row(dialect: Dialect, columns: tuple[str, ...]) -> str:
    return _sql(dialect, columns, 1) + (" RETURNING id" if dialect.returning else "")


@lru_cache(maxsize=256)
def _many_rows(dialect: Dialect, columns: tuple[str, ...], rows: int) -> str:
    key = f", {dialect.key}" if "dedup_key" in columns else ""
    return f"{_sql(dialect, columns, rows)} RETURNING id{key}"


def _sql(dialect: Dialect, columns: tuple[str, ...], rows: int) -> str:
    """Only a mail with a `dedup_key` may find that it is there already; any other conflict is an error. ON CONFLICT is
    bare: naming the column fails on a partial index, and asks for rights on it.
    """
    row = f"({', '.join(map(dialect.parameter, columns))})"
    conflict = " ON CONFLICT DO NOTHING" if "dedup_key" in columns else ""
    sql = f"INSERT INTO outbox ({', '.join(columns)}) VALUES {', '.join([row] * rows)}{conflict}"  # noqa: S608
    return dialect.numbers(sql)


def _octets(rows: Sequence[Row]) -> int:
    return sum([len(value) for row in rows for value in row if isinstance(value, str | bytes)])


def _text(key: object) -> object:
    return key.decode() if isinstance(key, bytes) else key
