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
from datetime import timedelta
from functools import partial
from typing import cast

from outbox.clock import Clock
from outbox.core.account import Account, Registry, Route
from outbox.core.judge import classify
from outbox.core.lifecycle import State
from outbox.core.message import Message, Recipient, recipients_of, senders_of
from outbox.core.outcome import Report, Stage
from outbox.core.render import Rendered, render
from outbox.core.reply import Reply, sanitise
from outbox.core.settlement import (
    SETTLED_FATES,
    Attempt,
    Claim,
    Fate,
    Policy,
    RecipientFate,
    Sent,
    Settlement,
    Trial,
    decide,
    expire,
    nothing_left,
    postpone,
    refuse,
    relinquish,
)
from outbox.core.staging import Staging
from outbox.errors import InvalidMessage, VaultError
from outbox.runner.claiming.quota import Postponed, Quota
from outbox.runner.registrar import Registrar
from outbox.runner.sending.brakes import Brakes
from outbox.runner.sending.carriers import Carriers, Ended
from outbox.runner.sending.conversation import Conversation
from outbox.runner.sending.journey import Journey, Letter, at_fault, log_journey, return_path_of, unregistered
from outbox.runner.sending.screen import Screen
from outbox.runner.sending.signing import Signing
from outbox.runner.steady import Steadiness
from outbox.runner.writing.clerk import Clerk
from outbox.smtp.pool import Pool
from outbox.store import Content, Settled

log = logging.getLogger("outbox.delivery")

SHORT, LARGE = 2047, 16 * 1024
"""Octets."""

UNREGISTERED = 10
"""Messages of unregistered senders that are refused at the same time."""


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
        conversation: Conversation,
        quota: Quota,
        screen: Screen,
        signing: Signing,
        staging: Staging,
        steady: Steadiness,
        draining: Callable[[], bool],
    ) -> None:
        self._clerk = clerk
        self._pool = pool
        self._registrar = registrar
        self._policy = policy
        self._clock = clock
        self._conversation = conversation
        self._quota = quota
        self._screen = screen
        self._signing = signing
        self._staging = staging
        self._steady = steady
        self._draining = draining
        self._brakes = Brakes()
        registrar.on_change.append(self._see)
        self._carriers = Carriers(self._carry, self._places)
        self._asides: set[asyncio.Future[None]] = set()
        self._journeys: dict[asyncio.Task[None], Journey] = {}
        self.tally: Counter[State] = Counter()
        """How many messages went into which state."""

    def begin(self, claim: Claim, ended: Ended) -> None:
        """Deliver it, when a place of its account is free. `ended` is called when its settlement is committed, or when
        it was cut off.
        """
        route = self._registrar.registry.resolve(claim.sender)
        self._carriers.hand("" if route is None else route.account.name, (claim, ended))

    async def _carry(self, claim: Claim, ended: Ended) -> None:
        """Attempt it and have it settled. Returns when its place is free.

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
            ended(claim)
            raise
        except Exception as error:  # a mistake of ours must not lose what is known, nor the message
            log.exception("id=%d: internal error", claim.message_id)
            settlement = self._after_error(claim, journey, error)
        finally:
            del self._journeys[task]
        if journey.settled:
            self._end(claim, ended, journey, settlement)
        else:
            self._write(claim, ended, journey, settlement)

    def _write(self, claim: Claim, ended: Ended, journey: Journey, settlement: Settlement) -> None:
        writing = self._clerk.settle(settlement)
        writing.add_done_callback(partial(self._written, claim, ended, journey, settlement))

    def _written(
        self, claim: Claim, ended: Ended, journey: Journey, settlement: Settlement, writing: asyncio.Future[Settled]
    ) -> None:
        if not writing.cancelled():
            _warn_if_late(settlement, writing.result())
        self._end(claim, ended, journey, settlement)

    def _end(self, claim: Claim, ended: Ended, journey: Journey, settlement: Settlement) -> None:
        ended(claim)
        self.tally[settlement.state] += 1
        log_journey(log, claim, journey, settlement, self._clerk.now)
        account = journey.letter.account if journey.letter is not None else None
        tripping = account is not None and self._registrar.counts_failures(account)
        if account is not None and tripping and any(each.fate is Fate.ACCEPTED for each in journey.fates):
            answered = asyncio.ensure_future(self._registrar.relay_answered(account))
            self._asides.add(answered)
            answered.add_done_callback(self._asides.discard)

    async def _settle(self, settlement: Settlement, journey: Journey) -> None:
        _warn_if_late(settlement, await self._clerk.settle(settlement))
        journey.settled = True

    def turn_back(self) -> int:
        """Let everything that is not past DATA be given back untried. How many go on to their end."""
        for claim, ended in self._carriers.take_back():
            self._write(claim, ended, Journey(self._clock.monotonic()), relinquish(claim))
        turning = [task for task, journey in self._journeys.items() if journey.may_turn_back]
        for task in turning:
            task.cancel()
        return len(self._journeys) - len(turning)

    @property
    def talking(self) -> int:
        """How many attempts are under way. What only waits for its settlement to be written is none any more."""
        return len(self._journeys)

    async def cut_off(self) -> None:
        """End what is under way, wherever it is."""
        await self._carriers.cut_off()
        if self._asides:
            await asyncio.wait(self._asides, timeout=5)

    async def _attempt(self, claim: Claim, journey: Journey) -> Settlement:
        while self._is_late(claim):
            if not self._steady.doubtful:
                return expire(claim)
            await asyncio.sleep(1)
        route = self._registrar.registry.resolve(claim.sender) or await self._route(claim.sender, journey)
        if route is None:
            return refuse(claim, Stage.POLICY, "5.7.1", unregistered(claim.sender))
        if self._draining() or not self._registrar.admits(route, claim.probe, self._clerk.now):
            return relinquish(claim)
        account = route.account
        content = await self._clerk.content(claim, account.name)
        held = content.size
        try:
            letter = await self._prepare(claim, content, route, journey)
            del content  # composed: while it is under way, its octets are in memory once
            if held > LARGE and isinstance(letter, Letter):
                before, held = held, min(held, len(letter.rendered.data))
                self._clerk.lighten(account.name, before - held)
            settlement = letter if isinstance(letter, Settlement) else await self._send(claim, letter, route, journey)
            del letter
            if settlement.pause is not None or settlement.probed is not None:
                await self._tell_others(settlement, account, journey)
            if held > LARGE and journey.letter is not None:  # its settlement is made, and may wait for the database
                journey.letter = replace(journey.letter, rendered=Rendered(b"", smtputf8=False, eight_bit=False))
            return settlement
        finally:
            self._clerk.release(account.name, held)

    async def _tell_others(self, settlement: Settlement, account: Account, journey: Journey) -> None:
        """A pause, or what a probe has shown, is settled before the place is free, or the next message would run into
        the same fault: with a password that has become wrong, one more refused login, and accounts are locked for
        these.
        """
        if settlement.pause is not None:
            log.warning("%s is at fault: %s", at_fault(settlement, account), settlement.pause.reason)
            with self._registrar.pausing(account.name):
                await self._settle(settlement, journey)
                await self._registrar.refresh(force=True)
        elif settlement.probed is not None:
            await self._settle(settlement, journey)
            await self._registrar.refresh(force=True)

    async def _see(self, before: Registry, now: Registry) -> None:
        """Accounts and senders have changed: nothing of a paused account is kept open."""
        self._brakes.see(before, now)
        moment = self._clerk.now()
        for name, account in now.accounts.items():
            if account.is_paused(moment) and account != before.accounts.get(name):
                await self._pool.drop(name)

    def _is_late(self, claim: Claim) -> bool:
        return claim.expires_at is not None and claim.is_late(self._clerk.now())

    async def _route(self, sender: str, journey: Journey) -> Route | None:
        """Nobody is called unregistered by a registry that is older than the attempt."""
        return (await self._registrar.newer_than(journey.began)).resolve(sender)

    def _after_error(self, claim: Claim, journey: Journey, error: Exception) -> Settlement:
        """What is known is not forgotten: fates stay, and a dot that may have been written is a doubt."""
        if journey.in_doubt:
            fault = f"internal error: {type(error).__name__}"
            assert journey.letter is not None
            doubt = Trial(journey.chunk, Report(Stage.DOT, fault=fault, dotted=True))
            self._conversation.note(journey.letter, journey, doubt)
        return self._conclude(claim, journey) if journey.fates else self._internal_error(claim, error)

    def _internal_error(self, claim: Claim, error: Exception) -> Settlement:
        return self._ours(claim, Reply(451, "4.3.0", f"internal error: {type(error).__name__}"))

    def _ours(self, claim: Claim, reply: Reply) -> Settlement:
        """Something on our own side kept it from being tried."""
        fate = RecipientFate(Recipient(0, "", "to"), Fate.DEFERRED, reply, classify(Stage.LOCAL, reply), Stage.LOCAL)
        attempt = Attempt(claim, (fate,), committed=1)
        return decide(attempt, self._rules_of_age(), self._clerk.now(), self._clock.jitter())

    def _rules_of_age(self) -> Policy:
        """Nobody is too old by a clock that has just jumped."""
        return replace(self._policy, max_age=timedelta.max) if self._steady.doubtful else self._policy

    # -- preparing

    async def _prepare(self, claim: Claim, content: Content, route: Route, journey: Journey) -> Letter | Settlement:
        """What is to be sent, or why nothing is."""
        if isinstance(content.message, InvalidMessage):
            return refuse(claim, Stage.RENDER, content.message.status, content.message.reason)
        try:
            stranger = await self._stranger(content.message, route, journey)
            if stranger:
                return refuse(claim, Stage.POLICY, "5.7.1", unregistered(stranger, route.account.name))
            return self._compose(claim, content.message, content.fates, route)
        except InvalidMessage as invalid:
            return refuse(claim, Stage.RENDER, invalid.status, invalid.reason)
        except VaultError as error:  # unsigned, it does not go out
            unsigned = self._ours(claim, Reply(554, "5.7.5", sanitise(str(error))))
            return replace(unsigned, account=route.account.name, credential_version=route.account.credential_version)

    async def _send(self, claim: Claim, letter: Letter, route: Route, journey: Journey) -> Settlement:
        if not letter.pending:
            return nothing_left(claim, bounced=letter.bounced_before > 0)
        return await self._hand_over(claim, await self._screened(letter), route, journey)

    async def _screened(self, letter: Letter) -> Letter:
        """Without those who are suppressed, or not allowed in staging."""
        if self._screen.idle:
            return letter
        screened = await self._screen.sort(letter.pending)
        return replace(letter, pending=screened.kept, withheld=screened.withheld)

    async def _hand_over(self, claim: Claim, letter: Letter, route: Route, journey: Journey) -> Settlement:
        """To the relay, as far as the limits allow."""
        addresses = self._staging.envelope(letter.pending) if letter.pending else ()
        reserved = await self._quota.reserve(claim, route, addresses)
        if isinstance(reserved, Postponed):
            return postpone(claim, reserved.until, reserved.reason)
        journey.letter = letter
        journey.fates.extend(letter.withheld)
        try:
            await self._conversation.hold(letter, journey)
        finally:
            reserved.release(tried=journey.connection is not None)
        return self._conclude(claim, journey)

    async def _stranger(self, message: Message, route: Route, journey: Journey) -> str:
        """An address in it that is not registered to the account of its sender; empty when all are."""
        addresses = senders_of(message)
        registry = self._registrar.registry
        if not [each for each in addresses if not registry.allows(route.account.name, each)]:
            return ""
        registry = await self._registrar.newer_than(journey.began)
        return next((each for each in addresses if not registry.allows(route.account.name, each)), "")

    def _compose(self, claim: Claim, message: Message, fates: dict[int, Fate], route: Route) -> Letter:
        if not message.sender_name and route.sender.display_name:
            message = replace(message, sender_name=route.sender.display_name)
        everybody = recipients_of(message)
        pending, bounced = everybody, 0
        if fates:
            pending = tuple(each for each in everybody if fates.get(each.position, Fate.PENDING) not in SETTLED_FATES)
            bounced = sum(fate is Fate.BOUNCED for fate in fates.values())
        return_path = return_path_of(message, route)
        rendered = self._signing.sign(message, render(message))
        if self._staging.redirects:
            rendered = replace(rendered, data=self._staging.labelled(rendered.data, everybody))
        account, created_at = route.account, message.created_at
        return Letter(claim, account, return_path, pending, bounced, created_at, rendered, message.dsn)

    # -- sending

    def _conclude(self, claim: Claim, journey: Journey) -> Settlement:
        """The settlement for what the journey has come to, wherever it ended."""
        letter = journey.letter
        if letter is None or not journey.fates:
            return relinquish(claim)
        untried = len(letter.pending) + len(letter.withheld) - len(journey.fates)
        sent = self._sent(letter, journey)
        attempt = Attempt(claim, tuple(journey.fates), journey.committed, untried, letter.bounced_before, sent)
        streaks = self._brakes.before(claim.sender, self._registrar.registry.resolve(claim.sender))
        settlement = decide(attempt, self._rules_of_age(), self._clerk.now(), self._clock.jitter(), streaks)
        spared = settlement.pause is not None and bool(settlement.pause.brake)
        self._brakes.after(claim.sender, letter.account.name, claim.message_id, attempt.fates, spared=spared)
        return settlement

    def _sent(self, letter: Letter, journey: Journey) -> Sent:
        account = letter.account
        relay, tls = (journey.last.relay, journey.last.tls) if journey.last is not None else ("", "")
        return Sent(relay, tls, _digest(letter.rendered.data), account.name, account.credential_version, journey.dot_at)

    def _places(self, account: str) -> int:
        """How many of its messages may be under way. It changes with the runners that share the account; mail of
        unregistered senders needs no connection.
        """
        known = self._registrar.registry.accounts.get(account)
        return UNREGISTERED if known is None else max(1, self._quota.places(known))


def _digest(data: bytes) -> str:
    """Its SHA-256, in hex. In short pieces: for longer ones hashlib gives the interpreter away, and gets it back late,
    which is worth it for large mail only.
    """
    if len(data) > LARGE:
        return hashlib.sha256(data).hexdigest()
    digest = hashlib.sha256()
    for start in range(0, len(data), SHORT):
        digest.update(data[start : start + SHORT])
    return digest.hexdigest()


def _warn_if_late(settlement: Settlement, word: Settled) -> None:
    if word is Settled.LATE:
        note = "id=%d: claim %d had been lost; what is true of its result (%s) all the same is kept"
        log.warning(note, settlement.message_id, settlement.claim_no, settlement.result)
