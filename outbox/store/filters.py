"""Which messages: the one description of a set of mail that reading (`audit`) and acting (`operate`) share.

A Filter is conditions, all of which must hold. It is answered in parts, each of them by an index, so that what it costs
does not grow with the mail of other years (schema/*/0006); values are always bound parameters. Its `text()` is what the
journal keeps.

LIMITS: a recipient who has not been tried yet has no row of their own; such mail is found by the text of its address
columns, unless it was sent, and mail given as `raw` only once it has been tried. What reads more than its answer: such
texts (of what waits, has expired, was cancelled, or failed without a relay's word), a recipient's domain, and a code
that says yes (the newest mail, until enough of it is found).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import product
from typing import Any

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
    since       ended at this moment or later, or still waiting and created then
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

    def newest(self, db: Database, limit: int, *, before: int | None = None) -> list[int]:
        """The ids of the newest `limit` messages that match, newest first; with `before`, those below it."""
        found: list[int] = []
        for part in _parts(self, db):
            query = part.select(Delivery.message_id)
            if before is not None:
                query = query.where(part.id < before)
            if len(found) == limit > 0:
                query = query.where(part.id > found[-1])
            rows = query.order_by(part.newest_first).limit(limit).tuples().execute(db)
            found = sorted({*found, *(message_id for (message_id,) in rows)}, reverse=True)[:limit]
        return found

    def counts(self, db: Database, most: int) -> Counter[str]:
        """How many match, by state; of more than `most` only that they are more."""
        found: dict[int, str] = {}
        for part in _parts(self, db):
            query = part.select(Delivery.message_id, Delivery.state)
            found.update(query.limit(most + 1).tuples().execute(db))
            if len(found) > most:
                break
        return Counter(found.values())

    def all(self, db: Database, *conditions: ColumnBase) -> list[int]:
        """The ids of all that match and for which these conditions over Delivery hold, in their order."""
        found: set[int] = set()
        for part in _parts(self, db):
            query = part.select(Delivery.message_id).where(*conditions)
            found.update(message_id for (message_id,) in query.tuples().execute(db))
        return sorted(found)


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


# -- parts: what matches one of them matches, and some may match several


_Conditions = tuple[ColumnBase, ...]

_ENDED = "ended"
_WAITING = (str(State.QUEUED), str(State.SENDING), str(State.HELD))
_FINAL = (str(State.SENT), str(State.FAILED), str(State.EXPIRED), str(State.CANCELLED))
_OF: dict[str, tuple[str, ...]] = {"": (*_WAITING, *_FINAL), _ENDED: _FINAL}
"""The states of a word that is none."""

_MOST = 50
"""Senders of a domain, or status codes, that are looked up one by one."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Conditions that one index answers. `joined`: some of them are over Outbox. That index has what it finds in the
    order of ids, unless it is `scattered`: then a walk through all ids would look quick to a database, and not be.
    """

    conditions: _Conditions
    joined: bool = False
    scattered: bool = False
    by_content: bool = False

    @property
    def id(self) -> Any:
        return Outbox.id if self.by_content else Delivery.message_id

    @property
    def newest_first(self) -> Any:
        return (self.id + SQL("0") if self.scattered else self.id).desc()

    def select(self, *columns: Any) -> ModelSelect[Delivery]:
        query = Delivery.select(*columns)
        if self.joined:
            query = query.join(Outbox, on=(Outbox.id == Delivery.message_id))
        return query.where(*self.conditions) if self.conditions else query


def _parts(which: Filter, db: Database) -> Iterator[_Part]:
    by_content = bool(which.tag or which.dedup_key)
    senders, replies = _senders(which, db), _replies(which, db)
    for word, by_text in _words(which):
        by_address = which.recipient != "" and not by_text and not _domain(which.recipient)
        conditions: list[ColumnBase] = [*_content(which), *_of_age(which, word, db)]
        if which.recipient:
            conditions.append(_named(which.recipient) if by_text else _tried(which.recipient, db))
        aged = which.since is not None and word not in (_ENDED, *_FINAL)
        scattered = which.since is not None or by_address or word in (*_WAITING, SCHEDULED, DEFERRED)
        # PostgreSQL knows by its statistics which index is best; SQLite has none, and is left no choice.
        sqlite = isinstance(db, SqliteDatabase)
        by_state = not (sqlite and (by_content or by_address))
        conditions += _in_state(word, db, indexed=by_state)
        if sqlite and which.sender and word in _FINAL and by_state:
            conditions.append(Delivery.final_at.is_null(False))  # in the words of the index on senders
        if by_text and word == State.FAILED:  # what a relay has refused has been tried for everybody
            conditions.append(Delivery.last_code.is_null())
        for sender, reply in product(senders, replies):
            lane = sender(by_state and not (sqlite and which.since is not None))
            yield _Part((*conditions, *lane, *reply), by_content or aged or by_text, scattered, by_content)


def _words(which: Filter) -> Iterator[tuple[str, bool]]:
    """The states to look at, and whether for the text of addresses. "" is all of them, _ENDED all that are final."""
    words: Iterable[str] = which.states
    if State.QUEUED in which.states:
        words = [each for each in which.states if each not in (SCHEDULED, DEFERRED)]
    if not which.states:
        words = [_ENDED, *_WAITING] if which.since is not None else [""]
    if which.sender and which.since is None:  # the index on senders goes on with their states
        words = [each for word in words for each in _OF.get(word, (word,))]
    for word in words:
        yield word, False
    if which.recipient:
        for state in dict.fromkeys(each for word in words for each in _OF.get(word, (word,))):
            if state != State.SENT:  # what was sent has been tried: so the text of most mail is not looked at
                yield state, True


def _in_state(word: str, db: Database, *, indexed: bool) -> Iterator[ColumnBase]:
    """`indexed`: by an index on states. Without, they are looked at in what another index finds."""
    if word in ("", _ENDED):
        return
    state = word if word not in (SCHEDULED, DEFERRED) else str(State.QUEUED)
    yield (Delivery.state if indexed else fn.LOWER(Delivery.state)) == state
    if state != word:
        now = fn.STRFTIME("%Y-%m-%dT%H:%M:%fZ", "now") if isinstance(db, SqliteDatabase) else fn.CLOCK_TIMESTAMP()
        counted = (Delivery.failures > 0) | (Delivery.doubts > 0)
        untried: Expression = ~counted & Delivery.first_attempt_at.is_null() & Delivery.last_reply.is_null()
        yield Delivery.due_at > now
        yield untried if word == SCHEDULED else ~untried


def _of_age(which: Filter, word: str, db: Database) -> Iterator[ColumnBase]:
    if which.since is None:
        return
    if word == _ENDED or word in _FINAL:
        yield Delivery.final_at >= which.since
    else:
        yield as_moment(db, Outbox.created_at) >= moment(which.since)


def _content(which: Filter) -> Iterator[ColumnBase]:
    if which.tag:
        yield Outbox.tag == which.tag
    if which.dedup_key:
        yield Outbox.dedup_key == which.dedup_key


def _senders(which: Filter, db: Database) -> list[Callable[[bool], _Conditions]]:
    """Conditions on the sender, one of which must hold; each by the index on senders (True), or by another (False)."""
    lowered, domain = fn.LOWER(Delivery.sender), _domain(which.sender)

    def one(sender: object) -> Callable[[bool], _Conditions]:
        return lambda indexed: ((Delivery.sender if indexed else lowered) == sender,)

    if not which.sender:
        return [lambda indexed: ()]
    if not domain:
        return [one(_lowered(which.sender))]
    sqlite = isinstance(db, SqliteDatabase)
    ending = _lowered(domain)
    sql = (_SENDERS_SQLITE if sqlite else _SENDERS).replace("?", db.param)
    found = db.execute_sql(sql, (len(ending), ending, _MOST + 1)).fetchall()
    if len(found) > _MOST:
        return [lambda indexed: (lowered.endswith(ending),)]
    # As bytes: an application may have stored some that are no text.
    return [one(SQL(f"CAST({db.param} AS TEXT)", [sender])) for (sender,) in found]


def _replies(which: Filter, db: Database) -> list[_Conditions]:
    """Conditions on the last reply, one of which must hold. What says no has indexes, and is asked in their words."""
    code, code_column, status = which.code, Delivery.last_code, Delivery.last_status
    if not code:
        return [()]
    if _CODE.fullmatch(code):
        return [(code_column == int(code), *([code_column >= SQL("300")] if int(code) >= 300 else ()))]
    if not code.startswith("2"):
        found = [row[0] for row in db.execute_sql(_STATUSES).fetchall()]
        matching = [each for each in found if each == code or each.startswith(code + ".")]
        if len(matching) <= _MOST:
            return [(status == each, SQL("substr(last_status, 1, 1) <> '2'")) for each in matching]
    return [((status == code) | status.startswith(code + "."),)]


# A seek for each that there is, instead of reading them all.
_PAST = """
WITH RECURSIVE past (sender) AS (
  SELECT min(sender) FROM outbox_delivery WHERE {final}
  UNION ALL
  SELECT (SELECT min(d.sender) FROM outbox_delivery d WHERE {final} AND d.sender > past.sender)
  FROM past WHERE past.sender IS NOT NULL
)"""
_SENDERS_SQLITE = f"""
{_PAST.format(final="final_at IS NOT NULL")}
SELECT CAST(sender AS BLOB) FROM (
  SELECT sender FROM past
  UNION SELECT sender FROM outbox_delivery WHERE state = 'queued'
  UNION SELECT sender FROM outbox_delivery WHERE state = 'sending'
  UNION SELECT sender FROM outbox_delivery WHERE state = 'held'
) AS senders WHERE substr(sender, -?) = ? LIMIT ?"""
_SENDERS = f"""
{_PAST.format(final="state IN ('sent', 'failed', 'expired', 'cancelled')")}
SELECT sender FROM (
  SELECT sender FROM past UNION SELECT sender FROM outbox_delivery WHERE state IN ('queued', 'sending', 'held')
) AS senders WHERE right(sender, ?) = ? LIMIT ?"""
_STATUSES = """
WITH RECURSIVE refused (status) AS (
  SELECT min(last_status) FROM outbox_delivery WHERE substr(last_status, 1, 1) <> '2'
  UNION ALL
  SELECT (SELECT min(d.last_status) FROM outbox_delivery d
          WHERE substr(d.last_status, 1, 1) <> '2' AND d.last_status > refused.status)
  FROM refused WHERE refused.status IS NOT NULL
)
SELECT status FROM refused WHERE status IS NOT NULL"""


def _lowered(address: str) -> str:
    """As a lane is spelled: the letters of ASCII are small."""
    return address.encode().lower().decode()


def _domain(address: str) -> str:
    """``@example.com`` of ``*@example.com``; ``""`` for a whole address."""
    return address.removeprefix("*") if address.startswith(("*@", "@")) else ""


def _tried(address: str, db: Database) -> ColumnBase:
    """A whole address by the view that seeks it; a domain by the recipients of each message that is looked at."""
    domain = _domain(address)
    if not domain:
        named = SQL(f"(SELECT message_id FROM outbox_addressee WHERE address = {db.param})", [address.lower()])
        return Delivery.message_id.in_(named)
    rows, lowered = Recipient.select(Recipient.message_id), fn.LOWER(Recipient.address)
    return fn.EXISTS(rows.where(Recipient.message_id == Delivery.message_id, lowered.endswith(domain.lower())))


def _named(address: str) -> Expression:
    """As a whole word of the columns that the application wrote."""
    named: Expression | None = None
    for column in (Outbox.recipients, Outbox.cc, Outbox.bcc):
        words: object = fn.LOWER(column)
        for separator in "<>,;\t":
            words = fn.REPLACE(words, separator, " ")
        word = _domain(address) or " " + address
        here = (Value(" ").concat(words).concat(" ")).contains(word.lower() + " ")
        named = here if named is None else named | here
    assert named is not None
    return named
