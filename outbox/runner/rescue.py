"""Results that could not be written to the database before the runner had to end.

A relay's 2xx that nobody recorded would become a second copy. So at shutdown what the clerk could not commit goes, one
JSON object a line, to a local file, synced before we exit; the next runner replays it. Replaying is safe any number of
times: settlements are fenced by their claim number.
"""

from __future__ import annotations

import glob
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply
from outbox.core.settlement import Fate, RecipientFate, Result, Settlement

log = logging.getLogger("outbox.rescue")

_BAD = ".bad"


def save(path: Path, settlements: Sequence[Settlement]) -> None:
    """Append them to `path` (mode 0600) and sync it."""
    if not settlements:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n")  # the last line of an earlier runner may be torn
        for each in settlements:
            file.write(json.dumps(_to_json(each), ensure_ascii=True) + "\n")
        file.flush()
        os.fsync(file.fileno())
    log.warning("%d results could not be written to the database; they wait in %s", len(settlements), path)


def take(path: Path, name: str) -> list[Settlement]:
    """What runners before us have left there; it is then ours alone, as ``path.name-1`` and so on, until `discard`.

    Also what others had taken in this way. If one of them was killed over it, nobody else would ever look; if it is
    still at it, both write the same. A line that cannot be read, torn by a crash or written by a newer version, is kept
    in ``path.bad``.
    """
    taken = [each for each in path.parent.glob(f"{glob.escape(path.name)}.*-*") if each.suffix != _BAD]
    settlements = []
    for number, left in enumerate([path, *sorted(taken)]):
        mine = path.with_name(f"{path.name}.{name}-{number}")
        try:
            left.rename(mine)
        except FileNotFoundError:
            continue
        for line in filter(None, mine.read_text(encoding="utf-8", errors="replace").splitlines()):
            try:
                settlements.append(_from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                _keep(path.with_name(path.name + _BAD), line, error)
    return settlements


def _keep(bad: Path, line: str, error: Exception) -> None:
    log.warning("a rescued result cannot be read, and is kept in %s: %s", bad, error)
    with bad.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def discard(path: Path, name: str) -> None:
    """What `take` gave us is in the database now."""
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
