"""What a runner does beside sending: shows that it lives, takes back what the dead were sending, ends what is too late.

Each duty is a short conversation with the clerk, called by the schedule. None of them waits for a relay.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from outbox.runner.steady import Steadiness
from outbox.runner.writing.clerk import Clerk
from outbox.store import Presence, Reclaimed, Store, limits, runners

log = logging.getLogger("outbox.upkeep")


@dataclass(slots=True)
class Identity:
    """Who this runner is. The id is random, and a new one replaces it if others have declared the runner dead."""

    id: str
    version: str
    lease: timedelta


class Upkeep:
    """The duties, for one runner. `on_reclaimed` is called when messages have come back to the queue."""

    def __init__(
        self,
        clerk: Clerk,
        identity: Identity,
        presence: Presence,
        *,
        max_doubts: int,
        claims: Callable[[], set[tuple[int, int]]],
        on_reclaimed: Callable[[], None],
        steady: Steadiness,
        new_id: Callable[[], str],
    ) -> None:
        self._clerk = clerk
        self._me = identity
        self._presence = presence
        self._max_doubts = max_doubts
        self._claims = claims
        self._on_reclaimed = on_reclaimed
        self._steady = steady
        self._new_id = new_id
        self._strays: set[tuple[int, int]] = set()
        self._absent_since: dict[str, float] = {}
        self._leases_count_from = 0.0
        self._renewing = asyncio.Lock()

    async def arrive(self) -> None:
        """Take the lock that shows us to be alive, then announce ourselves: in this order, or we might be declared dead
        between the two.
        """
        await self._arrive_as(self._me.id)

    async def leave(self) -> None:
        await self._clerk.upkeep(lambda store, now: runners.leave(store, self._me.id, now))

    async def renew(self) -> None:
        """Extend our lease. If others have declared us dead, come again under a new id: what we had claimed is theirs,
        and every mark and settlement of it is refused by the fence.
        """
        me = self._me
        async with self._renewing:  # the schedule and a refused claim both call: one new id is enough
            if await self._clerk.upkeep(lambda store, now: runners.renew(store, me.id, now, me.lease)):
                await self._find_strays()
                return
            log.warning("runner %s has been declared dead (was it stopped for long?); going on under a new id", me.id)
            await asyncio.to_thread(self._presence.release)
            new = self._new_id()
            await self._arrive_as(new)
            me.id = new  # only now: what is claimed for a runner that is not registered nobody could take back
        self._on_reclaimed()

    async def reclaim(self) -> None:
        """Declare dead who is dead, and take back what they were sending."""
        if self._clerk.disturbed:
            await self._find_strays()  # at once, and not only with the next renewals
        leases, absent, orphaned = await self._clerk.read(partial(_look, self._me.id))
        gone, overdue = self._certain(absent), self._overdue(leases)
        buried: list[str] = []
        if gone or overdue:
            buried = await self._clerk.upkeep(partial(_bury, gone, overdue))
            self._presence.sweep(gone.intersection(buried))
        if buried:
            log.warning("runner %s is dead; taking back what it was sending", ", ".join(sorted(buried)))
        elif not orphaned:
            return
        while reclaimed := await self._clerk.upkeep(lambda store, now: store.reclaim(self._max_doubts, now)):
            _report(reclaimed)
            self._on_reclaimed()

    def _certain(self, absent: set[str]) -> set[str]:
        """Those of the absent who have been so for long enough to be dead."""
        now = asyncio.get_running_loop().time()
        self._absent_since = {runner: self._absent_since.get(runner, now) for runner in absent}
        return {runner for runner, since in self._absent_since.items() if now - since >= self._clerk.absent_for}

    def _overdue(self, leases: dict[str, datetime]) -> set[str]:
        """The others whose lease has run out. When our own has, too, the clock jumped or the database was locked for
        longer than a lease: then leases prove nothing, until everybody has had the time to renew.
        """
        now, moment = asyncio.get_running_loop().time(), self._clerk.now()
        if leases.pop(self._me.id, moment) < moment:
            self._leases_count_from = now + self._me.lease.total_seconds()
        if now < self._leases_count_from:
            return set()
        return {runner for runner, until in leases.items() if until < moment}

    async def expire(self) -> None:
        """End what waits past its `expires_at`."""
        if self._steady.doubtful:
            return
        while await self._clerk.read(lambda store: store.expirable(self._clerk.now())):
            count = await self._clerk.upkeep(lambda store, now: store.expire(now))
            if not count:
                return  # somebody else was faster, or has locked them
            log.info("expired before they could be sent: %d", count)

    async def forget(self) -> None:
        """Delete the rows of runners that are long dead, and what is left of any: whoever declared one dead may have
        been killed before it could clear away.
        """
        self._presence.sweep(await self._clerk.upkeep(runners.forget))

    async def watch_log(self) -> None:
        """Say when something keeps SQLite's log from being emptied, before it has filled the disk."""
        if size := await self._clerk.read(lambda store: store.log_has_grown()):
            log.warning(
                "the write-ahead log has %d MB: a program holds an old read transaction open, and while it does the log"
                " only grows; `outbox doctor`",
                size >> 20,
            )

    async def forget_usage(self) -> None:
        """Delete what no limit counts any more."""
        await self._clerk.upkeep(lambda store, now: limits.forget(store.db, now))

    async def _find_strays(self) -> None:
        """A claim whose COMMIT was not acknowledged leaves messages in our name that we know nothing of. What is a
        stray twice in a row is taken back, like a dead runner's.
        """
        rows = await self._clerk.read(lambda store: store.my_claims(self._me.id))
        strays = set(rows) - self._claims()
        for message_id, claim_no in strays & self._strays:
            reclaimed = await self._clerk.upkeep(partial(_take_back, message_id, claim_no, self._max_doubts))
            _report(reclaimed)
            self._on_reclaimed()
        self._strays = strays

    async def _arrive_as(self, runner: str) -> None:
        await asyncio.to_thread(self._presence.take, runner)
        await self._clerk.upkeep(partial(self._register, runner))

    def _register(self, runner: str, store: Store, now: datetime) -> None:
        me = self._me
        host, pid = socket.gethostname(), os.getpid()
        runners.register(store, runner, host=host, pid=pid, version=me.version, now=now, lease=me.lease)


def _look(me: str, store: Store) -> tuple[dict[str, datetime], set[str], bool]:
    """The leases of the living, who of them is absent, and whether the dead still hold messages. Only reads: a write
    would take SQLite's lock every second, in every idle runner.
    """
    leases = runners.leases(store)
    return leases, set(store.absent([each for each in leases if each != me])), runners.dead_holding(store)


def _bury(gone: set[str], overdue: set[str], store: Store, now: datetime) -> list[str]:
    buried = runners.bury(store, gone, now) if gone else []
    return buried + (runners.bury_overdue(store, overdue, now) if overdue else [])


def _take_back(message_id: int, claim_no: int, max_doubts: int, store: Store, now: datetime) -> list[Reclaimed]:
    return store.reclaim_stray(message_id, claim_no, max_doubts, now)


def _report(reclaimed: list[Reclaimed]) -> None:
    for each in reclaimed:
        how = "in doubt: its dot may have been written" if each.dotted else "before its dot"
        log.warning(
            "id=%d: taken back, claim %d was lost %s%s",
            each.message_id,
            each.claim_no,
            how,
            "; held" if each.held else "",
        )
