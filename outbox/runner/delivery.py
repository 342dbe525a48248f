"""One message, from claim to settlement: the heart of the runner.

    claim ─ route ─ a place ─ content ─ compose ─ connection ─ transactions ─ decide ─ settle

Each step takes what the one before it made, and may end the journey early with a settlement of its own. Nothing here
opens a transaction, nothing raises for what a relay or a row did, and what is known of a mail is never forgotten.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from outbox.clock import Clock
from outbox.core.account import Account, Route
from outbox.core.judge import classify, is_too_many
from outbox.core.lifecycle import State
from outbox.core.message import Message, Recipient, recipients_of, senders_of
from outbox.core.outcome import Envelope, Report, Stage
from outbox.core.render import render
from outbox.core.reply import Reply
from outbox.core.settlement import (
    SETTLED_FATES,
    Attempt,
    Claim,
    Fate,
    Policy,
    RecipientFate,
    Settlement,
    Trial,
    decide,
    expire,
    fates_of,
    nothing_left,
    refuse,
    relinquish,
)
from outbox.errors import InvalidMessage, VaultError
from outbox.runner.clerk import Clerk
from outbox.runner.journey import (
    Journey,
    Letter,
    at_fault,
    log_journey,
    refuses_message,
    return_path_of,
    stops,
    unregistered,
)
from outbox.runner.registrar import Registrar
from outbox.smtp.connection import Connection
from outbox.smtp.pool import Pool
from outbox.store import Content, Mark, Settled

log = logging.getLogger("outbox.delivery")


class Delivery:
    """Makes claims into settlements. `draining()` turns true when nothing new may be begun."""

    def __init__(
        self,
        clerk: Clerk,
        pool: Pool,
        registrar: Registrar,
        policy: Policy,
        clock: Clock,
        *,
        recipients_per_transaction: int,
        draining: Callable[[], bool],
    ) -> None:
        self._clerk = clerk
        self._pool = pool
        self._registrar = registrar
        self._policy = policy
        self._clock = clock
        self._chunk = recipients_per_transaction
        self._draining = draining
        self._places: dict[str, tuple[int, asyncio.Semaphore]] = {}
        self._learnt: dict[str, int] = {}
        self._journeys: dict[asyncio.Task[None], Journey] = {}
        self.tally: Counter[State] = Counter()
        """How many messages went into which state."""

    async def deliver(self, claim: Claim) -> None:
        """Attempt it and settle it. Returns when the settlement is committed.

        Cancelled, it settles with what is known, and does not wait for the commit. In the middle of a dot nothing is
        known, and the claim is left to whoever takes it back, who will call it a doubt.
        """
        journey = Journey(self._clock.monotonic())
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._journeys[task] = journey
        try:
            settlement = await self._attempt(claim, journey)
        except asyncio.CancelledError:
            if not journey.in_doubt and not journey.settled:
                self._clerk.settle(self._conclude(claim, journey))
            raise
        except Exception as error:  # a mistake of ours must not lose what is known, nor the message
            log.exception("id=%d: internal error", claim.message_id)
            settlement = self._after_error(claim, journey, error)
        finally:
            del self._journeys[task]
        if not journey.settled:
            await self._settle(settlement, journey)
        self.tally[settlement.state] += 1
        log_journey(log, claim, journey, settlement, self._clerk.now())
        if journey.letter is not None and any(each.fate is Fate.ACCEPTED for each in journey.fates):
            await self._registrar.relay_answered(journey.letter.account)

    async def _settle(self, settlement: Settlement, journey: Journey) -> None:
        if await self._clerk.settle(settlement) is Settled.LATE:
            note = "id=%d: claim %d had been lost; what is true of its result (%s) all the same is kept"
            log.warning(note, settlement.message_id, settlement.claim_no, settlement.result)
        journey.settled = True

    def turn_back(self) -> int:
        """Let everything that is not past DATA be given back untried. How many go on to their end."""
        turning = [task for task, journey in self._journeys.items() if journey.may_turn_back]
        for task in turning:
            task.cancel()
        return len(self._journeys) - len(turning)

    async def _attempt(self, claim: Claim, journey: Journey) -> Settlement:
        if claim.expires_at is not None and claim.expires_at <= self._clerk.now():
            return expire(claim)
        route = await self._route(claim.sender, journey)
        if route is None:
            return refuse(claim, Stage.POLICY, "5.7.1", unregistered(claim.sender))
        async with self._place(route.account):
            route = self._open_route(claim)
            if self._draining() or route is None:
                return relinquish(claim)
            account = route.account
            content = await self._clerk.content(claim, account.name)
            try:
                settlement = await self._send(claim, content, route, journey)
                if settlement.pause is not None:
                    # Before the place is free, or the next message would run into the same fault: with a password
                    # that has become wrong, one more refused login, and accounts are locked for these.
                    log.warning("%s is at fault: %s", at_fault(settlement, account), settlement.pause.reason)
                    with self._registrar.pausing(account.name):
                        await self._settle(settlement, journey)
                        await self._registrar.refresh(force=True)
                return settlement
            finally:
                self._clerk.release(account.name, content.size)

    async def _route(self, sender: str, journey: Journey) -> Route | None:
        """Nobody is called unregistered by a registry that is older than the attempt."""
        route = self._registrar.registry.resolve(sender)
        return route or (await self._registrar.newer_than(journey.began)).resolve(sender)

    def _open_route(self, claim: Claim) -> Route | None:
        """The route as it is now: while the message waited for a place, it may have been paused, or repaired."""
        route = self._registrar.registry.resolve(claim.sender)
        return None if route is None or self._registrar.blocked(route, self._clerk.now()) else route

    def _after_error(self, claim: Claim, journey: Journey, error: Exception) -> Settlement:
        """What is known is not forgotten: fates stay, and a dot that may have been written is a doubt."""
        if journey.in_doubt:
            fault = f"internal error: {type(error).__name__}"
            self._note(journey, Trial(journey.chunk, Report(Stage.DOT, fault=fault, dotted=True)))
        return self._conclude(claim, journey) if journey.fates else self._internal_error(claim, error)

    def _internal_error(self, claim: Claim, error: Exception) -> Settlement:
        reply = Reply(451, "4.3.0", f"internal error: {type(error).__name__}")
        fate = RecipientFate(Recipient(0, "", "to"), Fate.DEFERRED, reply, classify(Stage.LOCAL, reply), Stage.LOCAL)
        attempt = Attempt(claim, (fate,), committed=1)
        return decide(attempt, self._policy, self._clerk.now(), self._clock.jitter())

    # -- preparing

    async def _send(self, claim: Claim, content: Content, route: Route, journey: Journey) -> Settlement:
        if isinstance(content.message, InvalidMessage):
            return refuse(claim, Stage.RENDER, content.message.status, content.message.reason)
        try:
            stranger = await self._stranger(content.message, route, journey)
            if stranger:
                return refuse(claim, Stage.POLICY, "5.7.1", unregistered(stranger, route.account.name))
            letter = self._compose(claim, content.message, content.fates, route)
        except InvalidMessage as invalid:
            return refuse(claim, Stage.RENDER, invalid.status, invalid.reason)
        if not letter.pending:
            return nothing_left(claim, bounced=letter.bounced_before > 0)
        journey.letter = letter
        await self._converse(letter, journey)
        return self._conclude(claim, journey)

    async def _stranger(self, message: Message, route: Route, journey: Journey) -> str:
        """An address in it that is not registered to the account of its sender; empty when all are."""
        addresses = senders_of(message)
        registry = self._registrar.registry
        if not all(registry.allows(route.account.name, each) for each in addresses):
            registry = await self._registrar.newer_than(journey.began)
        return next((each for each in addresses if not registry.allows(route.account.name, each)), "")

    def _compose(self, claim: Claim, message: Message, fates: dict[int, Fate], route: Route) -> Letter:
        if not message.sender_name and route.sender.display_name:
            message = replace(message, sender_name=route.sender.display_name)
        pending = tuple(
            each for each in recipients_of(message) if fates.get(each.position, Fate.PENDING) not in SETTLED_FATES
        )
        bounced = sum(fate is Fate.BOUNCED for fate in fates.values())
        return_path = return_path_of(message, route)
        return Letter(claim, route.account, return_path, pending, bounced, message.created_at, render(message))

    # -- sending

    def _conclude(self, claim: Claim, journey: Journey) -> Settlement:
        """The settlement for what the journey has come to, wherever it ended."""
        letter = journey.letter
        if letter is None or not journey.fates:
            return relinquish(claim)
        untried = len(letter.pending) - len(journey.fates)
        attempt = Attempt(claim, tuple(journey.fates), journey.committed, untried, letter.bounced_before)
        settlement = decide(attempt, self._policy, self._clerk.now(), self._clock.jitter())
        return self._complete(settlement, letter, journey)

    def _complete(self, settlement: Settlement, letter: Letter, journey: Journey) -> Settlement:
        last = journey.last
        return replace(
            settlement,
            relay=last.relay if last else "",
            tls=last.tls if last else "",
            sha256=hashlib.sha256(letter.rendered.data).hexdigest(),
            account=letter.account.name,
            credential_version=letter.account.credential_version,
            dot_at=journey.dot_at,
        )

    def _place(self, account: Account) -> asyncio.Semaphore:
        """A place among the account's connections. Its limit may change while the runner runs."""
        limit, place = self._places.get(account.name, (0, None))
        if place is None or limit != account.max_connections:
            place = asyncio.Semaphore(account.max_connections)
            self._places[account.name] = account.max_connections, place
        return place

    async def _converse(self, letter: Letter, journey: Journey) -> None:
        """One transaction a chunk of recipients, until all were reached or something stops us. A claim that proves to
        be lost ends it with what is known.
        """
        waiting = list(letter.pending)
        connection: Connection | None = None
        try:
            while waiting and not (journey.fates and self._draining()):
                if connection is None or not connection.usable:
                    if connection is not None:
                        await self._give(connection, letter)
                        connection = None
                    opened = await self._connect(letter)
                    if isinstance(opened, Report):
                        self._note(journey, Trial(tuple(waiting), opened))
                        return
                    connection = journey.connection = opened
                chunk = tuple(waiting[: self._limit(letter.account, connection)])
                report = await self._transact(connection, letter, chunk, journey)
                if report.stale:
                    continue  # it had died while it was idle, and nothing was tried: a new one takes the same chunk
                if report.fenced:
                    return
                trial, waiting = self._sort_out(letter.account, Trial(chunk, report), waiting[len(chunk) :])
                self._note(journey, trial)
                if refuses_message(report):
                    self._note(journey, Trial(tuple(waiting), replace(report, recipients=())))
                if stops(report):
                    return
        finally:
            if connection is not None:
                await self._give(connection, letter)

    async def _connect(self, letter: Letter) -> Connection | Report:
        """A connection of the account's own. It is used again only by the account, and with the relay, login and
        password, that it was opened with.
        """
        try:
            relay = self._registrar.relay(letter.account)
        except VaultError as error:
            return Report(Stage.LOCAL, Reply(554, "5.7.8", str(error)))
        return await self._pool.take((letter.account.name, relay), relay)

    async def _give(self, connection: Connection, letter: Letter) -> None:
        await self._pool.give((letter.account.name, connection.relay), connection)

    async def _transact(
        self, connection: Connection, letter: Letter, chunk: tuple[Recipient, ...], journey: Journey
    ) -> Report:
        journey.chunk = chunk

        async def mark() -> bool:
            through = None if len(chunk) == len(letter.pending) else chunk[-1].position
            fates = tuple(journey.fates[journey.committed :])
            claim = letter.claim
            granted = await self._clerk.mark(Mark(claim.message_id, claim.claim_no, through, fates))
            if granted:
                journey.committed = len(journey.fates)
                journey.dot_at = self._clerk.now()
                journey.in_doubt = True
            return granted

        envelope = Envelope(letter.return_path, tuple(each.address for each in chunk))
        report = await connection.deliver(envelope, letter.rendered, mark)
        journey.in_doubt = False
        return report

    def _note(self, journey: Journey, trial: Trial) -> None:
        journey.last = trial.report
        journey.fates.extend(fates_of(trial))

    def _limit(self, account: Account, connection: Connection) -> int:
        """How many recipients a transaction may have: our setting, what the relay announces (RFC 9422), and learnt."""
        announced = connection.max_recipients or self._chunk
        return min(self._chunk, announced, self._learnt.get(account.name, self._chunk))

    def _sort_out(self, account: Account, trial: Trial, waiting: list[Recipient]) -> tuple[Trial, list[Recipient]]:
        """Recipients that only were too many for this transaction go into the next one, and the number is learnt."""
        answers = trial.report.recipients
        if not any(answer is not None and answer.code in (452, 552) for answer in answers):
            return trial, waiting
        kept: list[tuple[Recipient, Reply | None]] = []
        again: list[Recipient] = []
        accepted = 0
        for recipient, answer in zip(trial.recipients, answers, strict=True):
            if answer is not None and is_too_many(answer, accepted_before=accepted):
                again.append(recipient)
                continue
            accepted += answer is not None and answer.positive
            kept.append((recipient, answer))
        if again:
            self._learnt[account.name] = max(1, min(accepted, self._learnt.get(account.name, accepted)))
        report = replace(trial.report, recipients=tuple(answer for _, answer in kept))
        return Trial(tuple(recipient for recipient, _ in kept), report), again + waiting
