"""How one message is drawn: what it is, its life, its recipients, its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from outbox.cli.output import iso
from outbox.cli.phrases import (
    STYLES,
    ago,
    counted,
    joined,
    lasting,
    of_message,
    on_terminal,
    print_hanging,
    print_line,
    reply_words,
    terminal_width,
)
from outbox.store.audit import AttemptLine, RecipientLine, Record

_MANY = 50
"""Recipients that a terminal shows; a pipe gets all of them."""

_WIDE = 110
"""Columns from which what a relay said fits beside its attempt."""


def draw(record: Record, now: datetime) -> None:
    """For people, on a terminal or in a pipe."""
    print_line((f"message {record.id}  ", "bold"), (record.standing, STYLES.get(record.standing, "")))
    facts = _facts(record, now)
    width = max(len(name) for name, value in facts if value)
    for name, value in facts:
        if value:
            print_hanging([(f"  {name:<{width}}  ", "bright_black")], value)
    _heading("recipients")
    _draw_recipients(record.recipients)
    if record.attempts:
        _heading("attempts")
    for number, attempt in enumerate(record.attempts, 1):
        _draw_attempt(number, attempt)


def _heading(text: str) -> None:
    print_line()
    print_line((text, "bold"))


def _facts(record: Record, now: datetime) -> list[tuple[str, str]]:
    waiting = record.final_at is None
    again = f"tag {record.tag}" if record.tag else ""
    key = f"key {record.dedup_key}" if record.dedup_key else ""
    options = (f"priority {record.priority}", f"on doubt {record.on_doubt}", f"source {record.source}", again, key)
    return [
        ("from", record.sender),
        ("subject", record.subject or ""),
        ("message-id", record.message_id or ""),
        ("created", f"{iso(record.created_at)}, {ago(now - record.created_at)} ago"),
        ("due", _due(record, now) if record.state == "queued" else ""),
        ("expires", iso(record.expires_at) if record.expires_at and waiting else ""),
        ("ended", iso(record.final_at) if record.final_at else ""),
        ("erased", iso(record.erased_at) if record.erased_at else ""),
        ("life", _life(record)),
        ("last reply", reply_words(record.last_code, record.last_status, record.last_reply)),
        ("held", of_message(record.hold_reason or "", record.id) if record.state == "held" else ""),
        ("waits", record.paused or ""),
        ("doubts", f"{record.doubts}: each is a possible extra copy" if record.doubts else ""),
        ("crashes", f"its runner died {counted(record.crashes, 'time')} in a row" if record.crashes else ""),
        ("options", joined(options)),
        ("next", _next_step(record)),
    ]


def _due(record: Record, now: datetime) -> str:
    return f"{iso(record.due_at)}, in {lasting(record.due_at - now)}" if record.due_at > now else "now"


def _life(record: Record) -> str:
    """``created → +20ms attempt 1: bounced → retried → +1m 4s attempt 2: accepted → +3ms sent``. Attempts are counted
    here; a claim number that none of them has is an operator's retry.
    """
    steps = ["created"]
    last, number = record.created_at, 0
    for place, attempt in enumerate(record.attempts):
        if attempt.claim_no > number + 1:
            steps.append("retried")
        number = attempt.claim_no
        if 2 < place < len(record.attempts) - 2:  # of many, the first and the last
            steps += ["…"] if place == 3 else []
        else:
            said = "refused by policy" if _by_policy(attempt) else attempt.outcome or "under way"
            steps.append(f"+{lasting(attempt.started_at - last)} attempt {place + 1}: {said}")
        last = attempt.ended_at or attempt.started_at
    if record.final_at is not None:
        steps.append(f"+{lasting(record.final_at - last)} {record.state}")
    return " → ".join(steps)


def _next_step(record: Record) -> str:
    if record.state == "failed" and not record.erased_at and record.attempts and _by_policy(record.attempts[-1]):
        return f"`outbox sender add {record.sender} --account NAME`, then `outbox retry {record.id}`"
    if record.state in ("failed", "expired") and not record.erased_at:
        return f"`outbox retry {record.id}` sends it again to whoever does not have it"
    if record.state == "held" and not any(each.fate == "doubt" for each in record.recipients):
        return f"`outbox release {record.id}` lets it go, `outbox cancel {record.id}` withdraws it"
    return ""


def _draw_recipients(recipients: Sequence[RecipientLine]) -> None:
    shown = recipients[:_MANY] if on_terminal() else recipients
    width = max((len(each.address) for each in shown), default=0)
    for each in shown:
        reply = reply_words(each.code, each.status, each.reply)
        address = (f"  {each.kind:<3}  {each.address:<{min(width, 60)}}  ", "")
        fate = (f"{each.fate:<8}", STYLES.get(each.fate, ""))
        print_hanging([address, fate, ("  ", "")], reply)
    if len(shown) < len(recipients):
        print_line((f"  … and {len(recipients) - len(shown):,} more (in a pipe, and with --json, all)", "bright_black"))
    if not recipients:
        print_line(("  none that can be read", "bright_black"))


_UNREGISTERED = "sender not registered"


def _by_policy(attempt: AttemptLine) -> bool:
    """Refused by us, because its sender is not registered; no relay was asked."""
    # Recipients that are suppressed, or not allowed in staging, are of that stage, too.
    return attempt.outcome == "bounced" and attempt.stage == "policy" and _UNREGISTERED in (attempt.reply or "")


def _said(attempt: AttemptLine) -> str:
    """Where an attempt ended, and with which words; where there are none, what that means."""
    at = f"at {attempt.stage}" if attempt.stage and not _by_policy(attempt) else ""
    reply = reply_words(attempt.code, attempt.status, attempt.reply)
    if not reply and attempt.outcome in ("doubt", "lost"):
        if attempt.dot_at:
            reply = "its runner ended before the reply: the relay may have it"
        else:
            reply = "its runner ended before all of it was sent: the relay does not have it"
    return joined(("by policy" if _by_policy(attempt) else at, reply))


def _draw_attempt(number: int, attempt: AttemptLine) -> None:
    outcome = "refused" if _by_policy(attempt) else attempt.outcome or "under way"
    took = f"{lasting(attempt.ended_at - attempt.started_at):>7}" if attempt.ended_at else "       "
    head = [
        (f"  {number:>2}  {iso(attempt.started_at)}  {took}  ", ""),
        (f"{outcome:<12}  ", STYLES.get(attempt.outcome or outcome, "")),
    ]
    if on_terminal() and terminal_width() < _WIDE:
        print_line(*head)
        print_hanging([("      ", "")], _said(attempt))
    else:
        print_hanging(head, _said(attempt))
    dot = f"dot mark after {lasting(attempt.dot_at - attempt.started_at)}" if attempt.dot_at else ""
    account = f"account {attempt.account}" if attempt.account else ""
    circumstances = (attempt.relay or "", attempt.tls or "", account, dot, f"runner {attempt.runner[:8]}")
    print_hanging([("      ", "")], joined(circumstances), "bright_black")
    if attempt.late_at is not None:
        late = f"      late, {iso(attempt.late_at)}: {attempt.late_outcome} {attempt.late_reply or ''}"
        print_line((late, "magenta"))
