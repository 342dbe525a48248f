"""The files of a pickup folder: which have settled, taking one, and reading what was taken.

    pickup/order.eml ──rename──► pickup/.work/<claim>.1__order.eml

A rename is atomic, so of several who want a file one gets it; and in `.work`, which belongs to us alone, nobody can put
another in its place. The number counts how often somebody has begun to read it: a file that ends its readers is not
read for ever.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outbox.clock import Clock
from outbox.core.pickup import Folder, is_finished, shortened, shown

log = logging.getLogger("outbox.pickup")

WORK = ".work"

BATCH = 100
"""Files taken in one scan."""


class Unacceptable(Exception):
    """A file that is not read at all. `str()` says why."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A file in `.work`. `begun`: how often it has been read, this time included."""

    path: Path
    claim: str
    begun: int
    name: str

    def again(self) -> Claimed:
        """Count one more reader. Raises OSError."""
        path = self.path.with_name(_work_name(self.claim, self.begun + 1, self.name))
        self.path.rename(path)
        return Claimed(path, self.claim, self.begun + 1, self.name)


@dataclass(frozen=True, slots=True)
class Content:
    """What a claimed file holds, and whose it was."""

    raw: bytes
    sha256: str
    owner: int | None


def work_of(folder: Folder) -> Path:
    return Path(folder.path) / WORK


def claimed_files(folder: Folder) -> list[Claimed]:
    """What is in `.work`."""
    found = []
    for entry in os.scandir(work_of(folder)):
        claim, dot, rest = entry.name.partition(".")
        number, separator, name = rest.partition("__")
        if dot and separator and number.isdecimal():
            found.append(Claimed(Path(entry.path), claim, int(number), name))
    return sorted(found, key=lambda each: each.path)


def take(folder: Folder, name: str, clock: Clock) -> Claimed | None:
    """Make a file of the folder ours; None where somebody else was faster, or still has it open (Windows), or it may
    not be moved: then it is not sent, or it would be sent again and again.
    """
    claim = clock.token()
    path = work_of(folder) / _work_name(claim, 1, name)
    try:
        (Path(folder.path) / name).rename(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s: %s cannot be taken, and is left: %s", folder.name, shown(name), error.strerror)
        return None
    return Claimed(path, claim, 1, name)


def read(folder: Folder, claimed: Claimed) -> Content:
    """The whole of it. Raises Unacceptable for what is no plain file of one name, or too large; OSError."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    _check(os.lstat(claimed.path), folder)
    descriptor = os.open(claimed.path, flags)
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
        self._unknown: set[str] = set()

    def settled(self, folder: Folder) -> list[str]:
        """The names of those that may be taken now, oldest first, at most a batch. Raises OSError."""
        now, settle = self._clock.monotonic(), folder.settle.total_seconds()
        ready: list[tuple[int, str]] = []
        seen: dict[str, tuple[int, int, float]] = {}
        for entry, found in self._candidates(folder):
            if not stat.S_ISREG(found.st_mode):
                ready.append((found.st_mtime_ns, entry.name))  # a link or a pipe does not grow: it is refused
                continue
            if found.st_size == 0:
                continue  # somebody has only just made it
            size, changed, since = self._seen.get(entry.name, (-1, 0, now))
            if (size, changed) != (found.st_size, found.st_mtime_ns):
                since = now
            seen[entry.name] = (found.st_size, found.st_mtime_ns, since)
            if now - since >= settle:
                ready.append((found.st_mtime_ns, entry.name))
        self._seen = seen
        return [name for _, name in sorted(ready)[:BATCH]]

    @property
    def waiting(self) -> bool:
        """Whether there is something that has not settled yet."""
        return bool(self._seen)

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
