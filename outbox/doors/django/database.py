"""Which database Outbox has in this project, for the parts of Outbox that open databases themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

if TYPE_CHECKING:
    from outbox.store.opened import Database

_NOT_OF_LIBPQ = frozenset({"context", "cursor_factory", "prepare_threshold", "row_factory"})


def url_of(connection: Any) -> str:
    """The URL of a Django connection's database, as outbox.toml would have it, its password included.

    Raises ImproperlyConfigured for a database that is none of ours, or only in memory.
    """
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"])
        if connection.is_in_memory_db():
            raise ImproperlyConfigured(f"the database {connection.alias!r} is in the memory of one process")
        return f"sqlite:///{quote(Path(name).absolute().as_posix(), safe='/:')}"
    if connection.vendor != "postgresql":
        raise ImproperlyConfigured(f"Outbox needs SQLite or PostgreSQL, not {connection.vendor}")
    given = {name: value for name, value in connection.get_connection_params().items() if name not in _NOT_OF_LIBPQ}
    role = connection.settings_dict["OPTIONS"].get("assume_role")
    if role:
        given["options"] = f"{given.get('options', '')} -c role={role}".strip()
    texts = {name: str(value) for name, value in given.items() if isinstance(value, str | int | Path)}
    return f"postgresql:///?{urlencode(texts, quote_via=quote)}"


@contextmanager
def opened(connection: Any) -> Iterator[Database]:
    """The database, for `outbox.store`. On SQLite it is Django's own connection, and in its transaction; on PostgreSQL
    one of ours, by the driver that Django has, so what a transaction of Django's has not committed is not seen.

    Raises DatabaseError, SchemaError, ImproperlyConfigured.
    """
    from outbox.store import opened as store
    from outbox.store import over_psycopg2
    from outbox.store.migrate import check

    if connection.vendor != "sqlite":
        own = over_psycopg2 if getattr(connection.Database, "__name__", "") == "psycopg2" else store
        with own.opened(url_of(connection)) as db:
            yield db
        return
    from outbox.store.borrowed import Borrowed

    connection.ensure_connection()
    borrowed = Borrowed(connection.connection, partial(transaction.atomic, using=connection.alias))
    with store.refusals():
        check(borrowed)
        yield borrowed
