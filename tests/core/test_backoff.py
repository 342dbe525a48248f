"""When a message is tried again."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from outbox.core.backoff import wait

FLOOR, CEILING, MAX_AGE = timedelta(minutes=1), timedelta(hours=4), timedelta(days=2)


def test_the_schedule_for_people() -> None:
    """Without jitter: the ages at which a message is tried that is deferred every time."""
    ages, age = [], timedelta(0)
    while age < MAX_AGE:
        ages.append(age)
        age += wait(age, FLOOR, CEILING, 0.0)
    minutes = [round(each.total_seconds() / 60) for each in ages]
    assert minutes == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256] + [496 + 240 * n for n in range(10)]


@given(
    st.timedeltas(timedelta(0), timedelta(days=400)),
    st.floats(-1, 1),
)
def test_a_wait_stays_within_floor_and_ceiling_give_or_take_a_fifth(age: timedelta, jitter: float) -> None:
    found = wait(age, FLOOR, CEILING, jitter)
    assert FLOOR * 0.8 <= found <= CEILING * 1.2


@given(st.timedeltas(FLOOR, CEILING))
def test_in_between_the_wait_is_the_age(age: timedelta) -> None:
    assert wait(age, FLOOR, CEILING, 0.0) == age
