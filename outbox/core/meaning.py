"""One row of the policy on replies: which answers it is about, and what they mean. The rows themselves are in
`replies`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta

from outbox.core.outcome import Outcome, Scope, Stage, Verdict

SILENCE = frozenset({0})
"""The code of no answer: a timeout, a lost connection, or what is no reply at all."""
POSITIVE, INTERMEDIATE, LATER, NEVER = (frozenset(range(first, first + 100)) for first in (200, 300, 400, 500))
REFUSAL = LATER | NEVER
ANSWER = POSITIVE | INTERMEDIATE | REFUSAL

_GAP = ".{0,60}?"


@dataclass(frozen=True, slots=True)
class Meaning:
    """An answer fits when its stage and code are listed and, where `statuses` or `words` are given, its enhanced status
    is one of those, or its text has one of these words.

    name      a stable one, for people
    codes     of the reply; SILENCE is none
    example   a reply that this row is the first to fit
    why       a sentence
    statuses  with ``x`` for any class or any detail: ``"5.7.1"``, ``"x.2.x"``
    unless    the statuses that are not meant
    words     in any case; ``[…]`` may be missing, ``…`` is anything, up to 60 characters
    dotted    whether the final dot was, or may have been, written; None: either way
    delay     not again before that
    """

    name: str
    stages: frozenset[Stage]
    codes: frozenset[int]
    verdict: Verdict
    scope: Scope
    example: str
    why: str
    statuses: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    dotted: bool | None = None
    delay: timedelta = timedelta(0)
    outcome: Outcome = field(init=False, repr=False)
    _status: re.Pattern[str] | None = field(init=False, repr=False)
    _words: re.Pattern[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcome", Outcome(self.verdict, self.scope, self.delay))
        object.__setattr__(self, "_status", _status_pattern(self.statuses, self.unless))
        object.__setattr__(self, "_words", _words_pattern(self.words))

    def fits(self, code: int, status: str, text: str, *, dotted: bool) -> bool:
        """The stage is not asked again: the table is sorted by it."""
        if code not in self.codes or (self.dotted is not None and self.dotted is not dotted):
            return False
        if self._status is not None and self._status.fullmatch(status):
            return True
        if self._words is not None:
            return self._words.search(text) is not None
        return self._status is None


def _status_pattern(statuses: tuple[str, ...], unless: tuple[str, ...]) -> re.Pattern[str] | None:
    if not statuses:
        return None
    meant, not_meant = ("|".join(map(_status_form, each)) for each in (statuses, unless))
    return re.compile(f"(?!(?:{not_meant})$)(?:{meant})" if unless else meant)


def _status_form(status: str) -> str:
    return r"\.".join("[0-9]+" if part == "x" else part for part in status.split("."))


def _words_pattern(words: tuple[str, ...]) -> re.Pattern[str] | None:
    if not words:
        return None
    forms = (re.escape(each).replace(r"\[", "(?:").replace(r"\]", ")?").replace("…", _GAP) for each in words)
    return re.compile(rf"\b(?:{'|'.join(forms)})", re.IGNORECASE)
