"""The database itself: its engine, its files, whether it keeps what it has committed, and its clock."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from outbox.cli.checks import Check, Result

if TYPE_CHECKING:
    import peewee

    from outbox.cli.session import Session

_SKEW = timedelta(seconds=5)
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "lustre"})


def examine(session: Session, db: peewee.Database) -> Iterator[Check]:
    """Before its tables are looked at."""
    from outbox.store.database import dialect

    yield from _sqlite(session, db) if dialect(db) == "sqlite" else _postgres(session, db)


def _sqlite(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.core.units import format_size
    from outbox.store import engine, health
    from outbox.store.database import sqlite_path

    path = Path(sqlite_path(session.config.database))
    size = format_size(path.stat().st_size) if path.exists() else "in memory"
    yield Check("database", Result.OK, f"{health.engine(db)}, {path}, {size}")
    mode = health.journal_mode(db)
    if mode != "wal":
        hint = "sqlite3 FILE 'PRAGMA journal_mode = wal'; a network file system cannot have it"
        yield Check("journal", Result.FAIL, f"the journal mode is {mode}, not WAL: writers and readers block", hint)
    elif engine.has_wal_reset_bug():
        yield Check("journal", Result.WARN, f"WAL, but {engine.WAL_RESET_BUG}", engine.REMEDY)
    else:
        yield Check("journal", Result.OK, "WAL")
    if path.exists():
        yield from _storage(db, str(path))
        yield from _file(session, path)


def _storage(db: peewee.Database, path: str) -> Iterator[Check]:
    """What keeps runners and applications from writing, or soon will. Nothing where nothing does."""
    from outbox.store import health
    from outbox.store.identity import LOG_TOO_LARGE

    reason = health.unwritable(db)
    if "locked" in reason:
        words = "another program has kept the database locked for seconds: nothing is enqueued or sent meanwhile"
        yield Check("storage", Result.FAIL, words, "end that program's transaction; fuser FILE says who has it open")
    elif reason:
        yield Check(
            "storage", Result.FAIL, f"nobody can write to the database: {reason}", "outbox run goes on by itself"
        )
    size = health.log_size(path)
    if size >= LOG_TOO_LARGE:
        words = f"the write-ahead log has {size >> 20:,} MiB: some program keeps an old read transaction open"
        yield Check("storage", Result.WARN, words, "end it, and the log begins anew; fuser FILE says who has it open")
    free = health.free_space(path)
    if free < health.LITTLE_SPACE:
        words = f"{free >> 20} MiB are free where the database is: when it is full, nothing is enqueued or sent"
        yield Check("storage", Result.FAIL, words, "make room; runners go on by themselves")


def _file(session: Session, path: Path) -> Iterator[Check]:
    kind = file_system(path)
    if kind in _NETWORK:
        words = f"{path} is on a network file system ({kind}), whose locks SQLite cannot trust"
        yield Check("files", Result.FAIL, words, "move it to a local disk, or use PostgreSQL")
        return
    if sys.platform == "win32":
        return
    beside = [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
    open_to_all = [each for each in beside if each.exists() and each.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH)]
    if open_to_all and reachable(path):
        names = ", ".join(each.name for each in open_to_all)
        hint = f"chmod o-rw {' '.join(str(each) for each in open_to_all)}"
        yield Check("files", Result.WARN, f"every user of this machine can read all mail: {names}", hint)
    else:
        yield Check("files", Result.OK, f"{path.name} is closed to other users")


def reachable(path: Path) -> bool:
    """Whether every user may pass through all the directories above a file."""
    return all(each.stat().st_mode & stat.S_IXOTH for each in path.resolve().parents)


def file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of file system a file is on, ``ext4`` or ``nfs4``; "" where that cannot be told (not Linux)."""
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return ""
    real = path.resolve()
    found = [(len(line[1]), line[2]) for line in lines if len(line) > 2 and real.is_relative_to(_unescaped(line[1]))]
    return max(found, default=(0, ""))[1]


def _unescaped(mount: str) -> str:
    return mount.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _postgres(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.store import health
    from outbox.store.database import safe_url

    words = f"{health.engine(db)}, {safe_url(session.config.database)}"
    yield Check("database", Result.OK, words)
    forgetful = health.forgetful(db)
    if forgetful:
        words = f"{' and '.join(forgetful)}: a crash of the server can lose mail that was committed"
        yield Check("durability", Result.WARN, words, "turn it on for this database")
    skew = health.skew(db, session.clock.now())
    seconds = f"{abs(skew.total_seconds()):.1f} s {'ahead of' if skew > timedelta(0) else 'behind'} the database's"
    if abs(skew) > _SKEW:
        yield Check("clock", Result.WARN, f"this host's clock is {seconds}", "synchronise both with NTP")
    else:
        yield Check("clock", Result.OK, f"this host's clock is {seconds}")
