"""How long to wait before trying again.

The next wait is the message's age, clamped (Postfix `qmgr_active.c`): each wait doubles the age, so waits double;
there is nothing to count, nothing to overflow, and messages drift apart by themselves. RFC 5321 §4.5.4.1 asks for
retries over days and leaves the rest to us.
"""

from __future__ import annotations

from datetime import timedelta

SPREAD = 0.2
"""A wait varies by ± this share, so that what failed together does not come back together."""


def wait(age: timedelta, floor: timedelta, ceiling: timedelta, jitter: float) -> timedelta:
    """The time until the next try of a message first tried `age` ago. `jitter` is uniform in −1…1."""
    return min(max(age, floor), ceiling) * (1 + SPREAD * jitter)
