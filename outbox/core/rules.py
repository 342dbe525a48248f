"""Operators' own meanings for what a relay says, where a provider misuses its codes.

A rule is a regular expression on ``"code status text"`` of a refusal, for the relays that its pattern names. The first
one that fits decides; the reply itself stays what it was. A rule can neither make an acceptance of a refusal, nor
touch a doubt.

A regular expression can take for ever, and a relay chooses the text. So a pattern that can match one text in very many
ways is refused, and only the beginning of a reply is searched.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase

from outbox.core.outcome import Outcome, Scope, Verdict
from outbox.core.reply import MAX_TEXT, Reply

MAX_PATTERN = 500
_ENDLESS = 64
"""The ways in which ``*`` is taken to match: two of them cost as much as a choice of 64² in one place."""
_MAX_WAYS = 4 * _ENDLESS**2
"""Two repeats without an upper bound, and a little more. At worst that takes a second; three would take minutes."""
_SHORT = 512
"""Characters that are searched with a pattern of more ways than one ``*`` has."""


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
    _reach: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError, in words for whoever wrote it, when this is no rule that can be asked."""
        if self.verdict not in (Verdict.DEFER, Verdict.BOUNCE):
            raise ValueError(f"a rule says defer or bounce, not {self.verdict}")
        object.__setattr__(self, "_search", _compiled(self.pattern))
        object.__setattr__(self, "_reach", _SHORT if ways(self.pattern) > _ENDLESS else MAX_TEXT)

    def fits(self, reply: Reply) -> bool:
        return self._search.search(str(reply)[: self._reach]) is not None

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.verdict, self.scope, self.delay, self.id)


Rules = tuple[Rule, ...]
"""In the order in which they are asked."""


def for_relay(rules: Iterable[Rule], host: str) -> Rules:
    """Those that are about this relay."""
    return tuple(each for each in rules if fnmatchcase(host.lower(), each.relay.lower()))


def _compiled(pattern: str) -> re.Pattern[str]:
    if not 1 <= len(pattern) <= MAX_PATTERN:
        raise ValueError(f"a pattern has 1 to {MAX_PATTERN} characters")
    try:
        with warnings.catch_warnings():  # what [[ and [a||b] may come to mean tells nobody here
            warnings.simplefilter("ignore", FutureWarning)
            compiled = re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    if any(_REMARK.match(token["open"] or "") for token in _TOKEN.finditer(pattern)):
        raise ValueError(f"{pattern!r} has a comment or the flag x, which a rule must not: say it in the note")
    if ways(pattern) > _MAX_WAYS:
        raise ValueError(f"{pattern!r} could be searched for ever: it repeats what is itself repeated, or too often")
    return compiled


# ---- what is slow


_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]"  # an escape, a set
    r"|(?P<open>\((?:\?(?:P?<?[=!:>#]|P<\w+>|P=\w+|[aiLmsux-]+:?))?)|(?P<close>\))|(?P<or>\|)"
    r"|(?P<count>[*+?]|\{[0-9]*,?[0-9]*\})[?+]?|.",
    re.DOTALL,
)


_REMARK = re.compile(r"\(\?(?:#|[a-wyz-]*x)", re.IGNORECASE)
"""What begins a comment, or lets one begin: what stands in it is no token, and would hide what repeats."""


@dataclass(slots=True)
class _Group:
    """`before`: the ways of its finished alternatives; `ways`: of the one being read, without its `last` item."""

    before: int = 0
    ways: int = 1
    last: int = 1

    def close(self) -> int:
        return self.before + self.ways * self.last


def ways(pattern: str) -> int:
    """In how many ways `pattern`, a valid one, may match from one place, roughly, and capped: what a failing search has
    to go through.
    """
    stack = [_Group()]
    for token in _TOKEN.finditer(pattern):
        group = stack[-1]
        if token["count"]:
            group.last = min(_repeated(group.last, *_bounds(token["count"])), _MAX_WAYS + 1)
        elif token["or"]:
            stack[-1] = _Group(before=group.close())
        elif token["close"] and len(stack) > 1:
            inner = stack.pop().close()
            stack[-1].ways, stack[-1].last = min(stack[-1].ways * stack[-1].last, _MAX_WAYS + 1), inner
        elif token["open"]:
            stack.append(_Group())
        else:
            group.ways, group.last = min(group.ways * group.last, _MAX_WAYS + 1), 1
    return min(stack[0].close(), _MAX_WAYS + 1)


def _repeated(once: int, least: int, most: int | None) -> int:
    if most is None:
        return _ENDLESS if once == 1 else _MAX_WAYS + 1
    if once > 1 and most > 20:
        return _MAX_WAYS + 1
    return int((most - least + 1) * once**most)


def _bounds(count: str) -> tuple[int, int | None]:
    if count in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[count]
    least, comma, most = count[1:-1].partition(",")
    if not least and not most:
        return (0, None) if comma else (1, 1)
    return int(least or 0), int(most) if most else (None if comma else int(least))
