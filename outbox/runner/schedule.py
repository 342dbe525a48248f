"""When things happen: APScheduler decides that, and nothing else. The only module that imports it.

A job here rings a bell or starts a short duty; it holds no state and loses nothing if it is skipped. Three traps of
APScheduler 3.11, each measured, shape this module:

- Its interval trigger enumerates every run that a forward jump of the clock has skipped (+30 days at 1 s: 6 s and 258
  MB; +10 years: never again). `Every` counts from now, always.
- It trusts the wall clock: set back an hour, it sleeps an hour. `heal` compares with the monotonic clock and moves
  every job to now.
- A job that is due while it still runs is skipped, and its wake-up lost. So jobs only set events, or are duties that
  come again anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from outbox.clock import Clock
from outbox.runner.steady import JUMP

log = logging.getLogger("outbox.schedule")

LOOK = 1.0
"""Seconds between two looks."""


class Every(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """Fires `interval` after now, never in the past: no run is made up for."""

    def __init__(self, interval: timedelta) -> None:
        self._interval = interval

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now + self._interval


class Schedule:
    """The runner's duties and their rhythm, on the running event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scheduler: Any = AsyncIOScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._wall = clock.now()
        self._monotonic = clock.monotonic()
        self._healing: asyncio.Task[None] | None = None
        # A duty that waits for a locked database is still at it when it is due again: that is no news, every second.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)

    def every(self, interval: timedelta, name: str, duty: Callable[[], Awaitable[None]]) -> None:
        """Call `duty` now, and again `interval` after each call began. What it raises is logged, and it comes again."""

        async def run() -> None:
            try:
                await duty()
            except asyncio.CancelledError:
                return  # the end has come in the middle of it; raised, APScheduler would report it as a failure
            except Exception:  # a duty that fails once must not end the rhythm
                log.exception("%s failed", name)

        self._scheduler.add_job(run, Every(interval), id=name, next_run_time=self._clock.now())

    def start(self) -> None:
        self._scheduler.start()
        self._healing = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self.heal()

    def heal(self) -> None:
        """After a jump of the wall clock, run every job now, and let it count from there."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        drift = (wall - self._wall).total_seconds() - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        if abs(drift) <= JUMP:
            return
        log.warning("the clock jumped by %.0f s", drift)
        for job in self._scheduler.get_jobs():
            job.modify(next_run_time=wall)

    def stop(self) -> None:
        """No further run. Jobs under way are not waited for: whoever owns them does that."""
        if self._healing is not None:
            self._healing.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
