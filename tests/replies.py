"""docs/replies.md, written from the table that decides: what every reply of a relay leads to."""

from __future__ import annotations

from collections.abc import Iterator

from outbox.core.meaning import ANSWER, INTERMEDIATE, LATER, NEVER, POSITIVE, SILENCE, Meaning
from outbox.core.outcome import Scope, Stage, Verdict
from outbox.core.replies import (
    AFTERWARDS,
    AUTH,
    CONSEQUENCES,
    CONTENT,
    MEANINGS,
    OPENING,
    OURS,
    TRANSACTION,
    WHOLE,
)
from outbox.core.units import format_duration

INTRODUCTION = """\
# Replies

What Outbox makes of every answer of a relay. In each table the first row that fits decides. Try any reply:

```sh
outbox rule test "451 4.7.1 Greylisted, try again in 20 minutes"
outbox rule test "553 5.7.1 not owned by user" --stage mail --json
```

- The first digit decides whether to try again: 2yz accepts, 4yz is later, 5yz is never. An enhanced status of another
  class than the code does not count.
- How far a fault reaches is another question. The stage answers it, and the few codes, statuses and words with which
  providers say that the login, the sender address or a quota is at fault.
- Where it is tried again and the reply says when ("try again in 300 seconds", "come back in 00:05:00"), it is not tried
  before that and 10 seconds more; at most 4 hours, for an account 24 hours.
- What reaches beyond the message never fails it:
  [it waits](delivery.md#a-fault-of-the-relay-the-account-or-the-sender).
- A [rule of your own](policy.md#reply-rules) comes before these tables.

This page is written from the table that the program itself asks.

In *a reply with*, a status or one of the words must be there besides the code; `x` is any number, `[…]` may be missing,
`…` is up to 60 characters of anything. *Then* says:

"""

_THEN = {
    Verdict.ACCEPT: "accept",
    Verdict.DOUBT: "doubt",
    Scope.RELAY: "breaker",
    Scope.ACCOUNT: "pause",
    Scope.SENDER: "pause",
    Verdict.DEFER: "retry",
    Verdict.BOUNCE: "bounce",
}

_STAGES = {
    OPENING: "before MAIL",
    OPENING | AUTH: "before MAIL",
    AUTH: "AUTH",
    TRANSACTION: "MAIL to dot",
    WHOLE: "MAIL, DATA, body, dot",
    CONTENT: "DATA, body, dot",
    TRANSACTION | AFTERWARDS: "anywhere",
    frozenset(Stage): "anywhere",
    OURS | {Stage.LOCAL} | TRANSACTION | AFTERWARDS: "MAIL to dot",
}

_GROUPS = {
    "No answer": "A timeout, a broken connection, or what is no reply at all.",
    "Connecting": "Nobody was introduced yet.",
    "Logging in": "",
    "The transaction": "MAIL, RCPT, DATA, the body, the dot; and RSET and QUIT after it.",
    "Ourselves": "What no relay was asked about has a code and a status, too.",
}


def page() -> str:
    """The whole of docs/replies.md."""
    return "".join((INTRODUCTION, "\n".join(_legend()), *map(_section, _GROUPS)))


def _legend() -> Iterator[str]:
    yield "| then | reaches | |"
    yield "|---|---|---|"
    for (verdict, scope), words in CONSEQUENCES.items():
        if any((each.verdict, each.scope) == (verdict, scope) for each in MEANINGS):
            yield f"| {_action(verdict, scope)} | {scope} | {words} |"
    yield ""


def _section(title: str) -> str:
    rows = [each for each in MEANINGS if _group(each) == title]
    heading = ["", f"## {title}", "", *([_GROUPS[title], ""] if _GROUPS[title] else [])]
    table = ["| at | a reply with | such as | reaches | then | why |", "|---|---|---|---|---|---|"]
    return "\n".join([*heading, *table, *map(_row, rows), ""])


def _group(meaning: Meaning) -> str:
    if meaning.codes == SILENCE:
        return "No answer"
    if meaning.stages <= OURS | {Stage.LOCAL}:
        return "Ourselves"
    if meaning.stages <= OPENING:
        return "Connecting"
    return "Logging in" if meaning.stages <= AUTH else "The transaction"


def _row(meaning: Meaning) -> str:
    example = f"`{meaning.example}`" if meaning.example else ""
    then = _action(meaning.verdict, meaning.scope)
    if meaning.delay:
        then += f", not before {format_duration(meaning.delay)}"
    cells = (_where(meaning), _what(meaning), example, meaning.scope, then, meaning.why)
    return f"| {' | '.join(cells)} |"


def _action(verdict: Verdict, scope: Scope) -> str:
    if verdict is Verdict.BOUNCE and scope in (Scope.ACCOUNT, Scope.SENDER):
        return "pause, then probe"
    return _THEN.get(scope) or _THEN[verdict]


def _where(meaning: Meaning) -> str:
    names = _STAGES.get(meaning.stages) or ", ".join(
        str(stage) if stage in (Stage.BODY, Stage.DOT) or stage in OURS | {Stage.LOCAL} else stage.upper()
        for stage in Stage
        if stage in meaning.stages
    )
    if meaning.dotted is None or meaning.stages == {Stage.DOT}:
        return names
    return f"{names} ({'after' if meaning.dotted else 'before'} the dot)"


def _what(meaning: Meaning) -> str:
    codes = ", ".join(_codes(meaning))
    alternatives = list(meaning.statuses)
    alternatives += [f"`{each}`" for each in meaning.words]
    text = f"{codes}: {', '.join(alternatives)}" if alternatives else codes
    return f"{text}; but not {', '.join(meaning.unless)}" if meaning.unless else text


def _codes(meaning: Meaning) -> Iterator[str]:
    if meaning.codes == SILENCE:
        yield "none"
    elif meaning.codes == ANSWER:
        yield "any code"
    else:
        for name, digit in (("2yz", POSITIVE), ("3yz", INTERMEDIATE), ("4yz", LATER), ("5yz", NEVER)):
            if digit <= meaning.codes:
                yield name
            else:
                yield from map(str, sorted(meaning.codes & digit))
