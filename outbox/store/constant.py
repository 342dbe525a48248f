"""Queries of peewee's that are asked again and again, made once.

To make the SQL of a query takes peewee 100–300 µs, to ask it 30, and every idle runner asks several of them a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import peewee

from outbox.store.database import dialect


class Constant:
    """A SELECT without parameters that change; `make` says which. For each dialect its SQL is made once."""

    def __init__(self, make: Callable[[], peewee.ModelSelect[Any]]) -> None:
        self._make = make
        self._query: peewee.ModelSelect[Any] | None = None
        self._said: dict[str, tuple[str, list[Any]]] = {}

    def rows(self, db: peewee.Database) -> list[dict[str, Any]]:
        """As `query.dicts().execute(db)` has them."""
        if self._query is None:
            self._query = self._make()
        spoken = dialect(db)
        if spoken not in self._said:
            self._said[spoken] = db.get_sql_context().sql(self._query).query()
        cursor = db.execute_sql(*self._said[spoken])
        return list(peewee.ModelDictCursorWrapper(cursor, self._query.model, self._query.selected_columns))
