"""Pickup folders: whether this user can read and write them, who else can, and what is left in them."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result

if TYPE_CHECKING:
    import peewee

    from outbox.cli.session import Session
    from outbox.core.pickup import Folder

LONG = timedelta(minutes=10)
"""A file that waits for so long is not just being written."""

LOOKED_AT = 1000
"""Files of a folder whose modes are looked at."""


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """Each folder, and what has come to its badmail."""
    from outbox.store import pickup

    told: set[str] = set()
    for folder in pickup.folders(db):
        found = [*_places(folder, session.config.sendmail.spool), *_waiting(folder, session.clock.now())]
        if folder.badmail not in told:
            found += _bad(folder)
        told.add(folder.badmail)
        yield from found or [Check("pickup", Result.OK, f"{folder.name}: {folder.path}")]


def _places(folder: Folder, spool: str) -> Iterator[Check]:
    """`spool` is a drop box for everybody where it is one nobody else can look into: docs/sendmail.md."""
    for path in filter(None, (folder.path, folder.badmail, folder.sentmail)):
        words = f"{folder.name}: {path}"
        if not Path(path).is_dir():
            yield Check("pickup", Result.FAIL, f"{words} is not there, or no folder", f"mkdir -p {shlex.quote(path)}")
        elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            yield Check("pickup", Result.FAIL, f"{words} may not be read and written", "run as the user of the runner")
        elif sys.platform != "win32" and _is_open(path, is_drop_box=path == folder.path == spool):
            hint = f"chmod o-w {shlex.quote(path)}"
            yield Check("pickup", Result.WARN, f"{words}: every user of this machine may write into it", hint)
        elif sys.platform != "win32":
            yield from _open_to_all(words, Path(path))


def _is_open(path: str, *, is_drop_box: bool) -> bool:
    mode = Path(path).stat().st_mode
    return bool(mode & stat.S_IWOTH) and (not is_drop_box or bool(mode & stat.S_IROTH))


def _open_to_all(words: str, path: Path) -> Iterator[Check]:
    """Mail that lies in it, and that every user of this machine can read."""
    from outbox.cli.checks.database import reachable
    from outbox.cli.phrases import counted

    mode = path.stat().st_mode
    if not mode & stat.S_IXOTH or not reachable(path):
        return
    with os.scandir(path) as entries:
        some = islice((each for each in entries if each.is_file(follow_symlinks=False)), LOOKED_AT)
        count = sum(bool(each.stat(follow_symlinks=False).st_mode & stat.S_IROTH) for each in some)
    if count:
        words = f"{words}: every user of this machine can read {counted(count, 'file')} of mail in it"
        yield Check("pickup", Result.WARN, words, f"chmod o-rx {shlex.quote(str(path))}")


def _waiting(folder: Folder, now: datetime) -> Iterator[Check]:
    from outbox.cli.phrases import counted, lasting

    before = now - max(LONG, 10 * folder.poll)
    old = [moment for moment in _moments(folder) if moment < before]
    if old:
        words = f"{folder.name}: {counted(len(old), 'file')} not taken, the oldest for {lasting(now - min(old))}"
        yield Check("pickup", Result.WARN, words, "is a runner running, and may it read them? Its log says why")


def _moments(folder: Folder) -> Iterator[datetime]:
    """When the files in it that are to be taken were written."""
    try:
        with os.scandir(folder.path) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if folder.takes(entry.name) and stat.S_ISREG(found.st_mode) and found.st_size:
                    yield datetime.fromtimestamp(min(max(found.st_mtime, 0), 2**32), UTC)
    except OSError:  # said already, or it has just been taken
        return


def _bad(folder: Folder) -> Iterator[Check]:
    from outbox.cli.phrases import counted

    try:
        count = sum(name.endswith(".json") for name in os.listdir(folder.badmail))
    except OSError:
        return
    if count:
        words = f"{folder.name}: {counted(count, 'file')} in {folder.badmail} that nobody has looked at"
        yield Check("pickup", Result.WARN, words, "each .json says why; outbox pickup resubmit FILE, or remove it")
