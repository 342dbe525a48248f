"""Sending once more what has come to badmail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from outbox.clock import Clock
from outbox.core.pickup import Folder, Taken
from outbox.doors.pickup.archive import place
from outbox.doors.pickup.files import Unacceptable, work_of
from outbox.doors.pickup.intake import alone, mail_of
from outbox.doors.pickup.ledger import Ledger
from outbox.doors.pickup.reasons import claim_and_message
from outbox.errors import InvalidMail, Refused
from outbox.mail import Mail

PATIENCE = 10.0
"""Seconds to wait for a scan of the folder that is under way."""


def resubmit(
    folder: Folder,
    ledger: Ledger,
    file: Path,
    stored: Callable[[int], dict[str, Any]],
    clock: Clock,
    *,
    only_failed: bool,
) -> int:
    """Enter the bad `file` of this folder once more: for everybody, or for those who had failed. It may be named by its
    reason file, which is all there is of a mail that has reached some; `stored` reads its mail from the database.

    How many recipients it is for. Raises Refused for a file without a reason, for one that was entered again already,
    and while the folder is scanned all the time; InvalidMail; OSError.
    """
    until = clock.monotonic() + PATIENCE
    while True:
        with alone(folder) as is_alone:  # or a scan could find the end of its mail before we have moved it
            if is_alone:
                return _resubmit(folder, ledger, file, stored, only_failed=only_failed)
        if clock.monotonic() > until:
            raise Refused(f"pickup folder {folder.name} is being scanned", hint="try again")
        clock.sleep(0.05)


def _resubmit(
    folder: Folder, ledger: Ledger, file: Path, stored: Callable[[int], dict[str, Any]], *, only_failed: bool
) -> int:
    told = file if file.suffix == ".json" else file.with_name(f"{file.name}.json")
    message = told.with_name(told.name.removesuffix(".json"))
    try:
        claim, message_id, failed = claim_and_message(told)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{told} cannot be read: {error}", hint="name a file of badmail") from None
    is_partial = not message.exists()
    if is_partial and message_id is None:
        raise Refused(f"there is no {message}", hint="name a file of badmail")
    if is_partial and message_id is not None:  # what is stored has no X-Sender any more, but what it said
        mail = Mail(to=failed, **stored(message_id))
        raw = mail.raw or b""
    else:
        raw = message.read_bytes()
        mail = _mail(folder, raw, failed if only_failed else [])
    name = message.name.partition(".bad")[0]
    again = Taken(f"{claim}r", folder.name, name, len(raw), hashlib.sha256(raw).hexdigest())
    if not ledger.enter(again, mail):
        raise Refused(f"{file} was resubmitted already", hint=f"outbox list --source pickup; {told} can be removed")
    if not is_partial:
        place(message, work_of(folder), [f"{again.claim}.1__{name}"], token=again.claim)
    told.unlink()
    return len(failed) if is_partial or only_failed else 0


def _mail(folder: Folder, raw: bytes, recipients: list[str]) -> Mail:
    try:
        mail = mail_of(folder, raw)
    except (Unacceptable, ValueError) as error:
        raise InvalidMail("message", str(error)) from None
    return replace(mail, to=recipients, cc=(), bcc=()) if recipients else mail
