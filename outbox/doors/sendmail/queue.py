"""mailq, as Postfix prints it, and `sendmail -q`."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any

from outbox.core.address import parse_address_list
from outbox.doorbell import ring
from outbox.doors.own import connected, rows
from outbox.doors.sendmail.submit import database
from outbox.drivers import driver_for
from outbox.insert import SQLITE

_HEAD = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"

_QUEUED = """
SELECT d.message_id, d.state, o.created_at, d.sender, coalesce(d.hold_reason, d.last_reply),
  coalesce(o.recipients, ''), coalesce(o.cc, ''), coalesce(o.bcc, ''),
  coalesce(length(o.raw), 0) + coalesce(length(o.text_body), 0) + coalesce(length(o.html_body), 0)
FROM outbox_delivery d JOIN outbox o ON o.id = d.message_id
WHERE d.state = 'queued' OR d.state = 'sending' OR d.state = 'held'
ORDER BY d.message_id
"""
_TRIED = """
SELECT f.message_id, f.address, f.fate, f.reply FROM outbox_fate f JOIN outbox_delivery d ON d.message_id = f.message_id
WHERE d.state = 'queued' OR d.state = 'sending' OR d.state = 'held'
"""
_OVER = ("accepted", "bounced")
_MARKS = {"sending": "*", "held": "!"}

_NOW = {"?": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", "%s": "now()"}

# What was deferred; not what an application wants to be sent later.
_FLUSH = """
UPDATE outbox_delivery SET due_at = {now}
WHERE state = 'queued' AND due_at > {now} AND failures + doubts > 0{which}
"""
_WHICH = {
    "I": " AND message_id = {mark}",
    "S": " AND lower(sender) LIKE lower({mark}) ESCAPE '!'",
    "R": " AND EXISTS (SELECT 1 FROM outbox_fate f WHERE f.message_id = outbox_delivery.message_id"
    " AND f.fate <> 'accepted' AND f.fate <> 'bounced' AND lower(f.address) LIKE lower({mark}) ESCAPE '!')",
}


def show() -> None:
    """What waits, on stdout: for whom it does, and what was last said. Raises ConfigError, DatabaseError."""
    with connected(database()) as connection:
        queued = rows(connection, _QUEUED)
        tried: dict[int, dict[str, tuple[str, str]]] = {}
        for message_id, address, fate, reply in rows(connection, _TRIED):
            tried.setdefault(message_id, {})[address] = (fate, reply or "")
    if not queued:
        print("Mail queue is empty")
        return
    print(_HEAD)
    for message_id, state, created, sender, why, *lists, size in queued:
        _entry(f"{message_id}{_MARKS.get(state, '')}", size, created, sender)
        _waiting(why or "", [each for text in lists for each in _addresses(text)], tried.get(message_id, {}))
        print()
    size, count = sum(row[-1] for row in queued), len(queued)
    print(f"-- {-(-size // 1024)} Kbytes in {count} Request{'s' if count > 1 else ''}.")


def _entry(name: str, size: int, created: Any, sender: str) -> None:
    arrival = (created if isinstance(created, datetime) else datetime.fromisoformat(created)).astimezone()
    print(f"{name:<12}{size:>8} {arrival:%a %b} {arrival.day:>2} {arrival:%H:%M:%S}  {sender}")


def _waiting(why: str, addresses: list[str], tried: dict[str, tuple[str, str]]) -> None:
    """Those for whom it still waits, under what was said of each; one reason for those who have none of their own."""
    by_reason: dict[str, list[str]] = {}
    for address in addresses or list(tried):
        fate, reply = tried.get(address, ("", ""))
        if fate not in _OVER:
            by_reason.setdefault(reply or why, []).append(address)
    for reason, some in by_reason.items():
        if reason:
            print(f"{'(' + ' '.join(reason.split()) + ')':>76}")
        for address in some:
            print(f"{'':41}{address}")


def _addresses(text: str) -> list[str]:
    with suppress(ValueError):
        return [each.email for each in parse_address_list(text)] if text else []
    return [text]  # whatever it is that a row of SQL says there


def flush(which: tuple[str, str] | None) -> None:
    """Let what was deferred be tried now; of one id, or of whose sender or recipient has these letters in it, whatever
    they are to LIKE. Raises ConfigError, DatabaseError.
    """
    with connected(database()) as connection:
        driver, plain = driver_for(connection)
        mark = driver.dialect.marker
        condition, values = "", tuple[int | str, ...]()
        if which is not None:
            letter, text = which
            condition = _WHICH[letter].format(mark=mark)
            values = (int(text),) if letter == "I" else (f"%{_literal(text)}%",)
        cursor = plain.cursor()
        try:
            cursor.execute(_FLUSH.format(now=_NOW[mark], which=condition), values)
        finally:
            cursor.close()
        if driver.dialect is SQLITE:
            ring(connection)
        else:
            rows(connection, "SELECT pg_notify('outbox', '')")


def _literal(text: str) -> str:
    for each in "!%_":
        text = text.replace(each, f"!{each}")
    return text
