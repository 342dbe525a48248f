"""mailq, as Postfix prints it, and `sendmail -q`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from outbox.configfile import machine_file, setting
from outbox.doors.own import connected
from outbox.drivers import driver_for
from outbox.errors import ConfigError

_HEAD = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"

_QUEUED = """
SELECT d.message_id, d.state, o.created_at, d.sender, d.last_reply, d.hold_reason,
  coalesce(o.recipients, ''), coalesce(o.cc, ''), coalesce(o.bcc, ''),
  coalesce(length(o.raw), 0) + coalesce(length(o.text_body), 0) + coalesce(length(o.html_body), 0)
FROM outbox_delivery d JOIN outbox o ON o.id = d.message_id
WHERE d.state = 'queued' OR d.state = 'sending' OR d.state = 'held'
ORDER BY d.message_id
"""

_MARKS = {"sending": "*", "held": "!"}

_NOW = {"?": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", "%s": "now()"}

_FLUSH = """
UPDATE outbox_delivery SET due_at = {now}
WHERE state = 'queued' AND due_at > {now} AND failures + doubts > 0{which}
"""
_WHICH = {
    "I": " AND message_id = {mark}",
    "S": " AND sender LIKE {mark}",
    "R": " AND EXISTS (SELECT 1 FROM outbox_fate f WHERE f.message_id = outbox_delivery.message_id"
    " AND f.address LIKE {mark})",
}


def show() -> None:
    """What waits, on stdout."""
    count = size = 0
    with connected(_database()) as connection:
        cursor = driver_for(connection)[1].cursor()
        cursor.execute(_QUEUED)
        for row in cursor:
            if not count:
                print(_HEAD)
            count, size = count + 1, size + row[-1]
            _entry(*row)
    if count:
        print(f"-- {-(-size // 1024)} Kbytes in {count} Request{'s' if count > 1 else ''}.")
    else:
        print("Mail queue is empty")


def _entry(
    message_id: int, state: str, created: Any, sender: str, reply: str | None, hold: str | None, *rest: Any
) -> None:
    *lists, size = rest
    arrival = created if isinstance(created, datetime) else datetime.fromisoformat(created)
    print(
        f"{message_id}{_MARKS.get(state, ' '):<{max(1, 11 - len(str(message_id)))}}{size:>9} "
        f"{arrival:%a %b %e %H:%M:%S}  {sender}"
    )
    if hold or reply:
        print(f"{' ' * 20}({hold or reply})")
    for each in filter(None, lists):
        for address in str(each).split(", "):
            print(f"{' ' * 42}{address}")
    print()


def flush(which: tuple[str, str] | None) -> None:
    """Let what was deferred be tried now; of one id, or of whose sender or recipient has these letters in it."""
    with connected(_database()) as connection:
        driver, plain = driver_for(connection)
        mark = driver.dialect.marker
        condition, values = "", tuple[int | str, ...]()
        if which is not None:
            letter, text = which
            condition = _WHICH[letter].format(mark=mark)
            values = ((int(text) if text.isdecimal() else 0) if letter == "I" else f"%{text}%",)
        cursor = plain.cursor()
        cursor.execute(_FLUSH.format(now=_NOW[mark], which=condition), values)


def _database() -> str:
    url = setting("database")
    if not url:
        raise ConfigError("no database is configured", hint=f"make {machine_file()}, or set OUTBOX_DATABASE")
    return url
