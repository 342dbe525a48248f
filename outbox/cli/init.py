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

from outbox.cli import output
from outbox.cli.session import Session, confirm, session_of
from outbox.errors import ConfigError, Refused, VaultError

if TYPE_CHECKING:
    from outbox.config import Config

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
    if sys.stdin.isatty() and existing is None:
        confirm(f"Make {file}, a key beside it, and the tables in {safe_url(url)}?", yes=yes)
    found = _apply_schema(url, file, existing)
    key_file = _make_key(file, existing, found.sealed_with)
    if existing is None:
        from outbox.config import write_config

        write_config(file, database=url, key_file=key_file, database_uuid=found.uuid)
    _done("kept" if existing is not None else "made", str(file))
    output.note("next: outbox account add NAME --relay HOST:PORT --tls starttls --username USER")
    output.note("      outbox sender add ADDRESS --account NAME")
    output.note("      outbox run")


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database says of itself: its uuid, and the keys that its passwords are sealed with."""

    uuid: str
    sealed_with: frozenset[str]


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
    if given and existing.database and anchor_url(given, Path.cwd()) != existing.database:
        raise Refused(f"{file} names another database", hint=f"edit {file}, or remove it and run this again")
    url = existing.database or given
    if not url:
        raise ConfigError(f"{file} names no database", hint=f'write database = "{DEFAULT_DATABASE}" into it')
    return url, existing


def _apply_schema(url: str, file: Path, existing: Config | None) -> _Found:
    from outbox.config import anchor_url
    from outbox.store import accounts
    from outbox.store.database import connect, safe_url
    from outbox.store.migrate import apply, status

    with _private():
        db = connect(anchor_url(url, file.absolute().parent))
    try:
        applied = apply(db)
        uuid = status(db).database_uuid or ""
        sealed = frozenset(each.key_id for each in accounts.accounts(db) if each.secret)
    finally:
        db.close()
    if existing is not None and existing.database_uuid not in ("", uuid):
        raise ConfigError(
            f"{file} is for the database {existing.database_uuid}, and {safe_url(url)} is {uuid}",
            hint="is it a copy? If it may send mail, write its id into database_uuid",
        )
    _done("made" if applied else "kept", f"the tables in {safe_url(url)}")
    return _Found(uuid, sealed)


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
        _done("kept", f"the key in {loaded.source}")
        return ""
    if existing is not None and configured is None:
        output.note(f'no key is configured: write key_file = "{KEY_NAME}" into {file}, then: outbox key generate')
        return ""
    path = configured or file.absolute().with_name(KEY_NAME)
    if path.exists():
        _done("kept", f"the key in {keys.load(path).source}")
    elif sealed_with:
        raise Refused(
            f"the database has passwords sealed with key {', '.join(sorted(sealed_with))}, and there is no {path}",
            hint="copy the key file from where they were sealed: a new key would not open them",
        )
    else:
        _done("made", f"{path} with key {keys.create(path).id}; keep it out of version control and of database backups")
    return "" if configured is not None else KEY_NAME


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
