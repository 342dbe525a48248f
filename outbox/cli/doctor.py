"""``outbox doctor``: is everything as it should be, and what to do where it is not.

Checks go from the outside in: configuration, key, database, schema, and then what is in it. One that cannot be made
because an earlier one failed is left out. It changes nothing, sends nothing and shows no secret.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import origin, output
from outbox.cli.session import Session, session_of
from outbox.errors import DatabaseError, OutboxError

if TYPE_CHECKING:
    from datetime import datetime

    import peewee

    from outbox.core.account import Account
    from outbox.store.migrate import SchemaStatus

app = typer.Typer()

_SKEW = timedelta(seconds=5)
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "lustre"})


class Result(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Good to know; nothing has to be done now."""
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do next where it is not well."""

    check: str
    result: Result
    words: str
    hint: str = ""


@app.command()
def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check configuration, key, database, accounts, runners and the queue; say what to do. Ends with 1 on a failure."""
    checks = list(examine(session_of(ctx)))
    failures = sum(check.result is Result.FAIL for check in checks)
    warnings = sum(check.result is Result.WARN for check in checks)
    if as_json:
        output.show_json({"ok": not failures, "failures": failures, "warnings": warnings, "checks": checks})
    else:
        _draw(checks, failures, warnings)
    if failures:
        raise typer.Exit(1)


def examine(session: Session) -> Iterator[Check]:
    """All the checks, in order."""
    try:
        config = session.config
    except OutboxError as error:
        yield _failed("configuration", error)
        return
    where = f"database from {origin.source(config)}" if config.database else "no database in it"
    yield Check("configuration", Result.OK, f"{config.file or 'no file'}; {where}")
    if not config.database:
        yield _failed("database", origin.none_configured(config))
        return
    from outbox.store.database import connect
    from outbox.store.opened import refusals

    try:
        db = connect(config.database, create=False)
    except DatabaseError as error:
        yield _failed("database", origin.located(error, config, session.database_url))
        return
    try:
        with refusals():
            yield from _examine_database(session, db)
    except DatabaseError as error:
        yield _failed("database", error)
    finally:
        db.close()


def _examine_database(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.store import migrate
    from outbox.store.database import dialect

    yield from _sqlite(session, db) if dialect(db) == "sqlite" else _postgres(session, db)
    try:
        migrate.check(db)
    except DatabaseError as error:
        yield _failed("schema", origin.located(error, session.config, session.database_url))
        return
    yield from _identity(session, migrate.status(db))
    for examination in (_accounts, _senders, _runners, _queue):
        yield from examination(session, db)


def _failed(name: str, error: OutboxError) -> Check:
    return Check(name, Result.FAIL, str(error), error.hint)


# -- the database


def _sqlite(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.core.units import format_size
    from outbox.store import health
    from outbox.store.database import sqlite_path

    path = Path(sqlite_path(session.config.database))
    size = format_size(path.stat().st_size) if path.exists() else "in memory"
    yield Check("database", Result.OK, f"{health.engine(db)}, {path}, {size}")
    mode = health.journal_mode(db)
    if mode != "wal":
        hint = "sqlite3 FILE 'PRAGMA journal_mode = wal'; a network file system cannot have it"
        yield Check("journal", Result.FAIL, f"the journal mode is {mode}, not WAL: writers and readers block", hint)
    elif health.has_wal_reset_bug():
        words = f"WAL, but {health.engine(db)} has the WAL-reset bug: two connections can, rarely, damage the file"
        yield Check(
            "journal",
            Result.NOTE,
            words,
            "SQLite 3.51.3 or later has it no more: docs/operate.md#sqlites-wal-reset-bug",
        )
    else:
        yield Check("journal", Result.OK, "WAL")
    if path.exists():
        yield from _file(session, path)


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


def _identity(session: Session, status: SchemaStatus) -> Iterator[Check]:
    another = origin.another_database(session.config, status.database_uuid)
    if another is not None:
        yield _failed("schema", another)
    else:
        yield Check("schema", Result.OK, f"version {status.version}")


# -- what is in it


def _accounts(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.phrases import counted
    from outbox.store import accounts, audit

    found = accounts.accounts(db)
    sealed = [account for account in found if account.secret is not None]
    yield from _key(session, sealed)
    now = audit.now(db)
    for account in found:
        if account.is_paused(now):
            refused = account.pause_reason.startswith("auth: ")  # what a runner met, not what a person asked for
            remedy = "set-password" if refused else "resume"
            yield Check("account", Result.WARN, account.blocked(now), f"outbox account {remedy} {account.name}")
    yield from _relays(found, now)
    if found:
        words = f"{counted(len(found), 'account')}, {len(sealed)} with a password"
        yield Check("account", Result.OK, words)
    else:
        hint = "outbox account add NAME --relay HOST:PORT --tls starttls --username NAME"
        yield Check("account", Result.WARN, "there is no account, so nothing can be sent", hint)


def _relays(found: Sequence[Account], now: datetime) -> Iterator[Check]:
    """Relays that did not answer the last time; each once, however many accounts use it."""
    failing = {account.relay: account for account in found if account.breaker_failures}
    for relay, account in failing.items():
        times = (
            f"the last {account.breaker_failures:,} attempts" if account.breaker_failures > 1 else "the last attempt"
        )
        words = f"relay {relay}: {times} failed: {account.breaker_reason}"
        yield Check("relay", Result.WARN, words, f"outbox account test {account.name}")


def _key(session: Session, sealed: Sequence[Account]) -> Iterator[Check]:
    """The key is there, and opens every password. Its file's mode is checked by reading it."""
    try:
        vault = session.vault
    except OutboxError as error:
        if sealed:
            yield _failed("key", error)
        else:
            yield Check("key", Result.WARN, f"{error} (no account has a password yet)", error.hint)
        return
    unopened = 0
    for account in sealed:
        try:
            vault.open_account(account)
        except OutboxError as error:
            unopened += 1
            yield _failed("key", error)
    if not unopened:
        opens = f"; opens {len(sealed)} of {len(sealed)} passwords" if sealed else ""
        words = f"{', '.join(vault.keys.ids)} from {vault.keys.source}{opens}{_beside(session, vault.keys.path)}"
        yield Check("key", Result.OK, words)


def _beside(session: Session, key_file: Path | None) -> str:
    """A word of warning where one copied directory holds both the key and what it opens."""
    from outbox.store.database import dialect_of, sqlite_path

    url = session.config.database
    if key_file is None or dialect_of(url) != "sqlite" or Path(sqlite_path(url)).resolve().parent != key_file.parent:
        return ""
    return "; beside the database: keep their backups apart"


def _senders(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.phrases import counted
    from outbox.store import accounts, health

    registered = accounts.senders(db)
    blocked = health.blocked(db)
    for lane in blocked[:_LISTED]:
        words = f"{counted(lane.waiting, 'message')} from {lane.sender} cannot go: {lane.reason or 'not registered'}"
        hint = "" if lane.reason else f"outbox sender add {lane.sender} --account NAME; otherwise they will fail"
        yield Check("sender", Result.WARN, words, hint)
    if len(blocked) > _LISTED:
        yield Check("sender", Result.WARN, f"and {len(blocked) - _LISTED:,} more senders", "outbox stats --by sender")
    if registered:
        yield Check("sender", Result.OK, counted(len(registered), "registration"))
    else:
        hint = "outbox sender add ADDRESS --account NAME"
        yield Check("sender", Result.WARN, "no address is registered, so all mail will fail", hint)


def _runners(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.phrases import lasting
    from outbox.store import audit, health

    now = audit.now(db)
    alive = False
    found = health.runners(db)
    absent = health.absent(session.config.database, session.clock, [each.id for each in found if each.alive])
    for runner in found:
        who = f"{runner.id[:8]} on {runner.host}, pid {runner.pid}, version {runner.version}"
        if runner.id in absent:
            words = f"{who} is dead: it was killed, or its host went down"
            yield Check("runner", Result.WARN, words, "outbox run: any other runner takes its mail back")
        elif runner.alive:
            alive = True
            yield Check("runner", Result.OK, f"{who}, for {lasting(now - runner.started_at)}")
        else:
            words = f"{who} has not renewed its lease for {lasting(now - runner.lease_until)}: it hangs, or is dead"
            yield Check("runner", Result.WARN, words, "any other runner takes its mail back")
    if not alive:
        due = health.queue(db).due
        words = f"no runner is running, and {due:,} due" if due else "no runner is running"
        yield Check("runner", Result.FAIL if due else Result.WARN, words, "outbox run")


def _queue(session: Session, db: peewee.Database) -> Iterator[Check]:
    from outbox.cli.phrases import counted, lasting
    from outbox.store import audit, health

    queue = health.queue(db)
    if queue.stuck:
        more = f" and {queue.stuck - len(queue.stuck_ids):,} more" if queue.stuck > len(queue.stuck_ids) else ""
        ids = ", ".join(str(each) for each in queue.stuck_ids)
        verb = "is" if queue.stuck == 1 else "are"
        words = f"{counted(queue.stuck, 'message')} should be moving and {verb} not: {ids}{more}"
        yield Check("queue", Result.WARN, words, f"outbox show {queue.stuck_ids[0]}; the view outbox_stuck has all")
    if queue.in_doubt:
        words = f"{counted(queue.in_doubt, 'message')} held in doubt: only a person can say what became of them"
        yield Check("queue", Result.WARN, words, "outbox list --state held, then outbox resolve")
    if queue.far:
        words = f"{counted(queue.far, 'message')} due in more than {health.FAR.days} days: meant to be?"
        yield Check("queue", Result.WARN, words, "outbox list --state scheduled")
    oldest = f", the oldest for {lasting(audit.now(db) - queue.oldest_due_at)}" if queue.oldest_due_at else ""
    yield Check("queue", Result.OK, f"{queue.due:,} due{oldest}; {queue.held:,} held")


_LISTED = 5
"""Senders that are listed one by one."""


def _draw(checks: Sequence[Check], failures: int, warnings: int) -> None:
    from outbox.cli.phrases import STYLES, counted, print_hanging, print_line

    width = max(len(check.check) for check in checks)
    for check in checks:
        result = (f"{check.result:<4}  ", STYLES[check.result])
        print_hanging([result, (f"{check.check:<{width}}  ", "bold")], check.words)
        if check.hint:
            print_hanging([(" " * (6 + width), ""), ("→ ", "bright_black")], check.hint, "bright_black")
    print_line()
    if failures:
        print_line((f"{counted(failures, 'failure')}, {counted(warnings, 'warning')}", "bold red"))
    elif warnings:
        print_line((f"works, with {counted(warnings, 'warning')}", "yellow"))
    else:
        print_line(("all is well", "green"))
