"""One runner, from its first look at the database to its last settlement.

start    connect · replay what an earlier runner rescued · show that we live · schedule the duties
run      dispatch until a signal, or until there is nothing left (`--until-empty`), or once around (`--once`)
drain    claim nothing more · let what is past DATA finish, for `grace` · give back the rest · write everything
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from outbox.clock import Clock
from outbox.config import Config
from outbox.core.lifecycle import State
from outbox.core.settlement import Settlement
from outbox.core.staging import Mode
from outbox.errors import DatabaseError
from outbox.runner import duties, rescue
from outbox.runner.aside import Aside
from outbox.runner.assembly import Assembly, assemble
from outbox.runner.claiming.dispatch import Dispatch
from outbox.runner.pickups import Pickups
from outbox.runner.schedule import Schedule
from outbox.runner.upkeep import Identity, Upkeep
from outbox.runner.waking.sources import Waking
from outbox.runner.writing.desk import GROUP
from outbox.smtp.relay import Deadlines
from outbox.store import Store, TransientError, Waiting, engine, open_presence, runners
from outbox.store.database import dialect_of, safe_url, sqlite_path
from outbox.vault import Vault

log = logging.getLogger("outbox.runner")

ANNOUNCED_POLL = timedelta(milliseconds=500)
"""On PostgreSQL: an INSERT that ran before we said that we sleep, and commits after our last look, wakes nobody."""

FLUSH = 4.0
"""Seconds for which the clerk may still try to write at the end; then the rescue file takes what is left. With nothing
past DATA a runner ends within ten seconds, whatever its database does: that is what containers give.
"""

LEAVING = 0.25
"""Seconds of the grace that are kept for what comes after the last word to the database."""

EXIT_BROKEN = 70
"""The clerk's thread has died: nothing can be written any more, so a supervisor must start us anew (EX_SOFTWARE)."""


@dataclass(frozen=True, slots=True)
class Errand:
    """When a runner ends by itself. Neither: it does not. `wait`: also do what comes due within that time."""

    once: bool = False
    until_empty: bool = False
    wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Remainder:
    """When a runner ends by itself: what it has done, and what stays: messages that wait, and why."""

    waiting: tuple[Waiting, ...]
    held: int
    done: dict[State, int]


class Service:
    """See above. `open_vault` raises VaultError when there is no key; it is asked when the first account has a
    password. `rescue_files` are where results go that the database does not take at the end: the first that can
    be written.
    """

    def __init__(
        self,
        config: Config,
        open_vault: Callable[[], Vault],
        clock: Clock,
        *,
        version: str,
        rescue_files: Sequence[Path],
        deadlines: Deadlines | None = None,
        parts: Callable[..., Assembly] = assemble,
    ) -> None:
        self._config = config
        self._open_vault = open_vault
        self._clock = clock
        self._rescue_files = rescue_files
        self._deadlines = deadlines or Deadlines()
        self._parts = parts
        self._identity = Identity(clock.token(), version, config.run.lease)
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._dispatching: asyncio.Task[None] | None = None
        self._begun = False
        self._ends_at = 0.0
        self._exit = 0

    # -- signals

    def stop(self) -> None:
        """Drain and end; the second time: at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    def listen_for_signals(self) -> None:
        """SIGTERM, Ctrl-C (SIGBREAK on Windows) and a terminal that is closed stop us; not that under `nohup`."""
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                continue
            try:
                loop.add_signal_handler(number, self.stop)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.stop))

    # -- the whole life

    async def run(self, errand: Errand, report: Callable[[Remainder], None] = lambda _: None) -> int:
        """The exit status: 0, EXIT_BROKEN, or that of UnusableDatabase. Raises DatabaseError and VaultError when it
        cannot begin.
        """
        asyncio.get_running_loop().set_default_executor(Aside())
        self._assemble()
        try:
            await self._clerk.start()
            return await self._live(errand, report)
        except TransientError as error:  # before the clerk, who is patient, has anything to do with it
            raise DatabaseError(f"the database went away at the start: {error}", hint="start it again") from error

    async def _live(self, errand: Errand, report: Callable[[Remainder], None]) -> int:
        try:
            await self._first(self._begin())
            await self._first(self._work(errand))
            if errand.once or errand.until_empty:
                await self._first(self._feedback.post())
                await self._first(self._tell(report))
        except DatabaseError:
            if self._clerk.fault is None:
                raise
            self._exit = self._clerk.fault.exit_code  # the log has it
        finally:
            await self._end()
        return self._exit

    def _assemble(self) -> None:
        config, clock = self._config, self._clock
        loop = asyncio.get_running_loop()
        announced = dialect_of(config.database) == "postgres"
        parts = self._parts(
            config,
            self._open_vault,
            clock,
            self._deadlines,
            runner=lambda: self._identity.id,
            draining=self._stop.is_set,
            on_change=self._ring,
        )
        self._clerk, self._registrar, self._pool = parts.clerk, parts.registrar, parts.pool
        self._delivery, self._gate, self._login = parts.delivery, parts.gate, parts.login
        self._feedback = parts.feedback
        self._dispatch = Dispatch(
            self._clerk,
            self._registrar,
            lambda: self._identity.id,
            self._delivery,
            self._gate,
            revive=self._revive,
            poll=min(config.run.poll, ANNOUNCED_POLL) if announced else config.run.poll,
            announce=self._announce if announced else None,
        )
        self._presence = open_presence(
            config.database,
            on_notify=partial(loop.call_soon_threadsafe, self._ring),
            on_lost=lambda: log.warning("lost the connection that shows this runner to be alive; reconnecting"),
        )
        self._upkeep = Upkeep(
            self._clerk,
            self._identity,
            self._presence,
            max_doubts=config.retry.max_doubts,
            claims=lambda: self._dispatch.claims,
            on_reclaimed=self._ring,
            steady=parts.steady,
            new_id=clock.token,
        )
        self._waking = None if announced else Waking(Path(sqlite_path(config.database)), self._clerk)
        self._pickups = Pickups(self._clerk, clock, on_mail=self._ring)
        self._schedule = Schedule(clock)

    async def _revive(self) -> None:
        await self._upkeep.renew()

    def _ring(self) -> None:
        self._dispatch.ring()

    async def _announce(self, asleep: bool) -> None:
        await self._clerk.upkeep(lambda store, _: runners.fall_asleep(store, self._identity.id, asleep=asleep))

    async def _begin(self) -> None:
        await self._replay()
        await self._open_secrets()
        await self._upkeep.arrive()
        log.info("runner %s serves %s", self._identity.id[:8], safe_url(self._config.database))
        if self._waking is not None and engine.has_wal_reset_bug():
            log.warning("%s; %s", engine.WAL_RESET_BUG, engine.REMEDY)
        if self._config.deliver.mode is not Mode.LIVE:
            log.warning("staging: [deliver] mode is %s", self._config.deliver.mode)
        self._begun = True
        duties.plan(
            self._schedule,
            self._config.run,
            look=self._look,
            watch=self._watch,
            upkeep=self._upkeep,
            pool=self._pool,
            waking=self._waking,
            pickups=self._pickups,
            feedback=self._feedback,
        )
        self._schedule.start()

    async def _look(self) -> None:
        self._ring()

    async def _watch(self) -> None:
        if not self._clerk.alive:
            if self._clerk.fault is None:
                log.critical("the clerk has died; ending, so that a supervisor starts this runner anew")
            self._exit = EXIT_BROKEN if self._clerk.fault is None else self._clerk.fault.exit_code
            self.stop()
            self.stop()

    async def _replay(self) -> None:
        """Write down what an earlier runner could not. What the database still refuses, the clerk keeps."""
        name = self._identity.id[:8]
        uuid = await self._clerk.read(lambda store: store.database_uuid)
        settlements = rescue.take(self._rescue_files, name, uuid)
        if settlements:
            for each in settlements:
                self._clerk.settle(each)
            for _ in range(0, len(settlements), GROUP):  # with each, the next of them
                await self._clerk.upkeep(lambda store, now: None)
            written = len(settlements) - len(self._clerk.refused)
            log.info("%d results of an earlier run, which had been rescued, were written", written)
        rescue.discard(self._rescue_files, name)

    async def _open_secrets(self) -> None:
        """Without any key, accounts with a password cannot work: better said now than by pausing one after another."""
        registry = await self._registrar.refresh(force=True)
        if any(account.secret for account in registry.accounts.values()):
            self._registrar.open_vault()

    # -- working

    async def _work(self, errand: Errand) -> None:
        if errand.once:
            await self._once()
            return
        self._dispatching = asyncio.create_task(self._keep_dispatching())
        if errand.until_empty:
            await self._until_empty(errand.wait)
        else:
            await self._stop.wait()

    async def _first(self, end: Coroutine[Any, Any, None]) -> None:
        """Until `end` is done, or we are told to stop: then it is cut off, whatever it waits for."""
        working, stopped = asyncio.ensure_future(end), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for each in (working, stopped):
            each.cancel()
        await asyncio.wait({working, stopped})
        if not working.cancelled():
            working.result()

    async def _keep_dispatching(self) -> None:
        while not self._stop.is_set():
            try:
                await self._dispatch.run()
            except Exception:  # whatever it was, mail that waits must not wait for ever
                if not self._clerk.alive:
                    return
                log.exception("dispatch failed; trying again in a second")
                await asyncio.sleep(1)
            else:
                return

    async def _once(self) -> None:
        """Send what is due now."""
        while True:
            before = self._dispatch.claimed
            await self._dispatch.round()
            await self._dispatch.drain()
            if self._dispatch.claimed == before:
                await self._feedback.tell()
                return

    async def _until_empty(self, wait: timedelta) -> None:
        """Nothing that could go now is left, nothing is being sent by any runner, nothing comes due within `wait`; and
        so it stays when return paths have been told.
        """
        told = False
        while True:
            await self._dispatch.quiet.wait()
            due = self._dispatch.standing.next_due
            sending = await self._clerk.read(lambda store: store.sending())
            soon = due is not None and due <= self._clerk.now() + wait
            if self._dispatch.quiet.is_set() and sending <= self._dispatch.stuck and not soon:
                if told:
                    return
                await self._feedback.tell()
                told = True
                self._dispatch.quiet.clear()  # until it has looked once more
                self._ring()
            await asyncio.sleep(0.05)

    async def _tell(self, report: Callable[[Remainder], None]) -> None:
        report(await self._remainder())

    async def _remainder(self) -> Remainder:
        waiting, held = await self._clerk.read(_what_stays)
        registry = await self._registrar.refresh(force=True)
        now = self._clerk.now()
        explained = [each.because(self._gate.reason(registry.resolve(each.sender), now)) for each in waiting]
        return Remainder(tuple(explained), held, dict(self._delivery.tally))

    # -- ending

    async def _end(self) -> None:
        patience = self._config.run.grace.total_seconds() if self._stop.is_set() else FLUSH
        self._ends_at = self._clock.monotonic() + patience - LEAVING
        self._stop.set()
        self._dispatch.stop()
        if self._waking is not None:
            self._waking.close()
        left = await self._drain()  # the lease is renewed meanwhile
        self._schedule.stop()
        await self._pickups.close()
        if left:
            why = "by the second signal" if self._at_once.is_set() else "at the end of the grace period"
            log.warning("%d deliveries under way are cut off %s; the next runner takes them back", left, why)
        await self._delivery.cut_off()
        await self._hang_up()
        await self._login.close()
        await self._feedback.close()
        departed, unwritten = await self._leave()
        rescue.save(self._rescue_files, unwritten, self._clerk.database_uuid)
        self._presence.release(departed=departed)
        if self._begun:
            log.info("runner %s ended", self._identity.id[:8])

    async def _drain(self) -> int:
        """Until nothing is under way, for `grace`, or until we are hurried. How many deliveries are left."""
        grace = self._config.run.grace.total_seconds()
        past_data = self._delivery.turn_back()
        if self._dispatch.busy:
            note = "stopping: %d deliveries under way, %d of them past DATA, have %g s; a second signal ends at once"
            log.info(note, self._dispatch.busy, past_data, grace)
        enough = (self._come_to_rest(), self._have_said_all(), self._at_once.wait())
        ending = {asyncio.ensure_future(each) for each in enough}
        _, waiting = await asyncio.wait(ending, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        if self._dispatching is not None:
            # It may wait for a database that does not answer.
            self._dispatching.cancel()
            await asyncio.wait({self._dispatching})
        return self._delivery.talking

    async def _come_to_rest(self) -> None:
        """No claim is under way any more, and no delivery."""
        if self._dispatching is not None:
            await asyncio.wait({self._dispatching})
        await self._dispatch.drain()

    async def _have_said_all(self) -> None:
        """Nothing is said to a relay any more, and a claim has had its time: what is left is for the clerk to write."""
        began = self._clock.monotonic()
        enough = min(FLUSH, (self._ends_at - began) / 2)
        while self._delivery.talking or self._is_claiming():
            if not self._delivery.talking and self._clock.monotonic() - began > enough:
                return
            await asyncio.sleep(0.05)

    def _is_claiming(self) -> bool:
        return self._dispatching is not None and not self._dispatching.done()

    async def _hang_up(self) -> None:
        """Say QUIT and wait for what the relays say to that, unless we are hurried."""
        closing = {asyncio.ensure_future(self._pool.close()), asyncio.ensure_future(self._at_once.wait())}
        _, waiting = await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()

    async def _leave(self) -> tuple[bool, list[Settlement]]:
        """Our last word to the database: whether it was heard, and what could not be written."""
        leaving = asyncio.ensure_future(self._upkeep.leave())
        await asyncio.sleep(0)  # let it ask: a clerk that is idle ends as soon as it is told to
        left = max(0.0, self._ends_at - self._clock.monotonic())
        unwritten = await self._clerk.stop(min(FLUSH, left), self._at_once)
        await asyncio.sleep(0)  # let it hear the answer
        departed = leaving.done() and leaving.exception() is None
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        return departed, unwritten


def _what_stays(store: Store) -> tuple[list[Waiting], int]:
    return store.waiting(), store.held()
