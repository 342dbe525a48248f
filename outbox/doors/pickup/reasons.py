"""The file beside a bad one that says to people and programs what is wrong with it, and what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from outbox.core.pickup import Addressee, Ending, Result
from outbox.doors.pickup.archive import write_new


@dataclass(frozen=True, slots=True)
class Reason:
    """`stage`: parse (it is no message), policy (it may not be sent so), delivery (it was tried)."""

    stage: str
    why: str
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Of what file it is told: its claim, its folder, and its name as text."""

    claim: str
    folder: str
    name: str


def of_ending(ending: Ending) -> Reason:
    """Why its mail has ended so; empty where it was sent."""
    if ending.result is Result.SENT:
        return Reason("delivery", "", ending)
    if not ending.state:
        return Reason("delivery", "its mail was removed from the database", ending)
    said = " ".join(str(part) for part in (ending.reply.code, ending.reply.status, ending.reply.reply) if part)
    failed = f" for {len(ending.failed)} of {len(ending.recipients)} recipients" if len(ending.recipients) > 1 else ""
    return Reason("delivery", f"{ending.state}{failed}" + (f": {said}" if said else ""), ending)


def explain(folder: Path, names: Iterable[str], subject: Subject, reason: Reason, at: datetime) -> Path:
    """Write it as ``<name>.json``, under the first of `names` of which neither is taken, and return its path. What was
    written before for the same claim, before a crash, is it already. Raises OSError.
    """
    content = json.dumps(_said(subject, reason, at), indent=2, ensure_ascii=False).encode() + b"\n"
    for each in names:
        told = folder / f"{each}.json"
        if _claim_in(told) == subject.claim:
            return told
        if os.path.lexists(folder / each):
            continue
        try:
            return write_new(folder, [told.name], content, token=f"{subject.claim}.json")
        except FileExistsError:
            continue
    raise FileExistsError(str(folder))


def claim_and_message(path: Path) -> tuple[str, int | None, list[str]]:
    """Of a reason file: the claim, the id of its mail, and the recipients whom it has not reached. Raises ValueError,
    OSError.
    """
    found = json.loads(path.read_bytes())
    return found["claim"], found.get("outbox_id"), [each["address"] for each in found.get("failed", [])]


def _claim_in(path: Path) -> str:
    try:
        return claim_and_message(path)[0]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _said(subject: Subject, reason: Reason, at: datetime) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "file": subject.name,
        "folder": subject.folder,
        "what_happened": reason.why,
        "what_to_do": _advice(reason),
        "at": at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "stage": reason.stage,
        "claim": subject.claim,
    }
    if reason.ending is not None:
        ending = reason.ending
        facts |= {
            "outbox_id": ending.message_id,
            "state": ending.state,
            "sender": ending.sender,
            "attempts": ending.attempts,
            "code": ending.reply.code,
            "status": ending.reply.status,
            "reply": ending.reply.reply,
            "failed": [_facts(each) for each in ending.failed],
            "accepted": [each.address for each in ending.recipients if each.fate == "accepted"],
        }
    return facts


def _facts(each: Addressee) -> dict[str, Any]:
    return {key: value for key, value in asdict(each).items() if value not in (None, "")}


def _advice(reason: Reason) -> str:
    if reason.ending is None:
        return "correct the file, and put it into the pickup folder again"
    if reason.ending.result is Result.PARTIAL:
        return "outbox pickup resubmit THIS_FILE sends it once more to those who failed"
    return f"outbox show {reason.ending.message_id} says more; outbox pickup resubmit THIS_FILE sends it once more"
