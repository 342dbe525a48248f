"""A database for the length of a command: opened, found to have our tables, closed; and every complaint of it in our
words.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from peewee import Database, PeeweeException

from outbox.errors import DatabaseError
from outbox.store.database import connect
from outbox.store.migrate import check

__all__ = ["Database", "opened"]


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database at `url`, open, with the tables that this program needs. Raises DatabaseError, SchemaError; a
    DatabaseError also for whatever the database refuses inside the block.
    """
    db = connect(url, create=False)
    try:
        with refusals():
            check(db)
            yield db
    finally:
        db.close()


@contextmanager
def refusals() -> Iterator[None]:
    """A DatabaseError for whatever the database refuses within, in one line, and what to do where a role may not."""
    try:
        yield
    except PeeweeException as error:
        # Without PostgreSQL's DETAIL, which shows the row; for the same reason the cause is not chained.
        reason = str(error).partition("\n")[0]
        denied = "permission denied" in reason
        hint = "this needs the role outbox_runner; an auditor reads the views with SQL (docs/audit.md)"
        if "malformed" in reason:
            denied, hint = True, "the file is damaged: docs/operate.md#a-damaged-file"
        raise DatabaseError(f"the database refused: {reason}", hint=hint if denied else "") from None
