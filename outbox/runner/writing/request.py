"""What the event loop asks of the clerk, and how the answer comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any


class Kind(IntEnum):
    """The order within a group."""

    MARK = 0
    SETTLE = 1
    CLAIM = 2
    UPKEEP = 3
    LOOK = 4
    READ = 5
    CONTENT = 6


@dataclass(slots=True)
class Request:
    kind: Kind
    payload: Any
    future: asyncio.Future[Any]


class Claiming:
    """One `Store.claim`, and nothing else: so it needs no transaction around it where it is alone. `owner` says whose
    mail a sender's is, for what the claimed messages say is read along with them; it is asked by whoever serves this.
    """

    __slots__ = ("_verb", "owner")

    def __init__(self, verb: Callable[[Any, datetime], Any], owner: Callable[[str], str]) -> None:
        self._verb = verb
        self.owner = owner

    def __call__(self, store: Any, now: datetime) -> Any:
        return self._verb(store, now)


def is_single(group: Sequence[Request]) -> bool:
    """Whether this is one `Store.mark` or one `Store.claim`."""
    if group[0].kind is Kind.MARK:
        return group[-1].kind is Kind.MARK
    return is_one_claim(group)


def is_one_claim(group: Sequence[Request]) -> bool:
    return len(group) == 1 and isinstance(group[0].payload, Claiming)


WRITES = (Kind.MARK, Kind.SETTLE, Kind.CLAIM, Kind.UPKEEP)
READS = (Kind.LOOK, Kind.READ)

Answer = tuple[Request, Any, BaseException | None]


def resolve(answers: Sequence[Answer]) -> None:
    for request, result, error in answers:
        set_answer(request.future, result, error)


def set_answer(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # cancelled by whoever asked
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class AbandonedError(Exception):
    """The runner is ending and the database has not come back."""
