"""What is paused, probed or braked, which mail waits because of it, and which command ends it."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result
from outbox.core.account import PROBING, Account, Sender, is_half_open

if TYPE_CHECKING:
    from datetime import datetime

    import peewee

    from outbox.cli.session import Session
    from outbox.store.health import Blocked

_LISTED = 5
"""Senders that are listed one by one."""


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """Accounts, then senders, then mail that waits for another reason."""
    from outbox.cli.phrases import counted
    from outbox.store import accounts, audit, health

    now, found, registered = audit.now(db), accounts.accounts(db), accounts.senders(db)
    lanes = health.blocked(db)
    waiting: Counter[str] = Counter()
    for lane in lanes:
        if lane.reason:
            waiting[lane.reason] += lane.waiting
    told: set[str] = set()
    for account in found:
        yield from _standing(db, account, waiting, told, now)
    yield _accounts(found)
    closed = [each for each in registered if each.blocked(now) or each.failed_by_brake]
    closed.sort(key=lambda each: -waiting[each.blocked(now)])
    for sender in closed[:_LISTED]:
        yield from _standing(db, sender, waiting, told, now)
    if len(closed) > _LISTED:
        count = sum(waiting[each.blocked(now)] for each in closed[_LISTED:])
        rest = f"{counted(len(closed) - _LISTED, 'sender')} more that cannot send"
        behind = f"; {counted(count, 'message')} wait{'s' if count == 1 else ''} for them" if count else ""
        yield Check("sender", Result.WARN, f"and {rest}{behind}", "outbox sender list")
    told.update(each.blocked(now) for each in closed)
    yield from _lanes([lane for lane in lanes if lane.reason not in told])
    if registered:
        yield Check("sender", Result.OK, counted(len(registered), "registration"))
    else:
        hint = "outbox sender add ADDRESS --account NAME"
        yield Check("sender", Result.WARN, "no address is registered, so all mail will fail", hint)


def _accounts(found: Sequence[Account]) -> Check:
    from outbox.cli.phrases import counted
    from outbox.oauth.setup import MECHANISMS

    if not found:
        hint = "outbox account add NAME --relay HOST:PORT --tls starttls --username NAME"
        return Check("account", Result.WARN, "there is no account, so nothing can be sent", hint)
    by_token = sum(account.mechanism in MECHANISMS for account in found)
    passwords = sum(account.secret is not None for account in found)
    words = f"{counted(len(found), 'account')}, {passwords} with a password"
    return Check("account", Result.OK, words + (f", {by_token} with OAuth" if by_token else ""))


def _standing(
    db: peewee.Database, row: Account | Sender, waiting: Counter[str], told: set[str], now: datetime
) -> Iterator[Check]:
    from outbox.cli import pauses
    from outbox.cli.phrases import counted

    check, name = ("account", row.name) if isinstance(row, Account) else ("sender", row.address)
    words = ""
    if row.is_paused(now):
        words = row.blocked(now)
    elif is_half_open(row.pause_reason, row.paused_until, now):
        words = f"{check} {name} is {PROBING}: {row.pause_reason}"
    ids = pauses.failed_by_brake(db, row)
    if ids:  # said first: `resume` forgets which they were
        standing = f"is braked by {row.brake!r}" if row.brake else "was braked"
        words_of_brake = f"{check} {name} {standing}; {counted(len(ids), 'message')} had failed before that"
        yield Check(check, Result.WARN, words_of_brake, pauses.retry(ids))
    if words:
        told.add(words)
        count = waiting[words]
        because = f"{counted(count, 'message')} wait{'s' if count == 1 else ''}: " if count else ""
        yield Check(check, Result.WARN, because + words, remedy(row))


def remedy(row: Account | Sender) -> str:
    """The command that ends its pause."""
    from outbox.oauth.setup import MECHANISMS

    if isinstance(row, Sender):
        return f"outbox sender resume {shlex.quote(row.address)}"
    named = re.search(r"outbox account (?:oauth|login|set-password) \S+$", row.pause_reason)
    if named and row.pause_reason.startswith("local: "):  # our own words, which end with the command
        return named[0]
    verb = "resume"
    if row.pause_reason.startswith("auth: "):  # what a runner met, not what a person asked for
        verb = "oauth" if row.mechanism in MECHANISMS else "set-password"
    return f"outbox account {verb} {shlex.quote(row.name)}"


def _lanes(lanes: Sequence[Blocked]) -> Iterator[Check]:
    """Mail that waits for something else; of one reason together, but what is not registered one by one."""
    from outbox.cli.phrases import counted

    strangers = [lane for lane in lanes if not lane.reason]
    for lane in strangers[:_LISTED]:
        words = f"{counted(lane.waiting, 'message')} from {lane.sender} cannot go: not registered"
        hint = f"outbox sender add {shlex.quote(lane.sender)} --account NAME; otherwise they will fail"
        yield Check("sender", Result.WARN, words, hint)
    if len(strangers) > _LISTED:
        words = f"and {counted(len(strangers) - _LISTED, 'sender')} more not registered"
        yield Check("sender", Result.WARN, words, "outbox stats --by sender")
    alike: defaultdict[str, list[Blocked]] = defaultdict(list)
    for lane in lanes:
        if lane.reason:
            alike[lane.reason].append(lane)
    for reason, found in alike.items():
        whose = found[0].sender if len(found) == 1 else counted(len(found), "sender")
        words = f"{counted(sum(lane.waiting for lane in found), 'message')} from {whose} cannot go: {reason}"
        yield Check("sender", Result.WARN, words)
