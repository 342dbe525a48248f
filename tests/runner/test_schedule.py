"""The schedule under clocks that jump. APScheduler reads the wall clock; the tests turn that one, and only that."""

from __future__ import annotations

import asyncio
import datetime as real
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import apscheduler.schedulers.asyncio
import apscheduler.schedulers.base
import pytest

from outbox.clock import Clock
from outbox.runner.schedule import Every, Schedule

JUMPS = {"-1 h": timedelta(hours=-1), "+1 h": timedelta(hours=1), "+30 d": timedelta(days=30), "+10 y": timedelta(3650)}
TICK = timedelta(milliseconds=20)


class TurnedClock(Clock):
    """The machine's clock, but for a wall clock that somebody sets."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TurnedClock:
    turned = TurnedClock()

    class Turned(real.datetime):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> real.datetime:  # type: ignore[override]
            return real.datetime.now(tz) + turned.shift

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Turned)
    return turned


async def until(condition: Callable[[], bool], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- the condition is a plain function
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_after_a_jump_of_the_clock_the_next_tick_comes_within_two_seconds(clock: TurnedClock, jump: timedelta) -> None:
    async def scenario() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            ticks += 1

        schedule = Schedule(clock)
        schedule.every(TICK, "tick", tick)
        schedule.start()
        await until(lambda: ticks > 2, 2)
        clock.shift = jump
        for _ in range(3):
            before = ticks
            await until(lambda: ticks > before + 1, 2)  # noqa: B023 -- awaited before the next round
        schedule.stop()

    asyncio.run(scenario())


def test_a_duty_that_fails_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> int:
        calls = 0

        async def fail() -> None:
            nonlocal calls
            calls += 1
            raise ValueError("broken")

        schedule = Schedule(Clock())
        schedule.every(TICK, "duty", fail)
        schedule.start()
        await until(lambda: calls > 2, 2)
        schedule.stop()
        return calls

    assert asyncio.run(scenario()) > 2
    assert "duty failed" in caplog.text


def test_a_slow_duty_is_not_started_twice_and_does_not_stop_the_others() -> None:
    async def scenario() -> tuple[int, int]:
        running = most = ticks = 0
        release = asyncio.Event()

        async def slow() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await release.wait()
            running -= 1

        async def tick() -> None:
            nonlocal ticks
            ticks += 1

        schedule = Schedule(Clock())
        schedule.every(TICK, "slow", slow)
        schedule.every(TICK, "tick", tick)
        schedule.start()
        await until(lambda: ticks > 5, 2)
        release.set()
        schedule.stop()
        return most, ticks

    most, ticks = asyncio.run(scenario())
    assert most == 1
    assert ticks > 5


def test_the_trigger_never_makes_up_for_what_it_missed() -> None:
    now = datetime(2036, 1, 1, tzinfo=UTC)
    long_ago = datetime(2026, 1, 1, tzinfo=UTC)
    assert Every(TICK).get_next_fire_time(long_ago, now) == now + TICK
