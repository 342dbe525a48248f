"""The real runner over the test's database, with a relay that answers by a script.

Both are in a process of their own, so that frozen clocks, forbidden sockets and whatever else a test does to its
process do not reach them; and because two copies of the SQLite library must not open one file in one process.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outbox.errors import DatabaseError, OutboxError
from outbox.testing.mails import Received
from outbox.testing.reading import driver_connection, is_async, select

HANG_UP = "hang up"
"""As an answer: close the connection instead. To the dot: the mail is in doubt."""

STAGES = ("mail", "rcpt", "dot")

PATIENCE = 60.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What the relay has accepted, in order; how many mails ended in which state in this run (``{"sent": 2}``; queued
    are those that are to be tried again); and in a sentence for each sender what stays in the outbox, and why.
    """

    received: tuple[Received, ...]
    done: dict[str, int]
    stays: tuple[str, ...]


def drain(
    database: str,
    *,
    answers: Mapping[str, str | Sequence[str]] | None = None,
    wait: float = 0,
    settings: Mapping[str, Any] | None = None,
    patience: float = PATIENCE,
) -> Drained:
    """Send what is due in the outbox at this URL (as outbox.toml has it) and is committed, to a relay on loopback.

    Every account leads to that relay, whatever its row says; the row stays as it is. Where no account is registered,
    every sender counts as registered while this runs. All else is real: states, attempts, suppressions, limits, pauses.

    answers   what the relay says: ``{"rcpt:bo@example.net": "550 5.1.1 no such user"}``. Keys are mail, mail:ADDRESS,
              rcpt, rcpt:ADDRESS and dot; a list is for the first time, the second …, then yes; HANG_UP hangs up
    wait      also do what comes due within so many seconds
    settings  of outbox.toml, by section: ``{"retry": {"floor": "1s", "ceiling": "1s"}}``. No file is read
    patience  seconds until this gives up

    Raises: ValueError for answers that are none; DatabaseError; OutboxError when a runner serves this database already,
    or does not come to an end.
    """
    import subprocess

    check(answers or {})
    order = {"database": database, "answers": dict(answers or {}), "wait": wait, "settings": dict(settings or {})}
    try:
        done = subprocess.run(  # the URL, with its password, is not in the arguments
            [sys.executable, "-m", "outbox.testing.rehearsal"],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise OutboxError(f"the runner did not end in {patience:g} s: {_last(expired.stderr or b'')}") from None
    if done.returncode != 0:
        kind = DatabaseError if done.returncode == DatabaseError.exit_code else OutboxError
        raise kind(_last(done.stderr))
    said = json.loads(done.stdout)
    received = tuple(
        Received(sender, tuple(recipients), base64.b64decode(data)) for sender, recipients, data in said["received"]
    )
    return Drained(received, said["done"], tuple(said["stays"]))


def check(answers: Mapping[str, str | Sequence[str]]) -> None:
    """Raises ValueError for what is no stage, or no reply."""
    for key, given in answers.items():
        stage, _, address = key.lower().partition(":")
        if stage not in STAGES or (stage == "dot" and address):
            raise ValueError(f"answers: {key!r} is none of mail, mail:ADDRESS, rcpt, rcpt:ADDRESS and dot")
        for each in [given] if isinstance(given, str) else given:
            if each != HANG_UP and not (each[:3].isdigit() and each[0] in "245" and each[3:4] in ("", " ")):
                raise ValueError(f'answers: {each!r} is not a reply, such as "550 5.1.1 no such user"')


def url_of(connection: Any) -> str:
    """The URL of the database that a synchronous connection has open. Raises DatabaseError where it cannot be known."""
    if is_async(connection):
        raise DatabaseError("say the URL of the database: an asynchronous connection does not")
    from urllib.parse import quote

    info = getattr(driver_connection(connection), "info", None)
    if info is None:
        path = next((file for _, name, file in select(connection, "PRAGMA database_list") if name == "main"), "")
        if not path:
            raise DatabaseError("a database in memory has no runner: use a file")
        return f"sqlite:///{quote(path, safe='/:')}"
    parts = {name: quote(str(getattr(info, name) or ""), safe="") for name in ("user", "password", "dbname", "host")}
    login = f"{parts['user']}:{parts['password']}" if parts["password"] else parts["user"]
    return f"postgresql://{login}@/{parts['dbname']}?host={parts['host']}&port={info.port}"


def refuse_uncommitted(connection: Any) -> None:
    """Raises OutboxError where the connection is in a transaction: a runner cannot see what is in it, and on SQLite it
    would wait for its end.
    """
    if is_async(connection):
        return
    below = driver_connection(connection)
    status = getattr(getattr(below, "info", None), "transaction_status", None)
    implicit = getattr(below, "autocommit", None) is False  # Python's: it is always in one, which may be empty
    is_open = getattr(below, "in_transaction", False) and not implicit if status is None else int(status) != 0
    if is_open:
        raise OutboxError("commit first: a runner sees only what is committed, and this connection is in a transaction")


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
