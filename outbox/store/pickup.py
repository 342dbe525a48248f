"""Pickup folders, and the files that were taken from them, in the database.

Functions of the caller's open transaction, like those of `senders`. What is asked of each scan is a seek of the files
that are not done yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from peewee import Database, IntegrityError, fn

from outbox.core.pickup import Addressee, Archive, Ending, Folder, Mode, Result, Taken
from outbox.errors import InvalidMail, Refused
from outbox.store import tables
from outbox.store.accounts import first_line
from outbox.store.journal import Act, journal
from outbox.store.rows import in_parts, parse_moment

ENDINGS = 100
"""So many ended mails are looked at in a scan."""

_ENDED = """
SELECT f.claim, f.name, f.message_id, f.file, d.state, d.sender, d.claim_no, d.last_code, d.last_status, d.last_reply,
  d.final_at, f.reason
FROM outbox_pickup_file f
LEFT JOIN outbox_delivery d ON d.message_id = f.message_id
WHERE f.folder = {0} AND f.done_at IS NULL AND (d.message_id IS NULL OR d.final_at IS NOT NULL)
ORDER BY f.taken_at
LIMIT {0}
"""

_ADDRESSEES = """
SELECT message_id, address, fate, code, status, reply FROM outbox_fate WHERE message_id IN ({0}) ORDER BY position
"""


# ---- folders


def folders(db: Database) -> list[Folder]:
    """All of them, by name."""
    row = tables.Pickup
    return [_folder(each) for each in row.select().order_by(row.name).execute(db)]


def folder(db: Database, name: str) -> Folder:
    """Raises Refused when there is none of that name."""
    found = next((each for each in folders(db) if each.name == name), None)
    if found is None:
        raise Refused(f"there is no pickup folder {name}", hint="`outbox pickup list` shows them")
    return found


def add_folder(db: Database, new: Folder, act: Act) -> None:
    """Raises Refused when the name or the path is in use."""
    values: dict[str, Any] = {
        "name": new.name,
        "path": new.path,
        "badmail": new.badmail,
        "sentmail": new.sentmail or None,
        "mode": str(new.mode),
        "senders": " ".join(new.senders) or None,
        "poll_ms": _milliseconds(new.poll),
        "settle_ms": _milliseconds(new.settle),
        "max_bytes": new.max_bytes,
        "archive": str(new.archive),
        "created_at": act.at,
    }
    for each in folders(db):
        _refuse_clash(new, each)
    try:
        tables.Pickup.insert(values).execute(db)
    except IntegrityError as error:
        raise Refused(f"pickup folder {new.name} cannot be added: {first_line(error)}") from None
    journal(db, act, "pickup add", f"pickup={new.name}", detail=new.path)


def _refuse_clash(new: Folder, other: Folder) -> None:
    """What one folder puts away, another must not take."""
    if new.name == other.name or new.path == other.path:
        raise Refused(
            f"pickup folder {other.name} ({other.path}) is there already",
            hint=f"to change it, first: outbox pickup remove {other.name}",
        )
    for one, two in ((new, other), (other, new)):
        if one.path in (two.badmail, two.sentmail):
            raise Refused(f"{one.path} is where pickup folder {two.name} puts files", hint="name another folder")


def remove_folder(db: Database, name: str, act: Act) -> int:
    """From now on nothing is taken from it. How many of its files were not done. Raises Refused when there is none."""
    known = folder(db, name)
    row = tables.PickupFile
    tables.Pickup.delete().where(tables.Pickup.name == name).execute(db)
    journal(db, act, "pickup remove", f"pickup={name}", detail=known.path)
    return int(row.select().where(row.folder == name, row.done_at.is_null()).count(db))


def _folder(row: Any) -> Folder:
    return Folder(
        row.name,
        row.path,
        row.badmail,
        row.sentmail or "",
        Mode(row.mode),
        tuple((row.senders or "").split()),
        timedelta(milliseconds=row.poll_ms),
        timedelta(milliseconds=row.settle_ms),
        row.max_bytes,
        Archive(row.archive),
    )


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


# ---- files


def known(db: Database, claims: Sequence[str]) -> set[str]:
    """Which of these claims are there."""
    row = tables.PickupFile
    return {
        each.claim
        for part in in_parts(claims, 500)
        for each in row.select(row.claim).where(row.claim.in_(list(part))).execute(db)
    }


def enter(db: Database, taken: Taken, now: datetime) -> bool:
    """Whether the claim is new. Then its mail is to be inserted in the same transaction, and `assign`ed."""
    query = tables.PickupFile.insert(_values(taken, now)).on_conflict_ignore().returning(tables.PickupFile.claim)
    return bool(list(query.execute(db)))


@contextmanager
def mail_refused() -> Iterator[None]:
    """What the database refuses of a mail is raised as InvalidMail."""
    try:
        yield
    except IntegrityError as error:
        raise InvalidMail("message", f"the database refuses it: {first_line(error)}") from None


def assign(db: Database, claim: str, message_id: int) -> None:
    """The mail that the file has become."""
    row = tables.PickupFile
    row.update(message_id=message_id).where(row.claim == claim).execute(db)


def condemn(db: Database, taken: Taken, reason: str, file: str, now: datetime) -> None:
    """The file becomes no mail, and is about to be moved to `file`."""
    values = {**_values(taken, now), "reason": reason, "file": file}
    tables.PickupFile.insert(values).on_conflict_ignore().execute(db)


def archived(db: Database, claim: str, file: str) -> None:
    row = tables.PickupFile
    row.update(file=file or None).where(row.claim == claim).execute(db)


def done(db: Database, claim: str, result: Result, reason: str, file: str, now: datetime) -> None:
    """The file is where it belongs."""
    row = tables.PickupFile
    values = {"done_at": now, "result": str(result), "reason": reason or None, "file": file or None}
    row.update(values).where(row.claim == claim, row.done_at.is_null()).execute(db)


def ended(db: Database, name: str) -> list[Ending]:
    """Files of this folder that are not done, and whose mail has ended, or that became none."""
    mark = db.param or "?"
    rows = list(db.execute_sql(_ENDED.format(mark), (name, ENDINGS)).fetchall())
    ids = [row[2] for row in rows if row[2] is not None]
    told: dict[int, list[Addressee]] = {}
    if ids:
        for message_id, *facts in db.execute_sql(_ADDRESSEES.format(", ".join([mark] * len(ids))), ids).fetchall():
            told.setdefault(message_id, []).append(_addressee(*facts))
    return [
        Ending(
            claim,
            name,
            message_id or 0,
            state or "",
            sender or "",
            claim_no or 0,
            Addressee("", "", code, status or "", reply or ""),
            tuple(told.get(message_id, ())),
            file or "",
            parse_moment(final_at),
            (reason or "refused") if message_id is None else "",
        )
        for claim, name, message_id, file, state, sender, claim_no, code, status, reply, final_at, reason in rows
    ]


def _addressee(address: str, fate: str, code: int | None, status: str | None, reply: str | None) -> Addressee:
    return Addressee(address, fate, code, status or "", reply or "")


def _values(taken: Taken, now: datetime) -> dict[str, Any]:
    return {
        "claim": taken.claim,
        "folder": taken.folder,
        "name": taken.name,
        "octets": taken.octets,
        "sha256": taken.sha256,
        "owner": taken.owner,
        "taken_at": now,
    }


def counts(db: Database) -> dict[str, dict[str, int]]:
    """By folder: how many files are ``under way``, ``sent``, ``partial`` and ``bad``."""
    row = tables.PickupFile
    query = row.select(row.folder, row.result, fn.count(row.claim).alias("files")).group_by(row.folder, row.result)
    found: dict[str, dict[str, int]] = {}
    for each in query.dicts().execute(db):
        found.setdefault(each["folder"], {})[each["result"] or "under way"] = each["files"]
    return found


_AGAIN = ("sender", "return_path", "dsn_notify", "dsn_ret", "dsn_envid", "raw")


def message_of(db: Database, message_id: int) -> dict[str, Any]:
    """What is needed of a mail that was a file to send it once more: its columns but for the recipients. Raises Refused
    when it is not there any more.
    """
    row = tables.Outbox
    query = row.select(*(getattr(row, name) for name in _AGAIN)).where(row.id == message_id)
    found = next(iter(query.dicts().execute(db)), None)
    if found is None or not found["raw"]:
        raise Refused(f"message {message_id} is not in the database any more")
    return {**found, "raw": bytes(found["raw"])}
