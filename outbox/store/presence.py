"""How a runner on SQLite shows that it lives: an operating system's lock on a file beside the database."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from outbox.filelock import lock


class FilePresence:
    """Each runner holds an OS lock on ``<database>.runner-<id>``: whoever can take it knows that its owner is dead.

    The kernel lets go of the lock when the process ends, however it ends. A pid and a boot id would lie in containers.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._held: IO[bytes] | None = None
        self._path: Path | None = None

    def take(self, runner: str) -> None:
        """Hold the lock of this runner until `release` or the end of the process."""
        path = _lock_file(self._database, runner)
        held = path.open("ab")
        if not lock(held):
            held.close()  # and the file is not ours to delete
            raise RuntimeError(f"another process holds the lock of runner {runner}")
        self._path, self._held = path, held

    def sweep(self, dead: Iterable[str]) -> None:
        """Delete the lock files of runners that have been declared dead."""
        for runner in dead:
            with suppress(OSError):
                _lock_file(self._database, runner).unlink()

    def release(self, *, departed: bool = True) -> None:
        """Let go of the lock. `departed`: the database says that we have left. Else the file stays, free, for others to
        find us dead: without it they would have to wait for the end of our lease.
        """
        if self._held is not None and self._path is not None:
            if departed:
                _remove(self._path, self._held)
            else:
                self._held.close()
        self._held = self._path = None


def absent(database: Path, runners: Sequence[str]) -> list[str]:
    """Which of these runners are certainly dead. A missing file proves nothing: the lease decides then."""
    gone = []
    for runner in runners:
        path = _lock_file(database, runner)
        try:
            held = path.open("r+b")
        except OSError:
            continue
        with held:
            if lock(held):
                gone.append(runner)
    return gone


def _lock_file(database: Path, runner: str) -> Path:
    return database.with_name(f"{database.name}.runner-{runner}")


def _remove(path: Path, held: IO[bytes]) -> None:
    """Delete a lock file we hold. On POSIX before letting go of it; Windows cannot delete what is open."""
    if sys.platform == "win32":
        held.close()
    with suppress(OSError):
        path.unlink()
    held.close()
