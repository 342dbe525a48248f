"""``outbox list | show | retry | hold | release | cancel | resolve``: what operators see of messages, and do to them.

The verbs take ids, ``-`` for ids on standard input, or a filter; a filter asks before it acts, or wants ``--yes``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.session import Session, confirm, operator, session_of
from outbox.core.lifecycle import ALLOWED_FROM, DEAD, State, Verb
from outbox.core.units import parse_duration

if TYPE_CHECKING:
    import peewee

    from outbox.store.audit import Line, Record
    from outbox.store.filters import Filter
    from outbox.store.operate import Answer

app = typer.Typer()

NOTHING_MATCHED = 6

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Message ids; - reads them from standard input.")]
States = Annotated[
    list[str] | None,
    typer.Option("--state", metavar="STATE", help="Such as failed, or failed,held; also: scheduled, deferred, dead."),
]
Sender = Annotated[str, typer.Option("--sender", metavar="ADDRESS", help="From this address, or *@domain.")]
To = Annotated[str, typer.Option("--to", metavar="ADDRESS", help="To, Cc or Bcc this address, or *@domain.")]
Tag = Annotated[str, typer.Option("--tag", help="With this tag.")]
Key = Annotated[str, typer.Option("--key", help="With this dedup_key.")]
Code = Annotated[str, typer.Option("--code", help="Whose last reply was this: 550, 5.1.1, or 5.1 for all of those.")]
Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Created or ended within, such as 24h.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many messages match.")]
FailEmpty = Annotated[bool, typer.Option("--fail-empty", help="End with 6 when nothing matches.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    state: States = None,
    sender: Sender = "",
    to: To = "",
    tag: Tag = "",
    key: Key = "",
    code: Code = "",
    since: Since = "",
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=100_000, help="At most this many.")] = 50,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", help="Only older ones: with smaller ids.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Print ids only, for another command to read.")] = False,
    fail_empty: FailEmpty = False,
    as_json: Json = False,
) -> None:
    """List messages, the newest first."""
    from outbox.store import audit

    session = session_of(ctx)
    which = _filter(session, state, sender, to, tag, key, code, since)
    with session.database() as db:
        lines = audit.listing(db, which, limit=limit, before=before)
        counts = {} if as_json or ids else audit.counts(db, which)
        now = audit.now(db)
    if as_json:
        output.show_json(lines)
    elif ids:
        for line in lines:
            output.say(str(line.id))
    elif lines:
        _print(lines, counts, limit, now)
    else:
        output.note("no message matches" if which or before else "no messages yet")
    if fail_empty and not lines:
        raise typer.Exit(NOTHING_MATCHED)


app.command("ls", hidden=True)(list_)


def _print(lines: list[Line], counts: dict[State, int], limit: int, now: datetime) -> None:
    from outbox.cli import listing
    from outbox.cli.phrases import on_terminal
    from outbox.store.audit import COUNTED

    (listing.draw if on_terminal() else listing.write)(lines, now)
    total = sum(counts.values())
    shown = f"{len(lines):,} of {total:,}: " + ", ".join(f"{count:,} {state}" for state, count in counts.items())
    if total > COUNTED:
        shown = f"{len(lines):,} of more than {COUNTED:,}"
    older = f"; older: outbox list --before {lines[-1].id}" if len(lines) == limit < total else ""
    output.note(("\n" if on_terminal() else "") + shown + older)


@app.command()
def show(
    ctx: typer.Context,
    which: Annotated[str, typer.Argument(metavar="ID", help="The message.")],
    eml: Annotated[bool, typer.Option("--eml", help="Print the message itself, as a relay gets it.")] = False,
    as_json: Json = False,
) -> None:
    """Show a message: its life, its recipients and every attempt."""
    from outbox.store import audit

    if eml and as_json:
        raise typer.BadParameter("give one of --eml and --json")
    message_id = _id(which)
    session = session_of(ctx)
    if eml:
        from outbox.core.render import render

        with session.database() as db:
            data = render(audit.message(db, message_id)).data
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    with session.database() as db:
        record, now = audit.show(db, message_id), audit.now(db)
    if as_json:
        output.show_json(as_facts(record))
        return
    from outbox.cli import record as drawing

    drawing.draw(record, now)


def as_facts(record: Record) -> dict[str, object]:
    """What ``show --json`` prints: the record, its attempts without the `late_…` that did not happen."""
    facts: dict[str, object] = {each.name: getattr(record, each.name) for each in fields(record)}
    facts["attempts"] = [
        {
            each.name: getattr(attempt, each.name)
            for each in fields(attempt)
            if attempt.late_at is not None or not each.name.startswith("late_")
        }
        for attempt in record.attempts
    ]
    return facts


# -- the verbs


def _verb(verb: Verb, text: str) -> None:
    """Make the command of a verb that needs nothing but to know which messages."""

    @app.command(str(verb), help=text)
    def command(
        ctx: typer.Context,
        ids: Ids = None,
        state: States = None,
        sender: Sender = "",
        to: To = "",
        tag: Tag = "",
        code: Code = "",
        since: Since = "",
        yes: Yes = False,
        dry_run: DryRun = False,
        fail_empty: FailEmpty = False,
        as_json: Json = False,
    ) -> None:
        which = _which(session_of(ctx), verb, ids, (state, sender, to, tag, "", code, since))
        _carry_out(ctx, verb, which, Manner(yes, dry_run, fail_empty, as_json))


_verb(
    Verb.RETRY,
    "Send again, now, what failed, expired or is held, to those who do not have it; or what is scheduled or deferred"
    " before its time. A filter without --state means what failed or expired.",
)
_verb(Verb.RELEASE, "Let held messages go, at their own due time. (For those in doubt: `outbox resolve`.)")
_verb(Verb.CANCEL, "Withdraw messages that wait. This cannot be undone.")


@app.command()
def hold(
    ctx: typer.Context,
    ids: Ids = None,
    reason: Annotated[str, typer.Option("--reason", help="For whoever finds them held.")] = "",
    state: States = None,
    sender: Sender = "",
    to: To = "",
    tag: Tag = "",
    code: Code = "",
    since: Since = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    fail_empty: FailEmpty = False,
    as_json: Json = False,
) -> None:
    """Keep messages that wait from being sent, until they are released."""
    which = _which(session_of(ctx), Verb.HOLD, ids, (state, sender, to, tag, "", code, since))
    _carry_out(ctx, Verb.HOLD, which, Manner(yes, dry_run, fail_empty, as_json), reason=reason)


@app.command()
def resolve(
    ctx: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Messages held in doubt; - reads standard input.")],
    sent: Annotated[bool, typer.Option("--sent", help="The relay has them: nothing is sent again.")] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Send them again: a second copy is possible.")] = False,
    as_json: Json = False,
) -> None:
    """Say what became of messages that are held in doubt: the relay fell silent after it had been given all of them."""
    if sent == resend:
        raise typer.BadParameter("say which it is: --sent or --resend")
    verb = Verb.RESOLVE_SENT if sent else Verb.RESOLVE_RESEND
    _carry_out(ctx, verb, _ids(ids), Manner(as_json=as_json))


@dataclass(frozen=True, slots=True)
class Manner:
    """How a verb is carried out, as the options say."""

    yes: bool = False
    dry_run: bool = False
    fail_empty: bool = False
    as_json: bool = False


def _carry_out(ctx: typer.Context, verb: Verb, which: Filter | list[int], manner: Manner, *, reason: str = "") -> None:
    session = session_of(ctx)
    with session.database() as db:
        if not isinstance(which, list):
            found = _asked(db, verb, which, manner)
            if manner.dry_run or not found:
                raise typer.Exit(NOTHING_MATCHED if manner.fail_empty and not found else 0)
        elif manner.dry_run:
            raise typer.BadParameter("--dry-run is for filters: ids are already counted")
        answers = _call(session, db, verb, which, reason)
    _report(verb, answers, manner, each=isinstance(which, list))
    if manner.fail_empty and not answers:
        raise typer.Exit(NOTHING_MATCHED)
    if any(not answer.done for answer in answers):
        raise typer.Exit(1)


def _asked(db: peewee.Database, verb: Verb, which: Filter, manner: Manner) -> int:
    """How many messages match; goes on only if somebody agrees to as many."""
    from outbox.cli.phrases import counted
    from outbox.store import operate

    found = operate.matching(db, verb, which)
    if not found or manner.dry_run:
        if manner.as_json:
            output.show_json({"verb": verb, "matching": len(found)})
        else:
            output.note(f"{counted(len(found), 'message')} to {verb}" if found else f"no message to {verb} matches")
        return len(found)
    doubtful = operate.in_doubt(db, found) if verb is Verb.RETRY else 0
    warning = f" ({doubtful:,} in doubt: a second copy is possible)" if doubtful else ""
    confirm(f"{str(verb).capitalize()} {counted(len(found), 'message')}{warning}?", yes=manner.yes)
    return len(found)


def _call(session: Session, db: peewee.Database, verb: Verb, which: Filter | list[int], reason: str) -> list[Answer]:
    from outbox.store import operate

    who = operator()
    if verb is Verb.HOLD:
        return operate.hold(db, which, who=who, reason=reason)
    if verb in (Verb.RESOLVE_SENT, Verb.RESOLVE_RESEND):
        from outbox.runner.telling.feedback import recording_of

        sent = verb is Verb.RESOLVE_SENT
        return operate.resolve(db, which, who=who, sent=sent, recording=recording_of(session.config))
    calls = {Verb.RETRY: operate.retry, Verb.RELEASE: operate.release, Verb.CANCEL: operate.cancel}
    return calls[verb](db, which, who=who)


def _report(verb: Verb, answers: list[Answer], manner: Manner, *, each: bool) -> None:
    """Every message that was named; of those that a filter found, how many, and those that were left alone."""
    from outbox.cli.phrases import counted

    done = [answer for answer in answers if answer.done]
    refused = [answer for answer in answers if not answer.done]
    if manner.as_json:
        messages = [{"id": answer.message_id, "done": answer.done, "words": answer.words} for answer in answers]
        output.show_json({"verb": verb, "done": len(done), "refused": len(refused), "messages": messages})
        return
    if each:
        for answer in done:
            output.say(f"message {answer.message_id} {answer.words}")
    else:
        output.say(f"{counted(len(done), 'message')} {PAST[verb]}")
    for answer in refused[:LISTED]:
        output.note(f"error: message {answer.message_id} {answer.words}")
    if len(refused) > LISTED:
        output.note(f"error: and {len(refused) - LISTED:,} more")


PAST = {Verb.RETRY: "queued again", Verb.HOLD: "held", Verb.RELEASE: "released", Verb.CANCEL: "cancelled"}
LISTED = 20
"""Refusals that are listed one by one."""


# -- which messages


Criteria = tuple["list[str] | None", str, str, str, str, str, str]
"""--state, --sender, --to, --tag, --key, --code, --since"""


def _which(session: Session, verb: Verb, ids: list[str] | None, criteria: Criteria) -> Filter | list[int]:
    """Ids or a filter, one of them. Raises BadParameter."""
    if ids and any(criteria):
        raise typer.BadParameter("give ids or a filter, not both")
    if ids:
        return _ids(ids)
    if not any(criteria):
        raise typer.BadParameter("which messages? Give ids, - for ids on standard input, or a filter (--state failed)")
    which = _filter(session, *criteria)
    allowed = ALLOWED_FROM[verb] | ({"scheduled", "deferred"} if State.QUEUED in ALLOWED_FROM[verb] else set())
    for word in which.states:
        if word not in allowed:
            states = ", ".join(state for state in State if state in ALLOWED_FROM[verb])
            raise typer.BadParameter(f"{verb} is for messages that are {states}, not {word}", param_hint="--state")
    return which


def _ids(words: Iterable[str]) -> list[int]:
    """Message ids; ``-`` stands for those on standard input. Raises BadParameter."""
    found = []
    for word in words:
        for text in sys.stdin.read().split() if word == "-" else [word]:
            found.append(_id(text))
    return found


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"{text!r} is not a message id")
    return int(text)


def _filter(
    session: Session,
    state: list[str] | None,
    sender: str,
    to: str,
    tag: str,
    key: str,
    code: str,
    since: str,
) -> Filter:
    """Raises BadParameter for what no message can match."""
    from outbox.store.filters import Filter

    words = [word.strip().lower() for text in state or () for word in text.split(",") if word.strip()]
    states = [each for word in words for each in (sorted(DEAD) if word == "dead" else [word])]
    try:
        moment = session.clock.now() - parse_duration(since) if since else None
        return Filter(tuple(dict.fromkeys(states)), sender, to, tag, key, code, moment)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error)) from None
