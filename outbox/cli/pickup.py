"""``outbox pickup …``: folders in which programs drop their mail as files."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from outbox.cli import output
from outbox.cli.session import Session, session_of
from outbox.core.pickup import Archive, Folder, Mode
from outbox.core.units import format_duration, format_size, parse_duration, parse_size
from outbox.errors import OutboxError, Refused
from outbox.mail import MAX_CONTENT

if TYPE_CHECKING:
    from outbox.doors.pickup.ledger import Verb
    from outbox.store.opened import Database

app = typer.Typer(help="Folders in which programs drop their mail as files.", no_args_is_help=True)

T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name of your choice.")]
Known = Annotated[str, typer.Argument(metavar="NAME", help="The folder's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder; made if it is not there.")],
    badmail: Annotated[
        Path | None, typer.Option(help="Where what cannot be sent goes; else PATH's sibling badmail.")
    ] = None,
    sentmail: Annotated[Path | None, typer.Option(help="Where what was sent goes; else it is deleted.")] = None,
    mode: Annotated[Mode, typer.Option(help="pickup and replay: as IIS and Exchange; mqd: any name.")] = Mode.PICKUP,
    sender: Annotated[
        list[str] | None, typer.Option(help="May send through it: an address, *@domain; else all that are registered.")
    ] = None,
    poll: Annotated[str, typer.Option(metavar="DURATION", help="How often it is looked at.")] = "5s",
    settle: Annotated[str, typer.Option(metavar="DURATION", help="A file must have been unchanged so long.")] = "2s",
    max_size: Annotated[str, typer.Option(metavar="SIZE", help="The largest file.")] = "25 MiB",
    archive: Annotated[
        Archive, typer.Option(help="Move it to sentmail when its mail has ended, or at once.")
    ] = Archive.ON_OUTCOME,
    force: Annotated[bool, typer.Option("--force", help="Even if every user may write into it.")] = False,
) -> None:
    """Watch a folder. Every runner does from then on."""
    from outbox.cli.sender import registrable
    from outbox.store import pickup

    session = session_of(ctx)
    path = path.absolute()
    folder = Folder(
        _name(name),
        str(path),
        str((badmail or path.parent / "badmail").absolute()),
        str(sentmail.absolute()) if sentmail else "",
        mode,
        tuple(registrable(each, "--sender") for each in sender or ()),
        _duration(poll, "--poll", least=timedelta(milliseconds=100)),
        _duration(settle, "--settle", least=timedelta(0)),
        _size(max_size),
        archive,
    )
    _refuse_nested(folder)
    make(folder, force=force)
    with session.database() as db, db.atomic():
        pickup.add_folder(db, folder, session.act())
    output.say(f"watching {path}; what cannot be sent goes to {folder.badmail}")


@app.command("list")
def list_(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the folders, and how many files of each are being sent or were bad."""
    from outbox.store import pickup

    with session_of(ctx).database() as db:
        known = pickup.folders(db)
        counts = pickup.counts(db)
    if as_json:
        output.show_json([_facts(each, counts.get(each.name, {})) for each in known])
        return
    output.show_table(
        ("name", "mode", "senders", "poll", "under way", "bad", "path"),
        [
            (
                each.name,
                each.mode,
                ", ".join(each.senders) or "all registered",
                format_duration(each.poll),
                counts.get(each.name, {}).get("under way", 0),
                counts.get(each.name, {}).get("bad", 0),
                each.path,
            )
            for each in known
        ],
        empty="no folder is watched; outbox pickup add NAME PATH",
    )


@app.command()
def remove(ctx: typer.Context, name: Known) -> None:
    """Watch a folder no more. Its files, and the mail that was taken from it, stay."""
    from outbox.store import pickup

    session = session_of(ctx)
    with session.database() as db, db.atomic():
        left = pickup.remove_folder(db, name, session.act())
    output.say(f"not watching {name} any more")
    if left:
        output.note(f"{left} of its files are being sent; they stay in its .work")


@app.command()
def scan(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One folder; else all.")] = None,
) -> None:
    """Take what is in the folders now, once it has settled, and put away what has ended."""
    from outbox.doors.pickup.intake import Intake, Tally
    from outbox.doors.pickup.ledger import Ledger
    from outbox.store import pickup

    session = session_of(ctx)
    with session.database() as db:
        folders = [pickup.folder(db, name)] if name else pickup.folders(db)
        ledger = Ledger(_Direct(session, db))
        for folder in folders:
            intake = Intake(folder, ledger, session.clock)
            total, is_patient = Tally(), True
            while True:
                tally = _scanned(intake)
                total.add(tally)
                if intake.more:
                    continue
                if not (intake.waiting and is_patient):
                    break
                is_patient = False
                session.clock.sleep(folder.settle.total_seconds())
            output.say(f"{folder.name}: {total.taken} taken, {total.refused} bad, {total.archived} put away")
            if total.trouble is not None:
                raise _trouble(intake, total.trouble)


@app.command()
def resubmit(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="In badmail: a .bad file, or its .bad.json.")],
    only_failed: Annotated[bool, typer.Option("--only-failed", help="Not to those whom it has reached.")] = False,
) -> None:
    """Send a bad file once more."""
    from outbox.doors.pickup.again import resubmit as enter_again
    from outbox.doors.pickup.ledger import Ledger
    from outbox.store import pickup

    session = session_of(ctx)
    with session.database() as db:
        folder = _folder_of(pickup.folders(db), file.absolute())
        try:
            count = enter_again(
                folder,
                Ledger(_Direct(session, db)),
                file.absolute(),
                lambda message_id: pickup.message_of(db, message_id),
                session.clock,
                only_failed=only_failed,
            )
        except OSError as error:
            raise OutboxError(f"{error.filename or file}: {error.strerror}") from None
    output.say(f"{file.name} is sent once more" + (f", to {count} recipients" if count else ""))


class _Direct:
    """A command's own connection."""

    def __init__(self, session: Session, db: Database) -> None:
        self._session = session
        self._db = db

    def write(self, verb: Verb[T]) -> T:
        with self._db.atomic():
            return verb(self._db, self._session.clock.now())

    def read(self, verb: Callable[[Database], T]) -> T:
        return verb(self._db)


def _scanned(intake: Any) -> Any:
    try:
        return intake.scan()
    except OSError as error:
        raise _trouble(intake, error) from None


def _trouble(intake: Any, error: OSError) -> OutboxError:
    return OutboxError(f"{intake.folder.name}: {error.filename or intake.folder.path}: {error.strerror}")


def _folder_of(folders: list[Folder], file: Path) -> Folder:
    """The one whose badmail it is in."""
    for each in folders:
        with suppress(OSError):
            if Path(each.badmail).samefile(file.parent):
                return each
    raise Refused(f"{file} is not in the badmail of a pickup folder", hint="`outbox pickup list --json` shows them")


def _refuse_nested(folder: Folder) -> None:
    """A folder of ours must not be one that is watched."""
    for option, each in (("--badmail", folder.badmail), ("--sentmail", folder.sentmail)):
        if each and Path(each) == Path(folder.path):
            raise typer.BadParameter("must be another folder than PATH", param_hint=option)


def make(folder: Folder, *, force: bool) -> None:
    """Its directories, for this user alone where they are new. Raises Refused for one that everybody may write to."""
    for path in filter(None, (folder.path, folder.badmail, folder.sentmail)):
        try:
            Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = Path(path).stat().st_mode
        except OSError as error:
            raise OutboxError(f"cannot make {path}: {error.strerror}") from None
        if sys.platform != "win32" and mode & stat.S_IWOTH and not force:
            raise Refused(f"every user of this machine may write into {path}", hint=f"chmod o-w {path}, or say --force")
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise Refused(f"{path} may not be read and written", hint="run this as the user that the runner runs as")


def _name(name: str) -> str:
    if not (1 <= len(name) <= 100 and name.isprintable()):
        raise typer.BadParameter("a name is one line of 1 to 100 characters", param_hint="NAME")
    return name


def _duration(text: str, option: str, *, least: timedelta) -> timedelta:
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    if not least <= found <= timedelta(days=1):
        raise typer.BadParameter(f"it is {format_duration(least)} to 1d, not {text}", param_hint=option)
    return found


def _size(text: str) -> int:
    try:
        found = parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-size") from None
    if not 1 <= found <= MAX_CONTENT:
        raise typer.BadParameter(f"it is at most {format_size(MAX_CONTENT)}", param_hint="--max-size")
    return found


def _facts(folder: Folder, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "name": folder.name,
        "path": folder.path,
        "badmail": folder.badmail,
        "sentmail": folder.sentmail or None,
        "mode": folder.mode,
        "senders": list(folder.senders),
        "poll": format_duration(folder.poll),
        "settle": format_duration(folder.settle),
        "max_size": format_size(folder.max_bytes),
        "archive": folder.archive,
        "files": {"under_way": counts.get("under way", 0), "sent": counts.get("sent", 0), "bad": counts.get("bad", 0)},
    }
