"""Who sends, and what waits to be sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result

if TYPE_CHECKING:
    import peewee

    from outbox.cli.session import Session


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """Runners, then the queue."""
    yield from _runners(session, db)
    yield from _queue(db)


def _runners(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.phrases import lasting
    from outbox.store import audit, health

    now = audit.now(db)
    alive = False
    found = health.runners(db)
    absent = health.absent(session.config.database, session.clock, [each.id for each in found if each.alive])
    for runner in found:
        who = f"{runner.id[:8]} on {runner.host}, pid {runner.pid}, version {runner.version}"
        if runner.id in absent:
            words = f"{who} is dead: it was killed, or its host went down"
            yield Check("runner", Result.WARN, words, "outbox run: any other runner takes its mail back")
        elif runner.alive:
            alive = True
            yield Check("runner", Result.OK, f"{who}, for {lasting(now - runner.started_at)}")
        else:
            words = f"{who} has not renewed its lease for {lasting(now - runner.lease_until)}: it hangs, or is dead"
            yield Check("runner", Result.WARN, words, "any other runner takes its mail back")
    if not alive:
        due = health.queue(db).due
        words = f"no runner is running, and {due:,} due" if due else "no runner is running"
        yield Check("runner", Result.FAIL if due else Result.WARN, words, "outbox run")


def _queue(db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.phrases import counted, lasting
    from outbox.store import audit, health

    queue = health.queue(db)
    if queue.stuck:
        more = f" and {queue.stuck - len(queue.stuck_ids):,} more" if queue.stuck > len(queue.stuck_ids) else ""
        ids = ", ".join(str(each) for each in queue.stuck_ids)
        verb = "is" if queue.stuck == 1 else "are"
        words = f"{counted(queue.stuck, 'message')} should be moving and {verb} not: {ids}{more}"
        yield Check("queue", Result.WARN, words, f"outbox show {queue.stuck_ids[0]}; the view outbox_stuck has all")
    if queue.in_doubt:
        words = f"{counted(queue.in_doubt, 'message')} held in doubt: only a person can say what became of them"
        yield Check("queue", Result.WARN, words, "outbox list --state held, then outbox resolve")
    if queue.far:
        words = f"{counted(queue.far, 'message')} due in more than {health.FAR.days} days: meant to be?"
        yield Check("queue", Result.WARN, words, "outbox list --state scheduled")
    oldest = f", the oldest for {lasting(audit.now(db) - queue.oldest_due_at)}" if queue.oldest_due_at else ""
    yield Check("queue", Result.OK, f"{queue.due:,} due{oldest}; {queue.held:,} held")
