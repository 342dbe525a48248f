"""Which database drivers a command loads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from outbox.cli.session import session_of
from outbox.errors import OutboxError

_POSTGRES = ("psycopg2cffi", "psycopg2", "psycopg")


def spare(ctx: Any) -> None:
    """Load peewee without the drivers of PostgreSQL, which it imports wherever they are installed (80 ms and 9 MB),
    where this command's database is SQLite. Called before a command runs, because most of them import peewee at once.
    """
    if "peewee" in sys.modules or ctx.params.get("database"):  # the latter: a command that names one itself
        return
    try:
        url = session_of(ctx).config.database
    except OutboxError:
        return  # the command says so itself, if it needs a configuration
    if url.startswith("sqlite:") or (url and "://" not in url):
        with _hidden(*_POSTGRES):
            import peewee  # noqa: F401


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Let an import of these fail, unless they are loaded already."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: an import raises ImportError
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
