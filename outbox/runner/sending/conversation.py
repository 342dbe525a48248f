"""The part of a delivery that the relay takes part in: connections, and a transaction for each part of the recipients.

    a connection ─ MAIL, RCPT… ─ DATA ─ the body ─ the dot mark ─ the dot          once for each part

What comes of it is noted in the journey. A message whose time is over (`expires_at`) never gets its dot: nothing is
begun after that moment, no mark is given, and a dialogue that is still before its dot is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from outbox.core.account import Account
from outbox.core.judge import is_too_many
from outbox.core.message import Recipient
from outbox.core.outcome import Envelope, Report, Stage
from outbox.core.reply import Reply
from outbox.core.settlement import Claim, Trial, fates_of
from outbox.core.staging import Staging
from outbox.runner.registrar import Registrar
from outbox.runner.sending.journey import Journey, Letter, refuses_message, stops
from outbox.runner.sending.login import Login
from outbox.runner.writing.clerk import Clerk
from outbox.smtp.connection import Connection
from outbox.smtp.pool import Key, Pool
from outbox.smtp.relay import Relay
from outbox.store import Mark

LATE = Reply(0, "4.4.7", "its time (expires_at) was over before the relay had all of it: its dot was not written")


class Conversation:
    """See above. `draining()` turns true when nothing new may be begun."""

    def __init__(
        self,
        clerk: Clerk,
        pool: Pool,
        registrar: Registrar,
        login: Login,
        staging: Staging,
        *,
        recipients_per_transaction: int,
        draining: Callable[[], bool],
    ) -> None:
        self._clerk = clerk
        self._pool = pool
        self._registrar = registrar
        self._login = login
        self._staging = staging
        self._chunk = recipients_per_transaction
        self._draining = draining
        self._learnt: dict[str, int] = {}

    async def hold(self, letter: Letter, journey: Journey) -> None:
        """One transaction a chunk of recipients, until all were reached or something stops us. A claim that proves to
        be lost ends it with what is known.
        """
        waiting = list(letter.pending)
        rules = self._registrar.rules(letter.account)
        connection: Connection | None = None
        try:
            while waiting and not (journey.fates and self._draining()):
                if self._is_late(letter.claim, journey):
                    self.note(letter, journey, Trial(tuple(waiting), Report(Stage.LOCAL, LATE)))
                    return
                if connection is None or not connection.usable:
                    spent, connection = connection, None
                    opened = await self._connect(letter, instead_of=spent)
                    if isinstance(opened, Report):
                        self.note(letter, journey, Trial(tuple(waiting), opened))
                        return
                    connection = journey.connection = opened
                    continue  # that may have taken its time
                chunk = tuple(
                    waiting if self._staging.redirects else waiting[: self._limit(letter.account, connection)]
                )
                report = await self._transact(connection, letter, chunk, journey)
                if report.stale:
                    continue  # it had died while it was idle, and nothing was tried: a new one takes the same chunk
                if report.fenced:
                    return
                waiting = waiting[len(chunk) :]
                if report.is_clean:
                    self.note(letter, journey, Trial(chunk, report))
                    continue
                waiting = self._take_in(letter, journey, Trial(chunk, report), waiting)
                if stops(report, rules):
                    return
        finally:
            if connection is not None:
                await self._give(connection, letter)

    def _take_in(self, letter: Letter, journey: Journey, trial: Trial, waiting: list[Recipient]) -> list[Recipient]:
        """What a transaction with refusals has come to. Who is still waiting after it."""
        kept, waiting = self._sort_out(letter.account, trial, waiting)
        self.note(letter, journey, kept)
        if refuses_message(trial.report, self._registrar.rules(letter.account)):
            self.note(letter, journey, Trial(tuple(waiting), replace(trial.report, recipients=())))
        return waiting

    async def _connect(self, letter: Letter, *, instead_of: Connection | None = None) -> Connection | Report:
        """A connection of the account's own. It is used again only by the account, and with the relay, login and
        password, that it was opened with. The one that it replaces is closed first.
        """
        if instead_of is not None:
            await self._give(instead_of, letter)
        account = letter.account
        relay = await self._login.relay(account)
        opened = await self._open(account, relay)
        if type(opened) is Connection and opened.session.transactions:
            return opened  # it was of use before: there is nothing new to learn of its relay
        if isinstance(relay, Relay) and isinstance(opened, Report) and self._login.may_refresh(account, opened):
            opened = await self._open(account, await self._login.relay(account, refused=relay))
        try:
            await self._login.remember(account, opened)
        except BaseException:  # the database, or the end: nobody would close it
            if isinstance(opened, Connection):
                opened.abort()
            raise
        return opened

    async def _open(self, account: Account, relay: Relay | Report) -> Connection | Report:
        return relay if isinstance(relay, Report) else await self._pool.take(_key(account, relay), relay)

    async def _give(self, connection: Connection, letter: Letter) -> None:
        await self._pool.give(_key(letter.account, connection.relay), connection)

    async def _transact(
        self, connection: Connection, letter: Letter, chunk: tuple[Recipient, ...], journey: Journey
    ) -> Report:
        journey.chunk = chunk
        claim = letter.claim

        async def mark() -> bool:
            if self._is_late(claim, journey):
                return False
            through = None if len(chunk) == len(letter.pending) else chunk[-1].position
            fates = tuple(journey.fates[journey.committed :])
            marked_at = await self._clerk.mark(Mark(claim.message_id, claim.claim_no, through, fates))
            if marked_at is None:
                return False
            journey.committed = len(journey.fates)
            if self._is_late(claim, journey):
                return False
            journey.dot_at = marked_at
            journey.in_doubt = True
            return True

        envelope = Envelope(letter.return_path, self._staging.envelope(chunk), self._staging.dsn(letter.dsn))
        alarm = self._alarm(claim.expires_at, connection, journey) if claim.expires_at is not None else None
        try:
            report = await connection.deliver(envelope, letter.rendered, mark)
        finally:
            if alarm is not None:
                alarm.cancel()
        journey.in_doubt = False
        report = self._staging.spread(report, chunk)
        return _late(report) if journey.late and not report.dotted else report

    def note(self, letter: Letter, journey: Journey, trial: Trial) -> None:
        """What a transaction has come to."""
        journey.last = trial.report
        journey.fates.extend(self._staging.told(fates_of(trial, self._registrar.rules(letter.account))))

    def _is_late(self, claim: Claim, journey: Journey) -> bool:
        if claim.expires_at is not None:
            journey.late = journey.late or claim.is_late(self._clerk.now())
        return journey.late

    def _alarm(self, expires_at: datetime, connection: Connection, journey: Journey) -> _Alarm:
        """When the message's time is over, a dialogue that is not past its dot is cut off: without a dot, nobody has
        it. That a body is slow does not count: the mark may have been given long ago.
        """
        return _Alarm(partial(self._left, expires_at), partial(self._cut_off, connection, journey))

    def _left(self, expires_at: datetime) -> float:
        return (expires_at - self._clerk.now()).total_seconds()

    def _cut_off(self, connection: Connection, journey: Journey) -> None:
        if connection.session.stage is not Stage.DOT:
            journey.late = True
            connection.abort()

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


class _Alarm:
    """Calls `ring` when nothing is `left`, in seconds: of a clock that may be set back meanwhile."""

    def __init__(self, left: Callable[[], float], ring: Callable[[], None]) -> None:
        self._left, self._ring = left, ring
        self._set()

    def _set(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(0.001, self._left()), self._look)

    def _look(self) -> None:
        if self._left() > 0:
            self._set()
        else:
            self._ring()

    def cancel(self) -> None:
        self._timer.cancel()


def _key(account: Account, relay: Relay) -> Key:
    return (account.name, account.credential_version, relay)


def _late(report: Report) -> Report:
    """In place of the report of a dialogue that was cut off. Refused recipients stay refused."""
    return replace(report, stage=Stage.LOCAL, reply=LATE, fault="", fenced=False, stale=False)
