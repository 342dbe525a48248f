"""Pauses by runners: how far a fault reaches, for how long it is given a rest, and how it is then tried again.

    fault ─► Pause: 15 min ─► half-open: one message at a time, over all runners (Probe) ─┬─► shown to be gone: no pause
               ▲                                                                          │
               └──────────── the same fault: 1 h, 4 h, 24 h … ◄───────────────────────────┘

Half-open is what an account, a sender or a relay is when its pause, or the rest of its breaker, is over and nobody has
shown yet that the fault is gone. What a person has paused is never half-open: when that pause is over, it is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from outbox.core.brake import Streaks, Telling, tells
from outbox.core.fate import RecipientFate
from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.policy import Policy, Schedule

PROBE_TIME = timedelta(minutes=5)
"""For how long nobody else probes: longer than the way to MAIL may take, so that only the dead are overtaken."""

_CONTENT = frozenset({Stage.BODY, Stage.DOT})
_IN_TRANSACTION = frozenset({Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.BODY, Stage.DOT})


class Subject(NamedTuple):
    """What is half-open: an account or a sender (`name`), or a relay (its host as `name`, and `port`)."""

    scope: Scope
    name: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """What one message tries, and until when nobody else does."""

    subjects: tuple[Subject, ...]
    until: datetime

    def covers(self, subjects: Iterable[Subject]) -> bool:
        return set(subjects) <= set(self.subjects)


@dataclass(frozen=True, slots=True)
class Probed:
    """A probe that is over, and what of it has been shown to work again. The rest is for another message to try."""

    probe: Probe
    recovered: tuple[Subject, ...] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """A fault that reaches beyond the message. A SENDER or an ACCOUNT is paused; a RELAY fault counts in its breaker.

    schedule   how long, by how many pauses there were in a row; `at_least`, whatever the schedule says
    brake      the refusal that many messages got, see `outbox.core.brake`; `failed`, those that it has failed
    ages       the relay had seen what the message says, so that may be the cause: its age counts, and ends it
    """

    scope: Scope
    reason: str
    schedule: Schedule = (timedelta(hours=1),)
    at_least: timedelta = timedelta(0)
    brake: str = ""
    failed: tuple[int, ...] = ()
    ages: bool = False

    def lasting(self, before: int) -> timedelta:
        """How long this one is, after so many in a row."""
        return max(self.schedule[min(before, len(self.schedule) - 1)], self.at_least)


def pause_for(fates: Iterable[RecipientFate], policy: Policy) -> Pause | None:
    """The widest fault among the fates, as a pause; None when all of them are the message's own."""
    faults = [each for each in fates if each.outcome.verdict is not Verdict.ACCEPT]
    for scope in (Scope.RELAY, Scope.ACCOUNT, Scope.SENDER) if faults else ():
        for each in faults:
            if each.outcome.scope is scope:
                schedule, at_least = _length(each, policy)
                at_least, ages = max(at_least, each.outcome.delay), scope is Scope.RELAY and each.stage in _CONTENT
                return Pause(scope, f"{each.stage}: {each.reply}", schedule, at_least, ages=ages)
    return None


def _length(fate: RecipientFate, policy: Policy) -> tuple[Schedule, timedelta]:
    if fate.outcome.scope is Scope.SENDER:
        return policy.sender_pauses, timedelta(0)
    if fate.outcome.verdict is Verdict.BOUNCE:
        return policy.auth_pauses, timedelta(0)
    return policy.throttle_pauses, policy.throttled_login if fate.stage is Stage.AUTH else timedelta(0)


def probed(
    probe: Probe | None, fates: tuple[RecipientFate, ...], pause: Pause | None, streaks: Streaks
) -> Probed | None:
    """What a probe has shown. A relay and an account work when the relay has accepted the login and got as far as
    MAIL; a sender, when its mail was accepted; and whatever was braked, when the relay has answered something else.
    """
    if probe is None:
        return None
    fine = [each for each in probe.subjects if pause is None or pause.scope is not each.scope]
    return Probed(probe, tuple(each for each in fine if _works(each, fates, streaks)))


def _works(subject: Subject, fates: tuple[RecipientFate, ...], streaks: Streaks) -> bool:
    if subject.scope is Scope.SENDER:
        if streaks.sender.braked:
            return tells(streaks.sender.signature, fates) is Telling.OTHER
        return any(each.outcome.verdict is Verdict.ACCEPT for each in fates)
    if not any(each.stage in _IN_TRANSACTION for each in fates):
        return False
    braked = subject.scope is Scope.ACCOUNT and streaks.account.braked
    return not braked or tells(streaks.account.signature, fates) is Telling.OTHER
