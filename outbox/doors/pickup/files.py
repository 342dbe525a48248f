"""The files of a pickup folder: which have settled, taking one, and reading what was taken.

    pickup/order.eml ──rename──► pickup/.work/<claim>.1__order.eml

A rename is atomic, so of several who want a file one gets it; and in `.work`, which belongs to us alone, nobody can put
another in its place. The number counts how often somebody has begun to read it: a file that ends its readers is not
read for ever.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outbox.clock import Clock
from outbox.core.pickup import MAX_HEADER, Folder, has_header_end, is_finished, shortened, shown

log = logging.getLogger("outbox.pickup")

WORK = ".work"

BATCH = 100
"""Files taken in one scan."""

PATIENCE = 60.0
"""Seconds for which a file may be without the empty line behind its header: somebody may still be writing it."""

BUSY = 1.0
"""Seconds until a file is looked at again that somebody still writes."""

AGAIN_FIRST, AGAIN_LAST = 30.0, 3600.0
"""Seconds until a file that may not be read or moved is tried again: at first, and at most; twice as long each time."""

_SHARING_VIOLATION = 32
"""Windows: another program has it open."""

_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class Unacceptable(Exception):
    """A file that is not read at all. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A file in `.work`. `begun`: how often somebody has begun to read it, this time included."""

    path: Path
    claim: str
    begun: int
    name: str

    def again(self) -> Claimed:
        """Count one more reader. Raises OSError."""
        return self._counted(self.begun + 1)

    def unread(self) -> None:
        """Take back the count: its reader has not ended, it only could not. Raises OSError."""
        self._counted(self.begun - 1)

    def _counted(self, begun: int) -> Claimed:
        path = self.path.with_name(_work_name(self.claim, begun, self.name))
        self.path.rename(path)
        return Claimed(path, self.claim, begun, self.name)


@dataclass(frozen=True, slots=True)
class Content:
    """What a claimed file holds, and whose it was."""

    raw: bytes
    sha256: str
    owner: int | None


def work_of(folder: Folder) -> Path:
    return Path(folder.path) / WORK


def make_work(folder: Folder) -> Path:
    """Its `.work`, made if it is not there. Raises OSError where it is a link, or another user's: who may write into
    the folder could have put it there, and would then have our files.
    """
    work = work_of(folder)
    work.mkdir(mode=0o700, exist_ok=True)
    found = work.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory of its own", str(work))
    if sys.platform != "win32" and found.st_uid not in (os.geteuid(), os.stat(folder.path).st_uid):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(work))
    return work


def claimed_files(folder: Folder) -> list[Claimed]:
    """What is in `.work`."""
    found = []
    for entry in os.scandir(work_of(folder)):
        claim, dot, rest = entry.name.partition(".")
        number, separator, name = rest.partition("__")
        if claim and dot and separator and number.isdecimal():
            found.append(Claimed(Path(entry.path), claim, int(number), name))
    return sorted(found, key=lambda each: each.path)


class Busy(Exception):
    """A file that somebody still writes: it is looked at again."""


def take(folder: Folder, name: str, clock: Clock) -> Claimed | None:
    """Make a file of the folder ours; None where somebody else was faster. Raises Busy; OSError where it may not be
    read or moved: then it is left, and not sent, or it would be sent again and again.
    """
    source = Path(folder.path) / name
    claim = clock.token()
    path = work_of(folder) / _work_name(claim, 1, name)
    try:
        if _is_begun(source, clock):
            raise Busy
        source.rename(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if getattr(error, "winerror", 0) == _SHARING_VIOLATION:
            raise Busy from None
        raise
    return Claimed(path, claim, 1, name)


def _is_begun(path: Path, clock: Clock) -> bool:
    """Whether its header has not come to its end, and somebody may still be writing it. What is no file is taken, to be
    refused.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with os.fdopen(os.open(path, _READ), "rb") as opened:
        if has_header_end(opened.read(2 * MAX_HEADER)):
            return False
        found = os.fstat(opened.fileno())
        is_longer = found.st_size > 2 * MAX_HEADER
        return not is_longer and clock.now().timestamp() - found.st_mtime < PATIENCE


def read(folder: Folder, claimed: Claimed) -> Content:
    """The whole of it. Raises Unacceptable for what is no plain file of one name, or too large; OSError."""
    _check(os.lstat(claimed.path), folder)
    descriptor = os.open(claimed.path, _READ)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(opened.fileno())
        _check(found, folder)
        raw = opened.read(folder.max_bytes + 1)
    if len(raw) > folder.max_bytes:
        raise Unacceptable(_too_large(folder))
    owner = None if sys.platform == "win32" else found.st_uid
    return Content(raw, hashlib.sha256(raw).hexdigest(), owner)


def _check(found: os.stat_result, folder: Folder) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise Unacceptable("it is a symbolic link: what it points to is not read")
    if not stat.S_ISREG(found.st_mode):
        raise Unacceptable("it is not a regular file")
    if found.st_nlink > 1:
        raise Unacceptable("it has other names elsewhere (hard links), so it may be anybody's file")
    if found.st_size > folder.max_bytes:
        raise Unacceptable(_too_large(folder))


def _too_large(folder: Folder) -> str:
    return f"it is larger than {folder.max_bytes} octets, which is the limit of this folder"


def _work_name(claim: str, begun: int, name: str) -> str:
    return f"{claim}.{begun}__{shortened(name)}"


class Settling:
    """Which files nobody writes any more: those whose size and time have been the same for `settle`, in two looks at
    least. One for each folder; it remembers between looks.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[int, int, float]] = {}
        self._left: dict[str, tuple[float, float]] = {}
        self._unknown: set[str] = set()
        self.waiting = False
        """Whether there is something that has not settled yet."""
        self.more = False
        """Whether there was more than a batch."""

    def settled(self, folder: Folder) -> list[str]:
        """The names of those that may be taken now, oldest first, at most a batch. Raises OSError."""
        now, settle = self._clock.monotonic(), folder.settle.total_seconds()
        ready: list[tuple[int, str]] = []
        seen: dict[str, tuple[int, int, float]] = {}
        left: dict[str, tuple[float, float]] = {}
        self.waiting = False
        for entry, found in self._candidates(folder):
            if entry.name in self._left:
                left[entry.name] = self._left[entry.name]
                if now < left[entry.name][0]:
                    continue
            if stat.S_ISREG(found.st_mode):  # a link or a pipe does not grow: it is refused
                if found.st_size == 0:
                    continue  # somebody has only just made it
                size, changed, since = self._seen.get(entry.name, (-1, 0, now))
                if (size, changed) != (found.st_size, found.st_mtime_ns):
                    since = now
                seen[entry.name] = (found.st_size, found.st_mtime_ns, since)
                if now - since < settle:
                    self.waiting = True
                    continue
            ready.append((found.st_mtime_ns, entry.name))
        self._seen, self._left = seen, left
        self.more = len(ready) > BATCH
        return [name for _, name in sorted(ready)[:BATCH]]

    def postpone(self, name: str) -> None:
        """Somebody still writes it: not now."""
        self._left[name] = (self._clock.monotonic() + BUSY, 0.0)

    def leave(self, folder: Folder, name: str, error: OSError) -> None:
        """It may not be read or moved. Said once; then it is tried more and more rarely, and others are not kept up."""
        pause = self._left[name][1] if name in self._left else 0.0
        if not pause:
            log.warning("%s: %s cannot be taken, and is left: %s", folder.name, shown(name), error.strerror)
        pause = min(max(AGAIN_FIRST, 2 * pause), AGAIN_LAST)
        self._left[name] = (self._clock.monotonic() + pause, pause)

    def _candidates(self, folder: Folder) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                if not folder.takes(entry.name):
                    self._wonder(folder, entry)
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISDIR(found.st_mode):
                    yield entry, found

    def _wonder(self, folder: Folder, entry: os.DirEntry[str]) -> None:
        """Say once of each kind of file that it is not taken."""
        kind = Path(entry.name).suffix.lower()
        if is_finished(entry.name) and kind not in self._unknown and entry.is_file(follow_symlinks=False):
            self._unknown.add(kind)
            note = "%s: %s is left where it is: this folder takes *.eml only (mode mqd: all)"
            log.warning(note, folder.name, shown(entry.name))
