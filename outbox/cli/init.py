"""``outbox init``: from nothing to a database that mail can be put into.

Run again, it makes what is missing and changes nothing that is there. It works in the order tables, key, configuration,
so that a configuration that exists is one whose database and key did, too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outbox.cli import origin, output
from outbox.cli.session import Session, confirm, session_of
from outbox.errors import ConfigError, DatabaseError, Refused, VaultError

if TYPE_CHECKING:
    from outbox.config import Config
    from outbox.keys import Keys

app = typer.Typer()

DEFAULT_DATABASE = "sqlite:///outbox.db"
KEY_NAME = "outbox.key"


@app.command()
def init(
    ctx: typer.Context,
    database: Annotated[
        str, typer.Option("--database", metavar="URL", help=f"{DEFAULT_DATABASE}, postgresql://user@host/database")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make outbox.toml, outbox.key and the tables in the database: whatever of them is missing."""
    from outbox.config import FILE_NAME, FILE_VARIABLE
    from outbox.store.database import safe_url

    session = session_of(ctx)
    file = session.config_path or Path(os.environ.get(FILE_VARIABLE) or FILE_NAME)
    url, existing = _database(session, file, database, yes=yes)
    if sys.stdin.isatty() and existing is None and not (database or session.database_url):
        question = f"Make {file}, a key beside it, and the tables in {safe_url(url)}?"
        confirm(question, yes=yes, default=True, declined="nothing was made")
    found = _apply_schema(url, file, existing)
    key_file = _make_key(file, existing, found.sealed_with)
    if existing is None:
        from outbox.config import write_config

        write_config(file, database=url, key_file=key_file, database_uuid=found.uuid)
    _done("kept" if existing is not None else "made", origin.nearby(file))
    if existing is None:
        _warn_of_environment(url, file)
    _next_steps(found)


def _warn_of_environment(url: str, file: Path) -> None:
    """Left from elsewhere, the variable would send every further command to another database."""
    from outbox.config import anchor_url
    from outbox.store.database import safe_url

    other = os.environ.get(origin.VARIABLE, "")
    if other and not _same(anchor_url(other, Path.cwd()), anchor_url(url, file.absolute().parent)):
        output.note(f"warning: {origin.VARIABLE} is set, to {safe_url(other)}, and overrides {origin.nearby(file)}")
        output.note(f"hint: {origin.UNSET}")


def _next_steps(found: _Found) -> None:
    steps = []
    if not found.accounts:
        steps.append("outbox account add NAME --relay HOST:PORT --tls starttls --username USER")
    if not found.senders:
        steps.append(f"outbox sender add ADDRESS --account {'NAME' if len(found.accounts) != 1 else found.accounts[0]}")
    for place, step in enumerate([*steps, "outbox run"]):
        output.note(("next: " if place == 0 else "      ") + step)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database says of itself: its uuid, the keys that its secrets are sealed with, the names of its
    accounts, and how many senders it has.
    """

    uuid: str
    sealed_with: frozenset[str]
    accounts: tuple[str, ...]
    senders: int


def _database(session: Session, file: Path, option: str, *, yes: bool) -> tuple[str, Config | None]:
    """The URL to use, as it is written into `file`, and the configuration where `file` is there already."""
    from outbox.config import anchor_url, load

    given = option or session.database_url
    if not file.exists():
        given = given or os.environ.get("OUTBOX_DATABASE", "")
        if not given and not yes:
            if not sys.stdin.isatty():
                raise typer.BadParameter("which database? Give --database URL, or --yes for " + DEFAULT_DATABASE)
            given = str(typer.prompt("Database", default=DEFAULT_DATABASE, err=True))
        given = given or DEFAULT_DATABASE
        # What is relative to here is relative to the file only if the file is here.
        here = file.absolute().parent == Path.cwd()
        return given if here else anchor_url(given, Path.cwd()), None
    existing = load(file)
    if origin.from_environment(existing):
        output.note(f"warning: {origin.VARIABLE} is set, and overrides {origin.nearby(file)}")
        output.note(f"hint: {origin.UNSET}")
    if given and existing.database and not _same(anchor_url(given, Path.cwd()), existing.database):
        raise Refused(f"{file} names another database", hint=f"edit {file}, or remove it and run this again")
    url = existing.database or given
    if not url:
        raise ConfigError(f"{file} names no database", hint=f'write database = "{DEFAULT_DATABASE}" into it')
    return url, existing


def _same(one: str, other: str) -> bool:
    """Whether two URLs name one database, also where only one of them is written as a bare path."""
    from outbox.store.database import dialect_of, sqlite_path

    if one == other or not dialect_of(one) == dialect_of(other) == "sqlite":
        return one == other
    return Path(sqlite_path(one)).resolve() == Path(sqlite_path(other)).resolve()


def _apply_schema(url: str, file: Path, existing: Config | None) -> _Found:
    from outbox.config import anchor_url
    from outbox.store import accounts, sealed
    from outbox.store.database import connect
    from outbox.store.migrate import apply, status

    try:
        with _private():
            db = connect(anchor_url(url, file.absolute().parent))
    except DatabaseError as error:
        if existing is not None:
            raise origin.located(error, existing) from error
        if url == os.environ.get(origin.VARIABLE):
            raise DatabaseError(f"{error} (from {origin.VARIABLE})", hint=f"{error.hint}; or {origin.UNSET}") from error
        raise
    try:
        applied = apply(db)
        uuid = status(db).database_uuid or ""
        there = accounts.accounts(db)
        senders = len(accounts.senders(db))
        keys = frozenset(held.key_id for held in sealed.every(db))
    finally:
        db.close()
    another = origin.another_database(existing, uuid) if existing is not None else None
    if another is not None:
        raise another
    _done("made" if applied else "kept", f"the tables in {_shown(url)}")
    return _Found(uuid, keys, tuple(each.name for each in there), senders)


def _shown(url: str) -> str:
    from outbox.store.database import dialect_of, safe_url, sqlite_path

    return origin.nearby(sqlite_path(url)) if dialect_of(url) == "sqlite" else safe_url(url)


def _make_key(file: Path, existing: Config | None, sealed_with: frozenset[str]) -> str:
    """See to a key, and return what to write as `key_file`: empty where the key comes from elsewhere."""
    from outbox import keys

    variable = os.environ.get("OUTBOX_KEY_FILE")
    configured = existing.key_file if existing is not None else Path(variable).absolute() if variable else None
    try:
        loaded = keys.load(configured)
    except VaultError:
        if configured is not None and configured.exists():
            raise
    else:
        _done("kept", f"the key in {_place(loaded)}")
        return ""
    if existing is not None and configured is None:
        output.note(f'no key is configured: write key_file = "{KEY_NAME}" into {file}, then: outbox key generate')
        return ""
    path = configured or file.absolute().with_name(KEY_NAME)
    if path.exists():
        _done("kept", f"the key in {_place(keys.load(path))}")
    elif sealed_with:
        raise Refused(
            f"the database has passwords sealed with key {', '.join(sorted(sealed_with))}, and there is no {path}",
            hint="copy the key file from where they were sealed: a new key would not open them",
        )
    else:
        made = f"{origin.nearby(path)} with key {keys.create(path).id}"
        _done("made", f"{made}; keep it out of version control and of database backups")
    return "" if configured is not None else KEY_NAME


def _place(loaded: Keys) -> str:
    return origin.nearby(loaded.path) if loaded.path is not None else loaded.source


@contextmanager
def _private() -> Iterator[None]:
    """Files made inside are not for other users: a SQLite file holds people's mail. Its group may be given access."""
    before = os.umask(0o007)
    os.umask(before | 0o007)
    try:
        yield
    finally:
        os.umask(before)


def _done(verb: str, what: str) -> None:
    output.say(f"{verb}  {what}")
