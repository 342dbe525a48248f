"""Rescue files: who can read and write them, and whether results wait in them that nobody has taken back."""

from __future__ import annotations

import glob
import os
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result
from outbox.cli.checks.database import reachable

if TYPE_CHECKING:
    import peewee

    from outbox.cli.session import Session

_BAD = ".bad"


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """Every place where a runner would put results that the database does not take. Nothing where none is amiss."""
    from outbox.runner import rescue

    told: set[Path] = set()
    for place in rescue.places(session.config):
        if place.parent not in told:
            yield from _folder(place.parent)
        told.add(place.parent)
        for path in _left(place):
            yield from _modes(path)
            yield from _waiting(path)


def _left(place: Path) -> list[Path]:
    """The file, those that a runner had taken for itself, and those of other databases."""
    try:
        return sorted(each for each in place.parent.glob(f"{glob.escape(place.name)}*") if each.is_file())
    except OSError:  # not even its folder may be read, and no runner of this user will
        return []


def _folder(folder: Path) -> Iterator[Check]:
    """What is in a rescue file is believed: who may put one there could say of any mail that it was sent."""
    if sys.platform == "win32" or not folder.is_dir():
        return
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and reachable(folder):
        words = f"every user of this machine may write into {folder}, and what is in a rescue file is believed"
        yield Check("rescue", Result.WARN, words, f"chmod o-w {shlex.quote(str(folder))}")


def _modes(path: Path) -> Iterator[Check]:
    if sys.platform == "win32":
        return
    found = path.stat()
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        words = f"others may read or write {path}, which has addresses and results"
        yield Check("rescue", Result.WARN, words, f"chmod 600 {shlex.quote(str(path))}")
    owner = path.parent.stat().st_uid
    if found.st_uid != owner:
        words = f"{path} belongs to user {_name(found.st_uid)}, its folder to {_name(owner)}"
        hint = "is a runner of that user meant to take it back? else chown it; do not delete it"
        yield Check("rescue", Result.WARN, words, hint)


def _waiting(path: Path) -> Iterator[Check]:
    from outbox.cli.phrases import counted

    if not os.access(path, os.R_OK | os.W_OK):
        yield Check("rescue", Result.WARN, f"{path} may not be read and written", "run as the user of the runner")
        return
    count = sum(1 for line in path.read_bytes().splitlines() if line.strip())
    if not count:
        return
    if path.suffix == _BAD:
        words = f"{counted(count, 'result')} in {path} that no runner could read: of each, a mail may have been sent"
        yield Check("rescue", Result.WARN, words, "outbox show ID has what the database knows of it; then remove it")
    else:
        words = f"{counted(count, 'result')} in {path} that the database did not take"
        yield Check("rescue", Result.WARN, words, "the next runner that starts here writes them: do not delete it")


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container often has no entry for it
        return str(uid)
