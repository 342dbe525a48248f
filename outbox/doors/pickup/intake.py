"""A scan of one pickup folder: what has ended goes to its place, what has come becomes mail.

    pickup/ ──take──► .work/ ──enter──► a row of outbox ─ ─ ─ delivered ─ ─ ─► sentmail/, or badmail/ with its reason
                        ▲ what a crash has left here and the database does not know is read again, under its own claim

A claim is unique in the database, and its mail is inserted in the same transaction: however often a file is read, it is
sent once. One process scans a folder at a time; what it finds in `.work` is nobody's else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from outbox.clock import Clock
from outbox.core.pickup import (
    MAX_HEADER,
    Archive,
    Ending,
    Folder,
    Mode,
    Result,
    Taken,
    bad_names,
    read_envelope,
    sent_names,
    shown,
    without_replayed,
)
from outbox.core.raw import addresses_in, read_fields
from outbox.doors.pickup.archive import place
from outbox.doors.pickup.files import Claimed, Content, Settling, Unacceptable, claimed_files, read, take, work_of
from outbox.doors.pickup.ledger import Ledger
from outbox.doors.pickup.reasons import Reason, explain, of_ending
from outbox.errors import InvalidMail
from outbox.filelock import lock
from outbox.mail import Mail

log = logging.getLogger("outbox.pickup")

READERS = 3
"""A file that has ended so many of its readers is bad."""

PATIENCE = 60.0
"""Seconds for which a file may be without the empty line behind its header: somebody may still be writing it."""


@dataclass(slots=True)
class Tally:
    """What a scan has done: files that became mail, became none, and have gone to their place."""

    taken: int = 0
    refused: int = 0
    archived: int = 0


class Intake:
    """Of one folder, scan after scan. `folder` may be replaced between two."""

    def __init__(self, folder: Folder, ledger: Ledger, clock: Clock) -> None:
        self.folder = folder
        self._ledger = ledger
        self._clock = clock
        self._settling = Settling(clock)

    @property
    def waiting(self) -> bool:
        """Whether there are files that have not settled yet."""
        return self._settling.waiting

    def scan(self) -> Tally:
        """Raises OSError when the folder cannot be read or written, DatabaseError; then nothing is lost or sent twice.
        Does nothing while another process scans the folder.
        """
        tally = Tally()
        with _alone(self.folder) as alone:
            if alone:
                endings = self._ledger.ended(self.folder.name)  # first: without the database, nothing is taken
                paths = {each.claim: each.path for each in claimed_files(self.folder)} if endings else {}
                for ending in endings:
                    self._archive(ending, paths.get(ending.claim))
                    tally.archived += 1
                for claimed in self._left():
                    self._read_again(claimed, tally)
                for name in self._settling.settled(self.folder):
                    taken = take(self.folder, name, self._clock)
                    if taken is not None:
                        self._enter(taken, tally)
        return tally

    def _left(self) -> list[Claimed]:
        """What is in `.work` and the database knows nothing of: its reader died."""
        files = claimed_files(self.folder)
        known = self._ledger.known([each.claim for each in files])
        return [each for each in files if each.claim not in known]

    def _read_again(self, claimed: Claimed, tally: Tally) -> None:
        if claimed.begun >= READERS:
            why = f"{claimed.begun} times the program ended while it read this file, so it is not read again"
            self._refuse(claimed, None, Reason("parse", why), tally)
        else:
            self._enter(claimed.again(), tally)

    def _enter(self, claimed: Claimed, tally: Tally) -> None:
        content: Content | None = None
        try:
            content = read(self.folder, claimed)
            mail = mail_of(self.folder, content.raw)
        except Unacceptable as unacceptable:
            self._refuse(claimed, content, Reason("policy", str(unacceptable)), tally)
        except Unfinished as unfinished:
            if self._clock.now().timestamp() - claimed.path.stat().st_mtime < PATIENCE:
                place(claimed.path, Path(self.folder.path), [claimed.name])
                return
            self._refuse(claimed, content, Reason("parse", str(unfinished)), tally)
        except ValueError as error:  # InvalidMail among them
            self._refuse(claimed, content, Reason("parse", str(error)), tally)
        else:
            taken = self._taken(claimed, content)
            try:
                self._ledger.enter(taken, mail)
            except InvalidMail as error:
                self._refuse(claimed, content, Reason("parse", str(error)), tally)
                return
            tally.taken += 1
            log.info("%s: took %s", self.folder.name, shown(claimed.name))
            if self.folder.archive is Archive.ON_INGEST:
                self._ledger.archived(claimed.claim, self._put_away(claimed.path, claimed.name))

    def _taken(self, claimed: Claimed, content: Content | None) -> Taken:
        name = shown(claimed.name)
        if content is None:
            return Taken(claimed.claim, self.folder.name, name)
        return Taken(claimed.claim, self.folder.name, name, len(content.raw), content.sha256, content.owner)

    # -- to their places

    def _refuse(self, claimed: Claimed, content: Content | None, reason: Reason, tally: Tally) -> None:
        """It becomes no mail."""
        file = self._put_to_the_bad(claimed.path, claimed.name, claimed.claim, reason)
        self._ledger.refuse(self._taken(claimed, content), reason.why, str(file))
        tally.refused += 1
        log.warning("%s: %s is bad: %s", self.folder.name, shown(claimed.name), reason.why)

    def _archive(self, ending: Ending, path: Path | None) -> None:
        """Its mail has ended. `path` None: the file has gone to its place before."""
        reason, file = of_ending(ending), ending.file
        if ending.result is not Result.BAD:
            file = self._put_away(path, ending.name) if path is not None else file
        if ending.result is not Result.SENT:
            moved = path if ending.result is Result.BAD else None
            bad = self._put_to_the_bad(moved, ending.name, ending.claim, reason)
            file = str(bad) if moved is not None else file
        self._ledger.done(ending.claim, ending.result, reason.why, file)

    def _put_away(self, path: Path, name: str) -> str:
        """To `sentmail`, if there is one. Where it is then."""
        if self.folder.sentmail:
            return str(place(path, Path(self.folder.sentmail), sent_names(name, self._clock.now())))
        path.unlink()
        return ""

    def _put_to_the_bad(self, path: Path | None, name: str, claim: str, reason: Reason) -> Path:
        """To `badmail`, the reason first, so that a crash between the two leaves a file that is read again and no
        file without a reason. `path` None: the reason alone.
        """
        badmail, names = Path(self.folder.badmail), bad_names(name, self._clock.now())
        told = explain(badmail, names, claim, reason, shown(name), self._clock.now())
        if path is None:
            return told
        target = told.with_name(told.name.removesuffix(".json"))
        return place(path, badmail, chain([target.name], bad_names(name, self._clock.now())))


class Unfinished(ValueError):
    """A file without an empty line behind its header."""


def mail_of(folder: Folder, raw: bytes) -> Mail:
    """What a file of this folder says. Raises ValueError (InvalidMail, Unfinished) and Unacceptable."""
    if b"\n\n" not in raw and b"\r\n\r\n" not in raw and b"\r\r" not in raw:
        raise Unfinished("no empty line separates its header from its body")
    fields = read_fields(raw)
    if sum(len(field) for _, field in fields) > MAX_HEADER:
        raise Unacceptable(f"its header is larger than {MAX_HEADER} octets")
    envelope = read_envelope(fields, folder.mode)
    mail = Mail.from_message(
        without_replayed(raw) if folder.mode is Mode.REPLAY else raw,
        sender=envelope.sender,
        to=envelope.recipients,
        return_path=envelope.return_path,
        dsn_notify=envelope.dsn_notify,
        dsn_ret=envelope.dsn_ret,
        dsn_envid=envelope.dsn_envid,
    )
    spoken = addresses_in(fields, "from", "sender", "resent-from", "resent-sender")
    for address in (envelope.sender, *(each.wire for each in spoken)):
        if not folder.admits(address):
            raise Unacceptable(f"{address} may not send through this folder")
    return mail


@contextmanager
def _alone(folder: Folder) -> Iterator[bool]:
    """Whether no other process scans it now."""
    work_of(folder).mkdir(mode=0o700, exist_ok=True)
    with (work_of(folder) / ".lock").open("ab") as held:
        yield lock(held)
