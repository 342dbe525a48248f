"""Which messages: the one description of a set of mail that reading (`audit`) and acting (`operate`) share.

A Filter is conditions, all of which must hold. It becomes a WHERE over `outbox_delivery` joined with `outbox`; values
are always bound parameters. Its `text()` is what the journal keeps.

LIMITS: a recipient who has not been tried yet has no row of their own; such mail is found by the text of its address
columns, and mail given as `raw` only once it has been tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import reduce
from operator import or_

from peewee import SQL, ColumnBase, Database, Expression, ModelSelect, SqliteDatabase, Value, fn

from outbox.core.lifecycle import State
from outbox.store.fields import UtcDateTimeField
from outbox.store.tables import Delivery, Outbox, Recipient

_CODE = re.compile(r"[2-5][0-9]{2}")
_STATUS = re.compile(r"[245](\.\d{1,3}){0,2}")


SCHEDULED = "scheduled"
DEFERRED = "deferred"
WORDS = (*(str(state) for state in State), SCHEDULED, DEFERRED)
"""The states, and what people say of a queued message that is due later: never tried, or tried."""


@dataclass(frozen=True, slots=True)
class Filter:
    """All that is given must hold; nothing given means every message.

    states      one of these: states, or SCHEDULED or DEFERRED, which are parts of *queued*
    sender      an address, or ``*@domain``
    recipient   an address or ``*@domain``, in To, Cc or Bcc
    code        of the last reply: ``"550"``, or an RFC 3463 status or the beginning of one: ``"5.7.1"``, ``"5.7"``
    since       created, or ended, at this moment or later
    """

    states: tuple[str, ...] = ()
    sender: str = ""
    recipient: str = ""
    tag: str = ""
    dedup_key: str = ""
    code: str = ""
    since: datetime | None = None

    def __post_init__(self) -> None:
        for word in self.states:
            if word not in WORDS:
                raise ValueError(f"{word!r} is not a state: {', '.join(WORDS)}")
        if self.code and not (_CODE.fullmatch(self.code) or _STATUS.fullmatch(self.code)):
            raise ValueError(f'{self.code!r} is neither a reply code such as "550" nor a status such as "5.7.1"')

    def __bool__(self) -> bool:
        return self != Filter()

    def text(self) -> str:
        """``state=failed,expired sender=shop@example.com``; ``all`` for a filter that asks for nothing."""
        words = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value and each.name == "states":
                words.append("state=" + ",".join(value))
            elif isinstance(value, datetime):
                words.append(f"{each.name}={written(value)}")
            elif value:
                words.append(f"{each.name}={value}")
        return " ".join(words) or "all"

    def apply(self, query: ModelSelect[Delivery], db: Database) -> ModelSelect[Delivery]:
        """`query`, which selects from Delivery joined with Outbox, narrowed to what matches."""
        conditions = list(self._conditions(db))
        return query.where(*conditions) if conditions else query

    def _conditions(self, db: Database) -> Iterable[Expression]:
        if self.states:
            yield reduce(or_, (_in_state(word, db) for word in self.states))
        if self.sender:
            yield _address(Delivery.sender, self.sender)
        if self.recipient:
            yield _for_recipient(self.recipient)
        if self.tag:
            yield Outbox.tag == self.tag
        if self.dedup_key:
            yield Outbox.dedup_key == self.dedup_key
        if _CODE.fullmatch(self.code):
            yield Delivery.last_code == int(self.code)
        elif self.code:
            yield (Delivery.last_status == self.code) | Delivery.last_status.startswith(self.code + ".")
        if self.since:
            yield (as_moment(db, Outbox.created_at) >= moment(self.since)) | (Delivery.final_at >= self.since)


def written(value: datetime) -> str:
    """A moment as people and both databases read it: ``2026-11-24T03:37:48.123Z``."""
    return str(UtcDateTimeField().db_value(value))


def among(ids: Iterable[int]) -> SQL:
    """The right side of ``column IN …`` for message ids. As text: peewee spends 6 µs on every parameter of a list."""
    return SQL("(" + (",".join(str(int(each)) for each in ids) or "NULL") + ")")


def moment(value: datetime) -> Value:
    """A moment as a bound parameter for what is compared with an expression instead of a column."""
    return Value(value, converter=UtcDateTimeField().db_value)


def as_moment(db: Database, column: UtcDateTimeField) -> ColumnBase:
    """A moment that an application wrote, `created_at` or `erased_at`, as it compares: on SQLite it may have another
    spelling (``2026-03-01 10:30``), which is in UTC.
    """
    if isinstance(db, SqliteDatabase):
        return fn.STRFTIME("%Y-%m-%dT%H:%M:%fZ", column, "+0 seconds").converter(UtcDateTimeField().python_value)
    return column


def _in_state(word: str, db: Database) -> Expression:
    if word not in (SCHEDULED, DEFERRED):
        return Delivery.state == word
    sqlite = isinstance(db, SqliteDatabase)
    now = fn.STRFTIME("%Y-%m-%dT%H:%M:%fZ", "now") if sqlite else fn.CLOCK_TIMESTAMP()
    counted = (Delivery.failures > 0) | (Delivery.doubts > 0)
    untried: Expression = ~counted & Delivery.first_attempt_at.is_null() & Delivery.last_reply.is_null()
    later: Expression = (Delivery.state == str(State.QUEUED)) & (Delivery.due_at > now)
    wanted: Expression = later & (untried if word == SCHEDULED else ~untried)
    return wanted


def _domain(address: str) -> str:
    """``@example.com`` of ``*@example.com``; ``""`` for a whole address."""
    return address.removeprefix("*") if address.startswith(("*@", "@")) else ""


def _address(column: object, address: str) -> Expression:
    domain = _domain(address)
    lowered = fn.LOWER(column)
    return lowered.endswith(domain.lower()) if domain else lowered == address.lower()


def _for_recipient(address: str) -> Expression:
    """Tried: by the index on addresses. Untried: as a whole word of the columns that the application wrote."""
    tried = Recipient.select(Recipient.message_id).where(_address(Recipient.address, address))
    named: Expression | None = None
    for column in (Outbox.recipients, Outbox.cc, Outbox.bcc):
        words: object = fn.LOWER(column)
        for separator in "<>,;\t":
            words = fn.REPLACE(words, separator, " ")
        word = _domain(address) or " " + address
        here = (Value(" ").concat(words).concat(" ")).contains(word.lower() + " ")
        named = here if named is None else named | here
    # What was sent has been tried: so the text of most mail is not looked at.
    return Delivery.message_id.in_(tried) | ((Delivery.state != str(State.SENT)) & named)
