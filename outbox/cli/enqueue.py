"""``outbox enqueue``: hand over a mail from the command line, and see it leave."""

from __future__ import annotations

import mimetypes
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import output
from outbox.cli.session import Session, session_of
from outbox.core.units import parse_duration
from outbox.errors import InvalidMail

if TYPE_CHECKING:
    import peewee

    from outbox.core.message import Attachment
    from outbox.store.audit import Record

app = typer.Typer()

From = Annotated[str, typer.Option("--from", metavar="ADDRESS", help='"Shop <shop@example.com>", or bare.')]
To = Annotated[list[str] | None, typer.Option("--to", metavar="ADDRESS", help="May be given more than once.")]
Cc = Annotated[list[str] | None, typer.Option("--cc", metavar="ADDRESS", help="May be given more than once.")]
Bcc = Annotated[list[str] | None, typer.Option("--bcc", metavar="ADDRESS", help="May be given more than once.")]
ReplyTo = Annotated[
    list[str] | None, typer.Option("--reply-to", metavar="ADDRESS", help="May be given more than once.")
]
Subject = Annotated[str, typer.Option("--subject", help="May be left out.")]
Text = Annotated[str | None, typer.Option("--text", metavar="TEXT", help="The body; - reads it from standard input.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="An HTML body, from a file.")]
Attach = Annotated[list[Path] | None, typer.Option("--attach", metavar="FILE", help="May be given more than once.")]
Header = Annotated[
    list[str] | None, typer.Option("--header", metavar="'NAME: TEXT'", help="May be given more than once.")
]
Due = Annotated[str, typer.Option("--due", metavar="MOMENT", help="Not before then: 2026-12-24T18:00Z.")]
DueIn = Annotated[str, typer.Option("--in", metavar="TIME", help="Not before that has passed: 10m.")]
Expires = Annotated[str, typer.Option("--expires", metavar="MOMENT", help="Give up then.")]
ExpiresIn = Annotated[str, typer.Option("--expires-in", metavar="TIME", help="Give up when that has passed: 2d.")]
Key = Annotated[str, typer.Option("--key", help="A second mail with the same key is not enqueued.")]
Priority = Annotated[int, typer.Option("--priority", min=0, max=9, help="0 is the most urgent.")]
Tag = Annotated[str, typer.Option("--tag", help="A word to find it by.")]
OnDoubt = Annotated[str, typer.Option("--on-doubt", metavar="retry|hold", help="When the relay may have it already.")]
DsnNotify = Annotated[
    str,
    typer.Option("--dsn-notify", metavar="WHEN", help="Relays tell: never, or of success,failure,delay (RFC 3461)."),
]
DsnRet = Annotated[str, typer.Option("--dsn-ret", metavar="full|hdrs", help="What they bring back.")]
DsnEnvid = Annotated[str, typer.Option("--dsn-envid", metavar="NAME", help="What they call it; else its id.")]
Wait = Annotated[str, typer.Option("--wait", metavar="TIME", help="Wait so long until it is sent: 4s; 4 are seconds.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_LOOK_EVERY = 0.1  # seconds


@app.command()
def enqueue(
    ctx: typer.Context,
    sender: From,
    to: To = None,
    subject: Subject = "",
    text: Text = None,
    html: Html = None,
    attach: Attach = None,
    cc: Cc = None,
    bcc: Bcc = None,
    reply_to: ReplyTo = None,
    header: Header = None,
    due: Due = "",
    due_in: DueIn = "",
    expires: Expires = "",
    expires_in: ExpiresIn = "",
    key: Key = "",
    priority: Priority = 5,
    tag: Tag = "",
    on_doubt: OnDoubt = "retry",
    dsn_notify: DsnNotify = "",
    dsn_ret: DsnRet = "",
    dsn_envid: DsnEnvid = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Enqueue a mail and print its id. With --wait, end with 0 only if it was sent in that time."""
    session = session_of(ctx)
    now, patience = session.clock.now(), _seconds(wait)
    columns: dict[str, object] = {
        "sender": sender,
        "to": to or (),
        "cc": cc or (),
        "bcc": bcc or (),
        "reply_to": reply_to or (),
        "subject": subject,
        "text": _text(text),
        "html": None if html is None else _decoded(_contents(html, "--html"), "--html"),
        "attachments": [_attachment(path) for path in attach or ()],
        "headers": _headers(header or ()),
        "due_at": _moment(now, due, "--due", due_in, "--in"),
        "expires_at": _moment(now, expires, "--expires", expires_in, "--expires-in"),
        "dedup_key": key or None,
        "priority": priority,
        "tag": tag or None,
        "on_doubt": on_doubt,
        "dsn_notify": dsn_notify,
        "dsn_ret": dsn_ret,
        "dsn_envid": dsn_envid,
    }
    with session.database() as db:
        message_id, fresh = _insert(db, columns, key)
        record = None if patience is None else _wait(session, db, message_id, patience)
        reason = _why_not_yet(db, record) if record is not None and record.final_at is None else ""
    _report(message_id, record, reason, fresh=fresh, as_json=as_json)
    if record is not None and record.state != "sent":
        raise typer.Exit(1)


def _insert(db: peewee.Database, columns: dict[str, object], key: str) -> tuple[int, bool]:
    """The id of the mail, and whether it is new: not when there was one with its key."""
    from outbox.enqueue import enqueue as insert
    from outbox.mail import Mail
    from outbox.store import audit

    try:
        mail = Mail(**columns)  # type: ignore[arg-type]
    except InvalidMail as error:
        raise typer.BadParameter(str(error)) from None
    message_id = insert(db, mail, source="cli")
    if message_id is not None:
        return message_id, True
    return audit.by_key(db, key), False


def _wait(session: Session, db: peewee.Database, message_id: int, seconds: float) -> Record:
    """The message when it has ended, or is held, or when the time is up."""
    from outbox.store import audit

    deadline = session.clock.monotonic() + seconds
    while True:
        record = audit.show(db, message_id)
        left = deadline - session.clock.monotonic()
        if record.final_at is not None or record.state == "held" or left <= 0:
            return record
        Event().wait(min(_LOOK_EVERY, left))


def _why_not_yet(db: peewee.Database, record: Record) -> str:
    """What a mail waits for that has not ended; "" when only its own reply can tell."""
    from outbox.cli.phrases import of_message
    from outbox.store import health

    if record.paused:
        return record.paused
    if not any(each.alive for each in health.runners(db)):
        return "no runner is running: outbox run"
    return of_message(record.hold_reason or "", record.id)


def _report(message_id: int, record: Record | None, reason: str, *, fresh: bool, as_json: bool) -> None:
    if as_json:
        facts: dict[str, object] = {"id": message_id, "enqueued": fresh}
        if record is not None:
            facts |= {"state": record.state, "last_reply": record.last_reply, "final_at": record.final_at}
        output.show_json(facts)
        return
    output.say(str(message_id))
    if not fresh:
        output.note(f"a mail with this key was there already: message {message_id}")
    if record is not None:
        from outbox.cli.phrases import reply_words

        why = reason or reply_words(record.last_code, record.last_status, record.last_reply)
        output.note(f"message {message_id} is {record.standing}" + (f": {why}" if why else ""))


# -- reading the options; whatever is wrong with one is a usage error


def _text(text: str | None) -> str | None:
    return _decoded(sys.stdin.buffer.read(), "--text") if text == "-" else text


def _contents(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint=option) from None


def _decoded(content: bytes, option: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise typer.BadParameter("it is not UTF-8 text", param_hint=option) from None


def _attachment(path: Path) -> Attachment:
    from outbox.core.message import Attachment

    content_type, encoding = mimetypes.guess_type(path.name)
    if content_type is None or encoding is not None:  # a .txt.gz is not text
        content_type = "application/octet-stream"
    return Attachment(path.name, _contents(path, "--attach"), content_type)


def _headers(lines: Iterable[str]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for line in lines:
        name, colon, text = line.partition(":")
        if not colon or not name.strip():
            raise typer.BadParameter(f"{line!r} is not NAME: TEXT", param_hint="--header")
        headers.setdefault(name.strip(), []).append(text.strip())
    return headers


def _seconds(text: str) -> float | None:
    """``4s``, or ``4``, as the option took in the beginning; None where it was not given."""
    if not text:
        return None
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text).total_seconds()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error), param_hint="--wait") from None


def _moment(now: datetime, moment: str, option: str, span: str, span_option: str) -> datetime | None:
    if moment and span:
        raise typer.BadParameter(f"give one of {option} and {span_option}")
    if span:
        try:
            return now + parse_duration(span)
        except (ValueError, OverflowError) as error:
            raise typer.BadParameter(str(error), param_hint=span_option) from None
    if not moment:
        return None
    example = f"write one such as 2026-12-24T18:00Z, or {span_option} 1d"
    try:
        # A day alone is midnight; fromisoformat takes no zone behind one.
        found = datetime.fromisoformat(re.sub(r"^(\d{4}-\d\d-\d\d)(?=Z$|[+-]\d\d:?\d\d$)", r"\1T00:00", moment))
    except ValueError:
        raise typer.BadParameter(f"{moment!r} is not a moment; {example}", param_hint=option) from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{moment} needs its time zone: {moment}Z is UTC", param_hint=option)
    return found
