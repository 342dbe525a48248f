"""One message, from claim to settlement: the heart of the runner.

    claim ─ content ─ route ─ prepare ─ connection ─ transactions ─ decide ─ pause ─ settle

Each step takes what the one before it made, and may end the journey early with a settlement of its own. Nothing here
opens a transaction, nothing raises for what a relay or a row did, and whatever happens the claim is settled.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

from outbox import log as lines
from outbox.clock import Clock
from outbox.core.account import Account, Registry, Route
from outbox.core.address import parse_address
from outbox.core.judge import classify, is_too_many
from outbox.core.message import Message, Recipient, recipients_of, senders_of
from outbox.core.outcome import Envelope, Report, Scope, Stage, Verdict
from outbox.core.render import Rendered, render
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
    refuse,
    relinquish,
)
from outbox.errors import InvalidMessage, VaultError
from outbox.runner.clerk import Clerk
from outbox.runner.registrar import Registrar
from outbox.smtp.connection import Connection
from outbox.smtp.pool import Pool
from outbox.store import Content, Mark, Settled

log = logging.getLogger("outbox.delivery")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message ready to be sent: whom it still has to reach, and the bytes."""

    claim: Claim
    account: Account
    return_path: str
    pending: tuple[Recipient, ...]
    bounced_before: int
    created_at: datetime
    rendered: Rendered


@dataclass(slots=True)
class Journey:
    """What an attempt has come to so far.

    fates      of all its transactions; the first `committed` of them are in the database, by a dot mark
    last       the report of the latest transaction, or of the failure to begin one
    in_doubt   a dot mark is committed and the answer to its dot is not known yet
    """

    letter: Letter | None = None
    fates: list[RecipientFate] = field(default_factory=list)
    committed: int = 0
    last: Report | None = None
    dot_at: datetime | None = None
    in_doubt: bool = False
    connection: Connection | None = None

    @property
    def may_turn_back(self) -> bool:
        """Nothing has come of it yet, and it is not past DATA."""
        past_data = self.connection is not None and self.connection.session.stage in (Stage.BODY, Stage.DOT)
        return not self.fates and not past_data


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
        self._places: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._learnt: dict[str, int] = {}
        self._journeys: dict[asyncio.Task[None], Journey] = {}

    async def deliver(self, claim: Claim) -> None:
        """Attempt it and settle it. Returns when the settlement is committed.

        Cancelled, it settles with what is known, and does not wait for the commit. In the middle of a dot nothing is
        known, and the claim is left to whoever takes it back, who will call it a doubt.
        """
        journey = Journey()
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._journeys[task] = journey
        try:
            settlement = await self._attempt(claim, journey)
        except asyncio.CancelledError:
            if not journey.in_doubt:
                self._clerk.settle(self._conclude(claim, journey))
            raise
        except Exception as error:  # a mistake of ours must not lose the message: it is tried again, and counted
            log.exception("id=%d: internal error", claim.message_id)
            settlement = self._internal_error(claim, error)
        finally:
            del self._journeys[task]
        if settlement.pause is not None:
            # First the pause, then the settlement: or the message could be claimed again in between.
            await self._registrar.pause(settlement)
        if await self._clerk.settle(settlement) is Settled.LATE:
            note = "id=%d: claim %d had been lost; its result (%s) is kept beside the attempt"
            log.warning(note, claim.message_id, claim.claim_no, settlement.result)

    def turn_back(self) -> int:
        """Let everything that is not past DATA be given back untried. How many go on to their end."""
        turning = [task for task, journey in self._journeys.items() if journey.may_turn_back]
        for task in turning:
            task.cancel()
        return len(self._journeys) - len(turning)

    async def _attempt(self, claim: Claim, journey: Journey) -> Settlement:
        content = await self._clerk.content(claim)
        try:
            step = self._prepare(claim, content, self._registrar.registry)
            if isinstance(step, Settlement):
                return step
            journey.letter = step
            async with self._place(step.account):
                if not self._draining() and not self._is_blocked(claim):
                    await self._converse(step, journey)
                settlement = self._conclude(claim, journey)
                if settlement.pause is not None:
                    # Before the place is free, or the next message would run into the same fault: with a password
                    # that has become wrong, one more refused login, and accounts are locked for these.
                    await self._registrar.pause(settlement)
                    settlement = replace(settlement, pause=None)
            if any(each.fate is Fate.ACCEPTED for each in journey.fates):
                await self._registrar.relay_answered(step.account)
            return settlement
        finally:
            self._clerk.release(content.size)

    def _is_blocked(self, claim: Claim) -> bool:
        """Whether its account or sender was paused while it waited for a place."""
        route = self._registrar.registry.resolve(claim.sender)
        return route is None or bool(route.blocked(self._clerk.now()))

    def _internal_error(self, claim: Claim, error: Exception) -> Settlement:
        reply = Reply(451, "4.3.0", f"internal error: {type(error).__name__}")
        fate = RecipientFate(Recipient(0, "", "to"), Fate.DEFERRED, reply, classify(Stage.LOCAL, reply), Stage.LOCAL)
        attempt = Attempt(claim, (fate,), committed=1)
        return decide(attempt, self._policy, self._clerk.now(), self._clock.jitter())

    # -- preparing

    def _prepare(self, claim: Claim, content: Content, registry: Registry) -> Letter | Settlement:
        now = self._clerk.now()
        if claim.expires_at is not None and claim.expires_at <= now:
            return expire(claim)
        route = registry.resolve(claim.sender)
        if route is None:
            return refuse(claim, Stage.POLICY, "5.7.1", unregistered(claim.sender))
        if self._draining() or route.blocked(now):
            return relinquish(claim)
        if isinstance(content.message, InvalidMessage):
            return refuse(claim, Stage.RENDER, content.message.status, content.message.reason)
        try:
            return self._compose(claim, content.message, content.fates, route, registry)
        except InvalidMessage as invalid:
            return refuse(claim, Stage.RENDER, invalid.status, invalid.reason)

    def _compose(
        self, claim: Claim, message: Message, fates: dict[int, Fate], route: Route, registry: Registry
    ) -> Letter | Settlement:
        for address in senders_of(message):
            if not registry.allows(route.account.name, address):
                return refuse(claim, Stage.POLICY, "5.7.1", unregistered(address, route.account.name))
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
        self._report(letter, journey)
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
        return self._places.setdefault(
            (account.name, account.max_connections), asyncio.Semaphore(account.max_connections)
        )

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
                        await self._pool.give(self._key(letter.account), connection)
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
                await self._pool.give(self._key(letter.account), connection)

    async def _connect(self, letter: Letter) -> Connection | Report:
        try:
            relay = self._registrar.relay(letter.account)
        except VaultError as error:
            return Report(Stage.LOCAL, Reply(554, "5.7.8", str(error)))
        return await self._pool.take(self._key(letter.account), relay)

    def _key(self, account: Account) -> tuple[str, int, str, int, str]:
        """A connection is used again only by the account, with the password and relay, that it was opened with."""
        return account.name, account.credential_version, account.relay_host, account.relay_port, account.tls

    async def _transact(
        self, connection: Connection, letter: Letter, chunk: tuple[Recipient, ...], journey: Journey
    ) -> Report:
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
            self._learnt[account.name] = max(1, accepted)
        report = replace(trial.report, recipients=tuple(answer for _, answer in kept))
        return Trial(tuple(recipient for recipient, _ in kept), report), again + waiting

    # -- reporting

    def _report(self, letter: Letter, journey: Journey) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        delay = self._clerk.now() - letter.created_at
        relay = journey.last.relay if journey.last else ""
        for each in journey.fates:
            log.info(
                "%s",
                lines.delivery_line(
                    message_id=letter.claim.message_id,
                    to=each.recipient.address,
                    relay=relay,
                    delay=delay,
                    dsn=each.reply.status if each.reply else "",
                    status=_STATUS[each.fate],
                    reply=str(each.reply or ""),
                ),
            )


_STATUS = {
    Fate.ACCEPTED: lines.Status.SENT,
    Fate.DEFERRED: lines.Status.DEFERRED,
    Fate.BOUNCED: lines.Status.BOUNCED,
    Fate.DOUBT: lines.Status.DOUBT,
}


def stops(report: Report) -> bool:
    """Whether the recipients after this transaction are better left alone in this attempt."""
    outcome = classify(report.stage, report.reply, dotted=report.dotted)
    if outcome.scope is Scope.RECIPIENT:
        return False  # every recipient was refused, each for itself: the next ones may be welcome
    return outcome.verdict is not Verdict.ACCEPT


def refuses_message(report: Report) -> bool:
    """The relay refused the content, or the sender for this message: what it says holds for all its recipients."""
    outcome = classify(report.stage, report.reply, dotted=report.dotted)
    return outcome.verdict is Verdict.BOUNCE and outcome.scope is Scope.MESSAGE


def return_path_of(message: Message, route: Route) -> str:
    """Where bounces go: the message's own, else the sender's, else the sender. ``<>`` is the null return path."""
    path = message.return_path.strip() or route.sender.return_path or message.sender
    return "" if path == "<>" else parse_address(path).wire


def unregistered(address: str, account: str = "") -> str:
    """The refusal that keeps this from being an open relay, with the command that lifts it."""
    address = address.encode("utf-8", "backslashreplace").decode()  # it may hold bytes that are not UTF-8
    pasted = shlex.quote(address)  # somebody will, and the address is a stranger's
    if not account:
        return f"sender not registered: {address}; `outbox sender add {pasted} --account NAME`, then retry"
    return (
        f"sender not registered: {address} may not send through account {account};"
        f" `outbox sender add {pasted} --account {account}`, then retry"
    )
