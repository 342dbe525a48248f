"""A scan of one pickup folder: what has ended goes to its place, what has come becomes mail.

    pickup/ ──take──► .work/ ──enter──► a row of outbox ─ ─ ─ delivered ─ ─ ─► sentmail/, or badmail/ with its reason
                        ▲ what a crash has left here and the database does not know is read again, under its own claim

A claim is unique in the database, and its mail is inserted in the same transaction: however often a file is read, it is
sent once. One process scans a folder at a time; what it finds in `.work` is nobody's else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
    has_header_end,
    read_envelope,
    sent_names,
    shown,
    without_replayed,
)
from outbox.core.raw import read_fields
from outbox.doors.pickup.archive import is_under_way, place
from outbox.doors.pickup.files import (
    Busy,
    Claimed,
    Content,
    Settling,
    Unacceptable,
    claimed_files,
    make_work,
    read,
    take,
    work_of,
)
from outbox.doors.pickup.ledger import ENDINGS, Ledger
from outbox.doors.pickup.reasons import Reason, Subject, explain, of_ending
from outbox.errors import DatabaseError
from outbox.filelock import lock
from outbox.mail import Mail, speakers

log = logging.getLogger("outbox.pickup")

READERS = 3
"""A file that has ended so many of its readers is bad."""


@dataclass(slots=True)
class Tally:
    """What a scan has done: files that became mail, became none, and have gone to their place. `trouble`: what could
    not be read or put away, and is tried again; the other files did not wait for it.
    """

    taken: int = 0
    refused: int = 0
    archived: int = 0
    trouble: OSError | None = field(default=None, compare=False)

    def add(self, later: Tally) -> None:
        """What another scan has done, too."""
        self.taken += later.taken
        self.refused += later.refused
        self.archived += later.archived
        self.trouble = later.trouble


class Intake:
    """Of one folder, scan after scan."""

    def __init__(self, folder: Folder, ledger: Ledger, clock: Clock) -> None:
        self.folder = folder
        self._ledger = ledger
        self._clock = clock
        self._settling = Settling(clock)
        self._known: set[str] = set()
        self._full = False

    @property
    def waiting(self) -> bool:
        """Whether there are files that have not settled yet."""
        return self._settling.waiting

    @property
    def more(self) -> bool:
        """Whether the last scan has left something for the next: a scan is no longer than a batch."""
        return self._full or self._settling.more

    def scan(self) -> Tally:
        """Raises OSError when the folder cannot be read or written, DatabaseError; then nothing is lost or sent twice.
        Does nothing while another process scans the folder.
        """
        tally = Tally()
        with alone(self.folder) as is_alone:
            if is_alone:
                endings = self._ledger.ended(self.folder.name)  # first: without the database, nothing is taken
                files = claimed_files(self.folder)
                self._put_all_away(endings, files, tally)
                for claimed in self._left(files):
                    self._read_again(claimed, tally)
                for name in self._settling.settled(self.folder):
                    self._take(name, tally)
        return tally

    def _put_all_away(self, endings: list[Ending], files: list[Claimed], tally: Tally) -> None:
        paths = {each.claim: each.path for each in files} if endings else {}
        done = 0
        for ending in endings:
            try:
                self._archive(ending, paths.get(ending.claim))
                done += 1
            except OSError as error:
                tally.trouble = error
        tally.archived = done
        self._full = done >= ENDINGS

    def _left(self, files: list[Claimed]) -> list[Claimed]:
        """What is in `.work` and the database knows nothing of: its reader died. What it knows once, it knows."""
        present = {each.claim for each in files}
        self._known &= present
        self._known |= self._ledger.known(sorted(present - self._known))
        return [each for each in files if each.claim not in self._known]

    def _read_again(self, claimed: Claimed, tally: Tally) -> None:
        if claimed.begun >= READERS:
            why = f"{claimed.begun} times the program ended while it read this file, so it is not read again"
            try:
                self._refuse(claimed, None, Reason("parse", why), tally)
            except OSError as error:
                tally.trouble = error
        else:
            self._enter(claimed.again(), tally)

    def _take(self, name: str, tally: Tally) -> None:
        try:
            taken = take(self.folder, name, self._clock)
        except Busy:
            self._settling.postpone(name)
            return
        except OSError as error:
            self._settling.leave(self.folder, name, error)
            return
        if taken is not None:
            self._enter(taken, tally)

    def _enter(self, claimed: Claimed, tally: Tally) -> None:
        """Make it a mail, or bad. Only a reader that dies leaves the count of its readers as it is."""
        try:
            self._read(claimed, tally)
        except OSError as error:
            tally.trouble = error
            _unread(claimed)
        except DatabaseError:
            _unread(claimed)
            raise

    def _read(self, claimed: Claimed, tally: Tally) -> None:
        content: Content | None = None
        try:
            content = read(self.folder, claimed)
            mail = mail_of(self.folder, content.raw)
            self._ledger.enter(self._taken(claimed, content), mail)
        except Unacceptable as unacceptable:
            self._refuse(claimed, content, Reason("policy", str(unacceptable)), tally)
            return
        except ValueError as error:  # InvalidMail among them
            self._refuse(claimed, content, Reason("parse", str(error)), tally)
            return
        self._known.add(claimed.claim)
        tally.taken += 1
        log.info("%s: took %s", self.folder.name, shown(claimed.name))
        if self.folder.archive is Archive.ON_INGEST:
            at = self._clock.now()
            self._ledger.archived(claimed.claim, self._put_away(claimed.path, claimed.name, claimed.claim, at))

    def _taken(self, claimed: Claimed, content: Content | None) -> Taken:
        name = shown(claimed.name)
        if content is None:
            return Taken(claimed.claim, self.folder.name, name)
        return Taken(claimed.claim, self.folder.name, name, len(content.raw), content.sha256, content.owner)

    # -- to their places

    def _refuse(self, claimed: Claimed, content: Content | None, reason: Reason, tally: Tally) -> None:
        """It becomes no mail. The moment in its name is that of the file, which a crash does not change."""
        written = datetime.fromtimestamp(min(max(claimed.path.lstat().st_mtime, 0), self._clock.now().timestamp()), UTC)
        name = shown(claimed.name)
        told = self._explain(claimed.claim, name, reason, written)
        target = told.with_name(told.name.removesuffix(".json"))
        self._ledger.condemn(self._taken(claimed, content), reason.why, str(target))
        self._known.add(claimed.claim)
        file = place(claimed.path, target.parent, chain([target.name], bad_names(name, written)), token=claimed.claim)
        self._ledger.done(claimed.claim, Result.BAD, reason.why, str(file))
        tally.refused += 1
        log.warning("%s: %s is bad: %s", self.folder.name, name, reason.why)

    def _go_on_refusing(self, ending: Ending, path: Path | None) -> None:
        """A crash has come between its row and its move."""
        target = Path(ending.file)
        path = self._whole(path, target.parent, ending.claim)
        if path is not None:
            names = chain([target.name], bad_names(ending.name, self._clock.now()))
            target = place(path, target.parent, names, token=ending.claim)
        self._ledger.done(ending.claim, Result.BAD, ending.refusal, str(target))

    def _archive(self, ending: Ending, path: Path | None) -> None:
        """Its mail has ended. `path` None: the file has gone to its place before."""
        if ending.refusal:
            self._go_on_refusing(ending, path)
            return
        reason, file, at = of_ending(ending), ending.file, ending.final_at or self._clock.now()
        if ending.result is not Result.BAD:
            file = self._put_away(path, ending.name, ending.claim, at) or file
        if ending.result is not Result.SENT:
            moved = self._whole(path, Path(self.folder.badmail), ending.claim) if ending.result is Result.BAD else None
            bad = self._put_to_the_bad(moved, ending, reason, at)
            file = str(bad) if ending.result is Result.BAD and not ending.file else file
        self._ledger.done(ending.claim, ending.result, reason.why, file)

    def _put_away(self, path: Path | None, name: str, claim: str, at: datetime) -> str:
        """To `sentmail`, if there is one. Where it is then; empty where it is nowhere, or had gone before."""
        if not self.folder.sentmail:
            if path is not None:
                path.unlink()
            return ""
        sentmail = Path(self.folder.sentmail)
        path = self._whole(path, sentmail, claim)
        if path is None:
            return ""
        return str(place(path, sentmail, sent_names(shown(name), at), token=claim))

    def _put_to_the_bad(self, path: Path | None, ending: Ending, reason: Reason, at: datetime) -> Path:
        """To `badmail`, the reason first, so that a crash between the two leaves no file without a reason. `path` None:
        the reason alone.
        """
        told = self._explain(ending.claim, ending.name, reason, at)
        target = told.with_name(told.name.removesuffix(".json"))
        if path is None:
            return target if target.exists() else told
        return place(path, target.parent, chain([target.name], bad_names(ending.name, at)), token=ending.claim)

    def _explain(self, claim: str, name: str, reason: Reason, at: datetime) -> Path:
        """Its reason file. `at` makes its name, so that after a crash it is the same again."""
        subject = Subject(claim, self.folder.name, name)
        return explain(Path(self.folder.badmail), bad_names(name, at), subject, reason, self._clock.now())

    def _whole(self, path: Path | None, target: Path, claim: str) -> Path | None:
        """The file to be moved to `target`: it may have gone half of its way there before a crash."""
        if path is None and is_under_way(target, claim):
            return work_of(self.folder) / claim
        return path


def mail_of(folder: Folder, raw: bytes) -> Mail:
    """What a file of this folder says. Raises ValueError (InvalidMail among them) and Unacceptable."""
    if not has_header_end(raw):
        raise ValueError("no empty line separates its header from its body")
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
    for address in speakers(mail):
        if not folder.admits(address):
            raise Unacceptable(f"{address} may not send through this folder")
    return mail


def _unread(claimed: Claimed) -> None:
    with suppress(OSError):  # it has gone to its place
        claimed.unread()


@contextmanager
def alone(folder: Folder) -> Iterator[bool]:
    """Whether no other process scans it now; nor does one as long as this lasts. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(make_work(folder) / ".lock", flags, 0o600), "wb") as held:
        yield lock(held)
