"""``outbox rule …``: what this site makes of replies that a provider misuses, and what any reply would lead to."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outbox.cli import output
from outbox.cli.session import session_of
from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.rules import Rule, for_relay
from outbox.core.units import format_duration, parse_duration

if TYPE_CHECKING:
    from outbox.core.judge import Judgement
    from outbox.core.meaning import Meaning
    from outbox.core.reply import Reply
    from outbox.store.rules import Stored

app = typer.Typer(help="What to make of a relay's refusals, where its codes say something else.", no_args_is_help=True)


class Decision(StrEnum):
    """What a rule may say."""

    DEFER = "defer"
    BOUNCE = "bounce"


class Answered(StrEnum):
    """The stages at which a relay answers."""

    BANNER = "banner"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    ctx: typer.Context,
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="A regular expression, searched in “code status text” in any case.")
    ],
    verdict: Annotated[Decision, typer.Option("--verdict", help="Try again, or not.")],
    scope: Annotated[Scope, typer.Option("--scope", help="How far it reaches: beyond the message it pauses.")],
    relay: Annotated[str, typer.Option("--relay", metavar="HOST", help="Only of this relay, with * and ?.")] = "*",
    delay: Annotated[str, typer.Option("--delay", metavar="TIME", help="Not again before, such as 10m.")] = "",
    note: Annotated[str, typer.Option("--note", help="Why, for the others.")] = "",
) -> None:
    """Decide what replies mean that match a pattern. The first rule that fits decides, before the built-in table."""
    from outbox.core.replies import CONSEQUENCES
    from outbox.store import rules

    session = session_of(ctx)
    with session.database() as db, db.atomic():
        new = rules.add_rule(
            db,
            session.act(),
            pattern=pattern,
            verdict=Verdict(verdict),
            scope=scope,
            relay=relay,
            delay=_delay(delay),
            note=_note(note),
        )
    output.say(f"added rule {new.id}: a reply with {pattern!r} from {relay}: {CONSEQUENCES[new.verdict, new.scope]}")
    output.note('try it: outbox rule test "550 5.7.1 what it says"')


@app.command("list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List the rules in the order in which they are asked."""
    from outbox.store import rules

    session = session_of(ctx)
    with session.database() as db:
        found = rules.stored(db)
    if as_json:
        output.show_json([_facts(each) for each in found])
        return
    output.show_table(
        ("id", "relay", "pattern", "verdict", "scope", "delay", "note"),
        [_line(each) for each in found],
        empty="there are no rules; the built-in table decides (docs/replies.md)",
    )


@app.command()
def remove(
    ctx: typer.Context, number: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.")]
) -> None:
    """Take a rule away. What it has decided stays decided."""
    from outbox.store import rules

    session = session_of(ctx)
    with session.database() as db, db.atomic():
        rules.remove_rule(db, number, session.act())
    output.say(f"removed rule {number}")


@app.command("test")
def try_(
    ctx: typer.Context,
    reply: Annotated[str, typer.Argument(metavar="REPLY", help='What a relay says, such as "550 5.7.1 not here".')],
    stage: Annotated[Answered, typer.Option("--stage", help="What it answers.")] = Answered.RCPT,
    relay: Annotated[str, typer.Option("--relay", metavar="HOST", help="Who says it; else every rule is asked.")] = "",
    as_json: Json = False,
) -> None:
    """Say what Outbox would do with a reply, and why: which rule decides, or which row of the built-in table."""
    from outbox.core.judge import judge
    from outbox.core.replies import CONSEQUENCES
    from outbox.store import rules

    said = _parsed(reply)
    session = session_of(ctx)
    with session.database() as db:
        known = rules.load(db)
    at = Stage(stage)
    found = judge(at, said, dotted=at is Stage.DOT, rules=for_relay(known, relay) if relay else known)
    if as_json:
        output.show_json(_judgement(at, said, found))
        return
    outcome, by = found
    output.show_record(
        {
            "reply": f"{stage}: {said}",
            "verdict": outcome.verdict,
            "reaches": outcome.scope,
            "so": CONSEQUENCES[outcome.verdict, outcome.scope],
            "not again before": format_duration(outcome.delay) if outcome.delay else "",
            "decided by": f"rule {by.id}, for {by.relay}" if isinstance(by, Rule) else f"built-in: {by.name}",
            "because": _why(by),
        }
    )


def _why(by: Meaning | Rule) -> str:
    if isinstance(by, Rule):
        return by.note or f"{by.pattern!r} fits"
    return by.why


def _parsed(text: str) -> Reply:
    from outbox.core.reply import MalformedReply, ReplyParser

    parser = ReplyParser()
    parser.feed(" ".join(text.split()).encode("utf-8", "replace") + b"\r\n")
    try:
        reading = parser.take()
    except MalformedReply as error:
        raise typer.BadParameter(str(error), param_hint="REPLY") from None
    if reading is None:
        raise typer.BadParameter("a reply begins with its code and a space: 550 5.7.1 not here", param_hint="REPLY")
    return reading.reply


def _delay(text: str) -> timedelta:
    try:
        return parse_duration(text) if text else timedelta(0)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error), param_hint="--delay") from None


def _note(text: str) -> str:
    if not text.isprintable() or len(text) > 200:
        raise typer.BadParameter("a note is one line of at most 200 characters", param_hint="--note")
    return text


def _line(row: Stored) -> tuple[object, ...]:
    if row.rule is None:
        return (row.id, "", row.pattern, "never asked", "", "", row.flaw)
    rule = row.rule
    delay = format_duration(rule.delay) if rule.delay else ""
    return (rule.id, rule.relay, rule.pattern, rule.verdict, rule.scope, delay, rule.note)


def _facts(row: Stored) -> dict[str, Any]:
    rule = row.rule
    return {
        "id": row.id,
        "relay": rule.relay if rule else None,
        "pattern": row.pattern,
        "verdict": rule.verdict if rule else None,
        "scope": rule.scope if rule else None,
        "delay": rule.delay.total_seconds() if rule else None,
        "note": rule.note if rule else None,
        "flaw": row.flaw,
        "created_at": row.created_at,
    }


def _judgement(stage: Stage, reply: Reply, found: Judgement) -> dict[str, Any]:
    from outbox.core.replies import CONSEQUENCES

    outcome, by = found
    return {
        "stage": stage,
        "code": reply.code,
        "status": reply.status,
        "text": reply.text,
        "verdict": outcome.verdict,
        "scope": outcome.scope,
        "delay": outcome.delay.total_seconds(),
        "rule": outcome.rule or None,
        "meaning": None if isinstance(by, Rule) else by.name,
        "consequence": CONSEQUENCES[outcome.verdict, outcome.scope],
        "why": _why(by),
    }
