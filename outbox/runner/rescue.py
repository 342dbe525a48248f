"""Results that could not be written to the database before the runner had to end.

A relay's 2xx that nobody recorded would become a second copy. So at shutdown what the clerk could not commit goes, one
JSON object a line, to a local file, synced before we exit; the next runner replays it. Replaying is safe any number of
times: settlements are fenced by their claim number, and every line names the database that it is for.

There is more than one place, for the first may be on the disk that is full, or closed to us.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply
from outbox.core.settlement import Fate, RecipientFate, Result, Settlement
from outbox.store.database import dialect_of, sqlite_path

if TYPE_CHECKING:
    from outbox.config import Config

log = logging.getLogger("outbox.rescue")

NAME = "outbox.rescue"
_BAD = ".bad"
_DATABASE = "database"


def places(config: Config) -> tuple[Path, ...]:
    """Beside the SQLite database, else beside the configuration; then where programs keep their state. On local disk,
    and the same at the next start.
    """
    found = []
    if dialect_of(config.database) == "sqlite":
        found.append(Path(sqlite_path(config.database) + ".rescue").absolute())
    elif config.file is not None:
        found.append(config.file.absolute().parent / NAME)
    return (*found, _state_folder() / NAME)


def _state_folder() -> Path:
    """systemd's StateDirectory=, else the user's: ``$XDG_STATE_HOME/outbox``, ``~/.local/state/outbox``, on Windows
    ``%LOCALAPPDATA%\\outbox``.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    home = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    if home:
        return Path(home, "outbox")
    try:
        return Path.home() / ".local" / "state" / "outbox"
    except RuntimeError:  # a user without a home
        return Path.cwd()


def save(paths: Sequence[Path], settlements: Sequence[Settlement], database: str = "") -> None:
    """Append them to the first of `paths` that takes them (mode 0600), and sync it. Where none does, the log has them.
    `database`: the uuid of the one that they are for.
    """
    if not settlements:
        return
    lines = [json.dumps({_DATABASE: database, **_to_json(each)}, ensure_ascii=True) for each in settlements]
    for path in paths:
        try:
            _append(path, lines)
        except OSError as error:
            log.error("cannot keep results in %s: %s", path, error.strerror or error)
        else:
            log.warning("%d results could not be written to the database; they wait in %s", len(lines), path)
            return
    for line in lines:
        log.critical("this result is written nowhere; put the line into %s: %s", paths[0], line)


def _append(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = path.stat().st_size if path.exists() else 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            torn = ("",) if before else ()  # the last line of an earlier runner may be
            file.write("".join(f"{each}\n" for each in (*torn, *lines)))
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # half a line more would help nobody, and the whole of it goes elsewhere
        os.truncate(path, before)
        if not before:
            path.unlink()
        raise


def take(paths: Sequence[Path], name: str, database: str = "") -> list[Settlement]:
    """What runners before us have left there; it is then ours alone, as ``path.name-1`` and so on, until `discard`.

    Also what others had taken in this way. If one of them was killed over it, nobody else would ever look; if it is
    still at it, both write the same. A line that cannot be read, torn by a crash or written by a newer version, is kept
    in ``path.bad``; one that is for another database in ``path.UUID``, where a runner of that one finds it.
    """
    settlements = []
    for path in paths:
        for line in _lines_left(path, name, database):
            try:
                fields = json.loads(line)
                meant_for = fields.pop(_DATABASE, "")
                if meant_for in ("", database) or not database:
                    settlements.append(_from_json(fields))
                else:
                    log.warning("a rescued result is for another database, and is kept for it: %s", meant_for)
                    _append(_for_database(path, meant_for), [line])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("a rescued result cannot be read, and is kept in %s%s: %s", path, _BAD, error)
                _append(path.with_name(path.name + _BAD), [line])
    return settlements


def _lines_left(path: Path, name: str, database: str) -> list[str]:
    taken = [each for each in path.parent.glob(f"{glob.escape(path.name)}.*-*") if each.suffix != _BAD]
    ours = [_for_database(path, database)] if database else []
    lines: list[str] = []
    for number, left in enumerate([path, *ours, *sorted(taken)]):
        mine = path.with_name(f"{path.name}.{name}-{number}")
        try:
            left.rename(mine)
        except FileNotFoundError:
            continue
        except OSError as error:
            log.error("cannot take back the results in %s: %s", left, error.strerror or error)
            continue
        lines += filter(None, mine.read_text(encoding="utf-8", errors="replace").splitlines())
    return lines


def _for_database(path: Path, uuid: str) -> Path:
    return path.with_name(f"{path.name}.{uuid.replace('-', '')}")


def discard(paths: Sequence[Path], name: str) -> None:
    """What `take` gave us is in the database now."""
    for path in paths:
        for mine in path.parent.glob(f"{glob.escape(path.name)}.{name}-*"):
            mine.unlink(missing_ok=True)


def _to_json(settlement: Settlement) -> dict[str, Any]:
    # A pause, and what a probe has shown, belong to their moment; replayed hours later they would be wrong.
    fields = asdict(replace(settlement, pause=None, probed=None))
    for name in ("due_at", "dot_at"):
        if fields[name] is not None:
            fields[name] = fields[name].isoformat()
    for each in fields["fates"]:
        del each["outcome"]["delay"]  # it is in the due time
    return fields


def _from_json(fields: dict[str, Any]) -> Settlement:
    fields = dict(fields)
    for name in ("due_at", "dot_at"):
        if fields[name] is not None:
            fields[name] = datetime.fromisoformat(fields[name])
    fields["state"] = State(fields["state"])
    fields["result"] = Result(fields["result"])
    fields["stage"] = fields["stage"] and Stage(fields["stage"])
    fields["reply"] = fields["reply"] and Reply(**fields["reply"])
    fields["fates"] = tuple(_fate_from_json(each) for each in fields["fates"])
    return Settlement(**fields)


def _fate_from_json(fields: dict[str, Any]) -> RecipientFate:
    outcome = Outcome(Verdict(fields["outcome"]["verdict"]), Scope(fields["outcome"]["scope"]))
    reply = fields["reply"] and Reply(**fields["reply"])
    return RecipientFate(Recipient(**fields["recipient"]), Fate(fields["fate"]), reply, outcome, Stage(fields["stage"]))
