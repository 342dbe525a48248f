"""Which mails were enqueued, and what to say when they were not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from outbox.core.address import fold
from outbox.testing.capture import Captured
from outbox.testing.mails import Enqueued

Wanted = str | re.Pattern[str] | None

SHOWN = 20
"""So many mails are listed when an assertion fails."""


def assert_enqueued(
    of: Any,
    *,
    count: int = 1,
    to: Wanted = None,
    cc: Wanted = None,
    bcc: Wanted = None,
    sender: Wanted = None,
    subject: Wanted = None,
    text: Wanted = None,
    html: Wanted = None,
    key: Wanted = None,
    tag: Wanted = None,
    source: Wanted = None,
) -> list[Enqueued]:
    """Exactly `count` mails are as it is said, of those `of` has: what `captured` gives, a list of mails, or a
    connection, which means all that it sees. Returns them.

    A str is the whole value; of `text` and `html`, a part of it; `to`, `cc` and `bcc` have that address among them. A
    compiled pattern is searched for. Raises AssertionError, which lists what was enqueued.
    """
    __tracebackhide__ = True
    mails = list(of) if isinstance(of, Sequence) else list(Captured(of))
    fields = {
        "to": to, "cc": cc, "bcc": bcc, "sender": sender, "subject": subject, "text": text, "html": html, "key": key,
        "tag": tag, "source": source,
    }  # fmt: skip
    wanted = {name: value for name, value in fields.items() if value is not None}
    found = [mail for mail in mails if all(_fits(name, value, mail) for name, value in wanted.items())]
    if len(found) != count:
        raise AssertionError(_complaint(mails, wanted, count, len(found)))
    return found


def _fits(name: str, wanted: str | re.Pattern[str], mail: Enqueued) -> bool:
    value = getattr(mail, name)
    if name in ("to", "cc", "bcc", "sender"):
        return any(_is(wanted, address) for address in ((value,) if isinstance(value, str) else value))
    if value is None:
        return False
    if isinstance(wanted, re.Pattern):
        return wanted.search(value) is not None
    return wanted in value if name in ("text", "html") else wanted == value


def _is(wanted: str | re.Pattern[str], address: str) -> bool:
    return wanted.search(address) is not None if isinstance(wanted, re.Pattern) else fold(wanted) == fold(address)


def _complaint(mails: list[Enqueued], wanted: dict[str, Any], count: int, found: int) -> str:
    said = " and ".join(
        f"{name} {value.pattern if isinstance(value, re.Pattern) else value!r}" for name, value in wanted.items()
    )
    what = f"{_number(count)}{f' with {said}' if said else ''}: expected; enqueued: {found}"
    if not mails:
        return f"{what}. Nothing was enqueued"
    return "\n".join([f"{what}. What was enqueued:", *_listed(mails)])


def _number(count: int) -> str:
    return "1 mail" if count == 1 else f"{count} mails"


def _listed(mails: list[Enqueued]) -> Iterable[str]:
    for each in mails[:SHOWN]:
        yield f"  {each}"
        if each.text:
            first = each.text.strip().partition("\n")[0]
            yield f"     {first[:100]}"
    if len(mails) > SHOWN:
        yield f"  and {len(mails) - SHOWN} more"
