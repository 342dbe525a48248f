"""The knobs of the delivery policy, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

Schedule = tuple[timedelta, ...]
"""How long the first pause of a row lasts, the second, and so on; what comes after the last is as long as that."""

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """
    floor, ceiling   bounds of the wait between two attempts
    max_age          a message that is still deferred at this age expires
    max_doubts       one doubt more holds a message
    doubt_delay      the wait after a relay fell silent at the dot
    brake_after      so many messages in a row that are refused alike are not failed any more (0: all are)
    auth_pauses      of an account whose login is refused
    throttle_pauses  of an account that sends too much; one that logs in too often rests for `throttled_login` at least
    sender_pauses    of a sender that is not ours to send from
    brake_pauses     of an account or a sender whose mail is refused alike
    """

    floor: timedelta = _MINUTE
    ceiling: timedelta = 4 * _HOUR
    max_age: timedelta = timedelta(days=2)
    max_doubts: int = 3
    doubt_delay: timedelta = 15 * _MINUTE
    brake_after: int = 3
    auth_pauses: Schedule = (15 * _MINUTE, _HOUR, 4 * _HOUR, 24 * _HOUR)
    throttle_pauses: Schedule = (_MINUTE, 5 * _MINUTE, 15 * _MINUTE)
    throttled_login: timedelta = 15 * _MINUTE
    sender_pauses: Schedule = (_HOUR, 4 * _HOUR, 24 * _HOUR)
    brake_pauses: Schedule = (5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR)
