"""A log handler that mails what was logged: at once, and then at most once in a while, the same lines counted.

    handler = OutboxHandler("sqlite:///shop.db", sender="ops@example.com", to="ann@example.com")
    handler.setLevel(logging.ERROR)
    logging.getLogger().addHandler(handler)

It has a connection of its own: what a transaction logs before it rolls back must be heard all the same. It never raises
and never waits: a thread writes, and what comes too fast is counted instead of kept.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from datetime import timedelta

from outbox.doors.own import commit
from outbox.log import one_line
from outbox.mail import Addresses, Mail

WAITING = 200
"""Different lines that are kept for the next mail; of more, only how many there were."""

PATIENCE = 5.0
"""Seconds to wait for the database."""


@dataclass(slots=True)
class _Line:
    """What was logged, and how often."""

    text: str
    head: str
    times: int = 1


class OutboxHandler(logging.Handler):
    """See above.

    database  its URL, as in outbox.toml
    sender    a registered address
    to        address list
    subject   what its subject begins with; the first line follows
    every     between two mails at least so long; what comes meanwhile goes into the next one
    """

    def __init__(
        self,
        database: str,
        *,
        sender: str,
        to: Addresses,
        subject: str = "",
        every: timedelta = timedelta(minutes=1),
        level: int | str = logging.NOTSET,
    ) -> None:
        super().__init__(level)
        self._database = database
        self._subject = subject
        self._every = every.total_seconds()
        self._template = Mail(sender=sender, to=to, subject=subject or "log", text="x")  # what is wrong is said now
        self._lines: dict[tuple[str, int, str], _Line] = {}
        self._dropped = 0
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None
        self._pid = os.getpid()
        self._closing = False
        self._quiet = threading.Event()
        self._quiet.set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it for the writer. Our own records are not mailed: that would never end."""
        if record.name == "outbox" or record.name.startswith("outbox."):
            return
        try:
            text = _clean(self.format(record))
            key = (record.name, record.levelno, f"{record.pathname}:{record.lineno}:{record.msg}")
            with self._changed:
                self._keep(key, text)
                self._start()
                self._changed.notify()
        except Exception:  # noqa: BLE001 -- a log handler must not end what it reports of
            self.handleError(record)

    def flush(self) -> None:
        """Wait until what was logged so far is written, for at most `PATIENCE`."""
        self._quiet.wait(PATIENCE)

    def close(self) -> None:
        """Write what is left. `logging.shutdown` calls it at the end of a program."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._writer is not None and self._pid == os.getpid():
            self._writer.join(PATIENCE)
        super().close()

    def _keep(self, key: tuple[str, int, str], text: str) -> None:
        known = self._lines.get(key)
        if known is not None:
            known.times += 1
        elif len(self._lines) < WAITING:
            self._lines[key] = _Line(text, text.partition("\n")[0])
        else:
            self._dropped += 1
        self._quiet.clear()

    def _start(self) -> None:
        """The writer, where there is none yet, or a fork has left it behind."""
        if self._writer is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._writer = threading.Thread(target=self._write, name="outbox-log", daemon=True)
            self._writer.start()

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._lines and not self._closing:
                    self._changed.wait()
                lines, dropped = list(self._lines.values()), self._dropped
                self._lines, self._dropped = {}, 0
                closing = self._closing
            if lines:
                self._send(lines, dropped)
            with self._changed:
                if not self._lines:
                    self._quiet.set()
                if closing:
                    return
                self._changed.wait_for(lambda: self._closing, timeout=self._every)

    def _send(self, lines: list[_Line], dropped: int) -> None:
        try:
            more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
            subject = " ".join(filter(None, [self._subject, one_line(lines[0].head)[:200]])) + more
            text = "\n\n".join(f"{each.text}\n({each.times} times)" if each.times > 1 else each.text for each in lines)
            if dropped:
                text += f"\n\n({dropped} other lines were not kept)"
            mail = Mail(sender=self._template.sender, to=self._template.to, subject=subject, text=text)
            commit(self._database, mail, source="logging", patience=PATIENCE)
        except Exception:  # noqa: BLE001 -- said on stderr, as all log handlers do
            self.handleError(logging.makeLogRecord({"msg": "the mail of a log was not written", "name": "outbox"}))


def _clean(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "backslashreplace").decode()
