"""What the database has to remember for a pickup folder, and where it is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from outbox.core.pickup import Ending, Result, Taken
from outbox.enqueue import enqueue
from outbox.mail import Mail
from outbox.store import pickup
from outbox.store.pickup import ENDINGS as ENDINGS

if TYPE_CHECKING:
    from outbox.store.opened import Database
else:
    Database = Any

T = TypeVar("T")

Verb = Callable[[Database, datetime], T]


class Conversation(Protocol):
    """How we speak to the database. Each may raise DatabaseError, and then nothing was done."""

    def write(self, verb: Verb[T], /) -> T:
        """In a transaction of its own."""

    def read(self, verb: Callable[[Database], T], /) -> T: ...


class Ledger:
    """Each call is one transaction, or only reads."""

    def __init__(self, database: Conversation) -> None:
        self._database = database

    def known(self, claims: Sequence[str]) -> set[str]:
        """Which of these claims are in the database."""
        return self._database.read(lambda db: pickup.known(db, claims)) if claims else set()

    def enter(self, taken: Taken, mail: Mail) -> bool:
        """Insert the mail together with the claim. False where the claim is there already. Raises InvalidMail for what
        the database refuses.
        """
        return self._database.write(partial(_enter, taken, mail))

    def condemn(self, taken: Taken, reason: str, file: str) -> None:
        """The file becomes no mail. It is about to be moved to `file`, and is done then."""
        self._database.write(lambda db, now: pickup.condemn(db, taken, reason, file, now))

    def ended(self, folder: str) -> list[Ending]:
        """Of the files that are not done, those whose mail has come to its end; a batch."""
        return self._database.read(lambda db: pickup.ended(db, folder))

    def archived(self, claim: str, file: str) -> None:
        """It has been put there before its mail has ended."""
        self._database.write(lambda db, now: pickup.archived(db, claim, file))

    def done(self, claim: str, result: Result, reason: str, file: str) -> None:
        """It is where it belongs: at `file`, or nowhere."""
        self._database.write(lambda db, now: pickup.done(db, claim, result, reason, file, now))


def _enter(taken: Taken, mail: Mail, db: Database, now: datetime) -> bool:
    if not pickup.enter(db, taken, now):
        return False
    with pickup.mail_refused():
        message_id = enqueue(db, mail, source="pickup")
    assert message_id is not None, "it has no dedup_key"
    pickup.assign(db, taken.claim, message_id)
    return True
