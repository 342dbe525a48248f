"""Limits that delay: how much an account, a sender or a recipient domain may send in a minute, an hour, a day.

What is counted is recipients: a message to three people uses three of its account's and its sender's limits, and of
each domain's limit as many as it has recipients there. That is how providers count. A message with more recipients than
a limit uses the whole of it.

A span is aligned: a minute begins with the minute, a day at midnight UTC. Two counters say how much was used in the
present span and in the one before it. What slides is an estimate made of both:

    estimate = before × (share of the span before that the sliding span still covers) + used

It takes the span before as used evenly, and rounds its part to the nearest whole recipient, so that a limit of one a
day is one a day and not one in two days. Within an aligned span never more than the limit goes. Within any other span
of that length at most half a recipient more than the limit and the error of the estimate: what really fell into the
part of the span before that is still covered, less the even share of it. That is never more than twice the limit, and
just the limit when the use is even.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(milliseconds=1)
"""What a stored moment is a whole number of."""


class Limited(StrEnum):
    """Whom a limit is for: an account, a registered sender (an address, or ``*@domain``), a recipient domain."""

    ACCOUNT = "account"
    SENDER = "sender"
    DOMAIN = "domain"


class Span(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self]

    @property
    def words(self) -> str:
        """``a minute``, ``an hour``, ``a day``."""
        return f"an {self}" if self is Span.HOUR else f"a {self}"


_LENGTHS = {Span.MINUTE: timedelta(minutes=1), Span.HOUR: timedelta(hours=1), Span.DAY: timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Limit:
    """One row of `outbox_limit`: at a time (`connections`), and recipients in a span; None for no limit."""

    scope: Limited
    name: str
    connections: int | None = None
    per_minute: int | None = None
    per_hour: int | None = None
    per_day: int | None = None

    @property
    def key(self) -> tuple[Limited, str]:
        return self.scope, self.name

    def rates(self) -> Iterator[tuple[Span, int]]:
        """The spans that are limited, and to how many."""
        for span, most in ((Span.MINUTE, self.per_minute), (Span.HOUR, self.per_hour), (Span.DAY, self.per_day)):
            if most is not None:
                yield span, most


@dataclass(frozen=True, slots=True)
class Window:
    """How much was used in the span that began at `began_at`, and in the one before it."""

    began_at: datetime
    used: int = 0
    before: int = 0

    def at(self, span: Span, now: datetime) -> Window:
        """The same window as it stands now. A beginning in the future, of a clock that was wrong, is now's: what it
        counts is not forgotten, and does not delay for ever.
        """
        began = aligned(span, now)
        if began <= self.began_at:
            return Window(began, self.used, self.before)
        passed = (began - self.began_at) // span.length
        return Window(began, 0, self.used if passed == 1 else 0)


def aligned(span: Span, now: datetime) -> datetime:
    """When the span that `now` is in began."""
    return now - (now - _EPOCH) % span.length


def need(count: int, most: int) -> int:
    """What `count` recipients take of a limit: the whole of it, if they are more."""
    return min(count, most)


def used(window: Window, span: Span, now: datetime) -> int:
    """How many the sliding span counts now; the estimate."""
    current = window.at(span, now)
    length = span.length // _TICK
    left = length - (now - current.began_at) // _TICK
    covered = max(0, -((length - 2 * current.before * left) // (2 * length)))  # to the nearest, a half down
    return current.used + covered


def free(window: Window, span: Span, most: int, now: datetime) -> int:
    """How many may go now; 0 when too much was used."""
    return max(0, most - used(window, span, now))


def taken(window: Window, span: Span, count: int, now: datetime) -> Window:
    """The window after `count` went."""
    current = window.at(span, now)
    return Window(current.began_at, current.used + count, current.before)


def returned(window: Window, span: Span, count: int, at: datetime, now: datetime) -> Window:
    """The window after `count`, taken `at` that time, came back unused. It is missing in its own span, and in no
    other.
    """
    current = window.at(span, now)
    began = aligned(span, at)
    if began == current.began_at:
        return Window(began, max(0, current.used - count), current.before)
    if began + span.length == current.began_at:
        return Window(current.began_at, current.used, max(0, current.before - count))
    return current


def next_free(window: Window, span: Span, most: int, count: int, now: datetime) -> datetime:
    """The earliest time, not before `now`, at which `count` (at most `most`) may go, if nothing else does."""
    current = window.at(span, now)
    room = most - need(count, most)
    if current.used <= room:
        return max(now, _slid(current.began_at, span, current.before, room - current.used))
    return max(now, _slid(current.began_at + span.length, span, current.used, room))


def _slid(began_at: datetime, span: Span, before: int, room: int) -> datetime:
    """When no more than `room` of what was used `before` the span that begins at `began_at` still counts in it."""
    if before <= room:
        return began_at
    length = span.length // _TICK
    return began_at + _TICK * max(0, length - (2 * room + 1) * length // (2 * before))


def connections(most: int) -> str:
    """``1 connection``, ``2 connections``."""
    return f"{most} connection" + "s" * (most != 1)


def share(most: int, rank: int, runners: int) -> int:
    """The part of `most` connections of the runner that is number `rank`, from 0, of all living `runners`. The parts
    of all of them add up to `most`.
    """
    return most // runners + (rank < most % runners)
