"""A clock that has jumped forward is not believed for a minute, or until it is put right."""

from __future__ import annotations

from datetime import timedelta

from outbox.runner.steady import DOUBTED_FOR, JUMP, Steadiness
from tests.clock import FakeClock

SECOND = timedelta(seconds=1)


def doubted(steady: Steadiness) -> bool:
    """Asked anew each time."""
    return steady.doubtful


def test_a_clock_that_only_goes_on_is_believed() -> None:
    clock = FakeClock()
    steady = Steadiness(clock, clock.now)
    for step in (timedelta(0), SECOND, timedelta(days=1)):
        clock.advance(step)
        assert not doubted(steady)


def test_a_jump_forward_is_doubted_for_a_minute() -> None:
    clock = FakeClock()
    steady = Steadiness(clock, clock.now)
    assert not doubted(steady)
    clock.jump(timedelta(days=30))
    for _ in range(int(DOUBTED_FOR)):
        assert doubted(steady)
        clock.advance(SECOND)
    assert not doubted(steady)


def test_a_clock_that_is_put_right_is_believed_at_once() -> None:
    clock = FakeClock()
    steady = Steadiness(clock, clock.now)
    assert not doubted(steady)
    clock.jump(timedelta(hours=1))
    assert doubted(steady)
    clock.jump(timedelta(hours=-1))
    assert not doubted(steady)


def test_a_clock_that_is_a_little_fast_or_set_back_is_believed() -> None:
    clock = FakeClock()
    steady = Steadiness(clock, clock.now)
    assert not doubted(steady)
    clock.jump(timedelta(seconds=JUMP / 2))
    assert not doubted(steady)
    clock.jump(timedelta(hours=-1))
    assert not doubted(steady)
