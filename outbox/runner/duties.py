"""What a runner does again and again, and how often: all of it, in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from outbox.config import RunConfig
from outbox.runner.pickups import Pickups
from outbox.runner.schedule import Schedule
from outbox.runner.telling.feedback import Feedback
from outbox.runner.upkeep import Upkeep
from outbox.runner.waking.sources import Waking
from outbox.smtp.pool import Pool

RECLAIM_EVERY = timedelta(milliseconds=500)
EXPIRE_EVERY = timedelta(seconds=1)
WATCH_EVERY = timedelta(seconds=1)
PICK_UP_EVERY = timedelta(seconds=1)
POST_EVERY = timedelta(seconds=1)
TELL_EVERY = timedelta(seconds=2)
IDLE_EVERY = timedelta(seconds=2)
ATTEND_EVERY = timedelta(seconds=2)
LOG_EVERY = timedelta(seconds=10)
DELAYED_EVERY = timedelta(minutes=1)
FORGET_EVERY = timedelta(hours=1)


def plan(
    schedule: Schedule,
    run: RunConfig,
    *,
    look: Callable[[], Awaitable[None]],
    watch: Callable[[], Awaitable[None]],
    upkeep: Upkeep,
    pool: Pool,
    waking: Waking | None,
    pickups: Pickups,
    feedback: Feedback,
) -> None:
    """Put them all into the schedule. `look` rings for dispatch, `watch` sees whether the clerk is alive."""
    every = schedule.every
    every(run.poll, "dispatch", look)
    every(WATCH_EVERY, "watch", watch)
    every(run.renew, "renew", upkeep.renew)
    every(RECLAIM_EVERY, "reclaim", upkeep.reclaim)
    every(EXPIRE_EVERY, "expire", upkeep.expire)
    every(LOG_EVERY, "look at the log", upkeep.watch_log)
    every(FORGET_EVERY, "forget runners", upkeep.forget)
    every(FORGET_EVERY, "forget usage", upkeep.forget_usage)
    every(IDLE_EVERY, "idle connections", pool.close_idle)
    if waking is not None:
        every(ATTEND_EVERY, "waking", waking.attend)
    every(PICK_UP_EVERY, "pick up", pickups.look)
    every(POST_EVERY, "post events", feedback.post)
    every(TELL_EVERY, "tell return paths", feedback.tell)
    every(DELAYED_EVERY, "tell of delays", feedback.watch)
    every(FORGET_EVERY, "forget events", feedback.forget)
