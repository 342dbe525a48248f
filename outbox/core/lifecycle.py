"""The states of a message, and who may move it where.

    queued → sending → sent | failed | expired        queued ⇄ held        queued, held → cancelled
                     → queued  (retry: later due time; or relinquished untried)
    failed, expired, held → queued   (an operator's retry; one of what is queued for later only makes it due now)
    held → sent                      (a late 2xx, or an operator's `resolve --sent`)

A message that waits for a later time is `queued` with a later due time: there is no scheduled and no retrying state,
so nothing has to be promoted. The CHECK constraints of `outbox_delivery` mirror this page.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    QUEUED = "queued"
    """Waiting for its due time. In: INSERT, a retry, a release, a reclaim. Out: a runner's claim, or an operator."""

    SENDING = "sending"
    """Claimed by a runner that holds a lease. Out: that runner's settlement, or the reclaim when the runner is dead."""

    SENT = "sent"
    """Final. For every recipient a 2xx reply to the end of the data was read, and its text is stored."""

    FAILED = "failed"
    """Final. Nobody is pending and somebody was refused, or it cannot be composed, or its sender is not registered."""

    EXPIRED = "expired"
    """Final. It was not delivered in time: its `expires_at`, or the age at which we give up."""

    HELD = "held"
    """Waiting for a person. In: `hold`, a doubt with `on_doubt = hold`, too many doubts or crashes. Out: release,
    retry, resolve, cancel.
    """

    CANCELLED = "cancelled"
    """Final. Withdrawn before it was sent."""


FINAL = frozenset({State.SENT, State.FAILED, State.EXPIRED, State.CANCELLED})
DEAD = frozenset({State.FAILED, State.EXPIRED})


class Verb(StrEnum):
    """What an operator may ask for."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    CANCEL = "cancel"
    RESOLVE_SENT = "resolve-sent"
    RESOLVE_RESEND = "resolve-resend"


ALLOWED_FROM: dict[Verb, frozenset[State]] = {
    Verb.RETRY: frozenset({State.QUEUED, State.FAILED, State.EXPIRED, State.HELD}),
    Verb.HOLD: frozenset({State.QUEUED}),
    Verb.RELEASE: frozenset({State.HELD}),
    Verb.CANCEL: frozenset({State.QUEUED, State.HELD}),
    Verb.RESOLVE_SENT: frozenset({State.HELD}),
    Verb.RESOLVE_RESEND: frozenset({State.HELD}),
}

BECOMES: dict[Verb, State] = {
    Verb.RETRY: State.QUEUED,
    Verb.HOLD: State.HELD,
    Verb.RELEASE: State.QUEUED,
    Verb.CANCEL: State.CANCELLED,
    Verb.RESOLVE_SENT: State.SENT,
    Verb.RESOLVE_RESEND: State.QUEUED,
}
