"""Operators' own meanings for what a relay says, where a provider misuses its codes.

A rule is a regular expression on ``"code status text"`` of a refusal, for the relays that its pattern names. The first
one that fits decides; the reply itself stays what it was. A rule can neither make an acceptance of a refusal, nor
touch a doubt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase

from outbox.core.outcome import Outcome, Scope, Verdict
from outbox.core.reply import Reply


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of `outbox_reply_rule`. `relay` is a host with ``*`` and ``?``; `pattern` is searched, in any case."""

    id: int
    relay: str
    pattern: str
    verdict: Verdict
    scope: Scope
    delay: timedelta = timedelta(0)
    note: str = ""
    _search: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError when the pattern is no regular expression."""
        try:
            object.__setattr__(self, "_search", re.compile(self.pattern, re.IGNORECASE))
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is not a regular expression: {error}") from None

    def fits(self, reply: Reply) -> bool:
        return self._search.search(str(reply)) is not None

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.verdict, self.scope, self.delay, self.id)


Rules = tuple[Rule, ...]
"""In the order in which they are asked."""


def for_relay(rules: Iterable[Rule], host: str) -> Rules:
    """Those that are about this relay."""
    return tuple(each for each in rules if fnmatchcase(host.lower(), each.relay.lower()))
