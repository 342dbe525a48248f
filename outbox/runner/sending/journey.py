"""What one attempt has come to, step by step, and the small questions that delivery asks on the way."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from outbox import log as lines
from outbox.core.account import Account, Route
from outbox.core.address import parse_address
from outbox.core.dsn import NO_DSN, Dsn
from outbox.core.judge import classify
from outbox.core.lifecycle import State
from outbox.core.message import Message, Recipient
from outbox.core.outcome import Report, Scope, Stage, Verdict
from outbox.core.record import record
from outbox.core.render import Rendered
from outbox.core.rules import Rules
from outbox.core.settlement import Claim, Fate, RecipientFate, Settlement
from outbox.smtp.connection import Connection


@record
class Letter:
    """A message ready to be sent: whom it still has to reach, and the bytes. `withheld` are the fates of those who are
    not tried, whatever the relay says.
    """

    claim: Claim
    account: Account
    return_path: str
    pending: tuple[Recipient, ...]
    bounced_before: int
    created_at: datetime
    rendered: Rendered
    dsn: Dsn = NO_DSN
    withheld: tuple[RecipientFate, ...] = ()


@dataclass(slots=True)
class Journey:
    """What an attempt has come to so far.

    began      on the monotonic clock
    fates      of all its transactions; the first `committed` of them are in the database, by a dot mark
    chunk      the recipients of the latest transaction
    last       its report, or that of the failure to begin one
    in_doubt   a dot mark is committed and the answer to its dot is not known yet
    late       the message's time was over before its dot
    settled    the settlement is committed
    """

    began: float
    letter: Letter | None = None
    fates: list[RecipientFate] = field(default_factory=list)
    committed: int = 0
    chunk: tuple[Recipient, ...] = ()
    last: Report | None = None
    dot_at: datetime | None = None
    in_doubt: bool = False
    late: bool = False
    settled: bool = False
    connection: Connection | None = None

    @property
    def may_turn_back(self) -> bool:
        """Nothing has come of it yet, and it is not past DATA."""
        past_data = self.connection is not None and self.connection.session.stage in (Stage.BODY, Stage.DOT)
        return not self.fates and not past_data


def log_journey(
    log: logging.Logger, claim: Claim, journey: Journey, settlement: Settlement, now: Callable[[], datetime]
) -> None:
    """A line for each recipient that was tried, and one for a message that ends, or is held, otherwise."""
    if journey.letter is not None and log.isEnabledFor(logging.INFO):
        spared = settlement.pause is not None and bool(settlement.pause.brake)  # then these are deferred after all
        _log_fates(log, journey, journey.letter, settlement.fates if spared else journey.fates, now())
    untried = journey.letter is None and settlement.state is not State.QUEUED
    if untried or settlement.state in (State.HELD, State.EXPIRED):
        why = settlement.hold_reason or str(settlement.reply or "") or "its time was over"
        log.warning("id=%d from=<%s> status=%s (%s)", claim.message_id, claim.sender, settlement.state, why)


def _log_fates(
    log: logging.Logger, journey: Journey, letter: Letter, fates: Iterable[RecipientFate], now: datetime
) -> None:
    for each in fates:
        line = lines.delivery_line(
            message_id=letter.claim.message_id,
            to=each.recipient.address,
            relay=journey.last.relay if journey.last else "",
            delay=now - letter.created_at,
            dsn=each.reply.status if each.reply else "",
            status=_STATUS[each.fate],
            reply=str(each.reply or ""),
        )
        log.info("%s", line)


def at_fault(settlement: Settlement, account: Account) -> str:
    """Whom a pause is about, for people."""
    scope = settlement.pause.scope if settlement.pause is not None else Scope.MESSAGE
    return {Scope.RELAY: f"relay {account.relay}", Scope.SENDER: f"sender {settlement.sender}"}.get(
        scope, f"account {account.name}"
    )


_STATUS = {
    Fate.ACCEPTED: lines.Status.SENT,
    Fate.DEFERRED: lines.Status.DEFERRED,
    Fate.BOUNCED: lines.Status.BOUNCED,
    Fate.DOUBT: lines.Status.DOUBT,
}


def stops(report: Report, rules: Rules = ()) -> bool:
    """Whether the recipients after this transaction are better left alone in this attempt."""
    outcome = classify(report.stage, report.reply, dotted=report.dotted, rules=rules)
    if outcome.scope is Scope.RECIPIENT:
        return False  # every recipient was refused, each for itself: the next ones may be welcome
    return outcome.verdict is not Verdict.ACCEPT


def refuses_message(report: Report, rules: Rules = ()) -> bool:
    """The relay refused the content, or the sender for this message: what it says holds for all its recipients."""
    outcome = classify(report.stage, report.reply, dotted=report.dotted, rules=rules)
    return outcome.verdict is Verdict.BOUNCE and outcome.scope is Scope.MESSAGE


def return_path_of(message: Message, route: Route) -> str:
    """Where bounces go: the message's own, else the sender's, else the sender. ``<>`` is the null return path."""
    path = message.return_path.strip() or route.sender.return_path or message.sender
    return "" if path == "<>" else parse_address(path).wire


def unregistered(address: str, account: str = "") -> str:
    """The refusal that keeps this from being an open relay, with the command that lifts it."""
    # It may hold bytes that are not UTF-8, and lines of its own.
    address = lines.one_line(address.encode("utf-8", "backslashreplace").decode())
    pasted = shlex.quote(address)  # somebody will, and the address is a stranger's
    if not account:
        return f"sender not registered: {address}; `outbox sender add {pasted} --account NAME`, then retry"
    return (
        f"sender not registered: {address} may not send through account {account};"
        f" `outbox sender add {pasted} --account {account}`, then retry"
    )
