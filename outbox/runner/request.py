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
    READ = 4
    CONTENT = 5


@dataclass(slots=True)
class Request:
    kind: Kind
    payload: Any
    future: asyncio.Future[Any]


class Alone:
    """What is asked for is one verb of the store's, so that it needs no transaction around it where it is alone."""

    __slots__ = ("_verb",)

    def __init__(self, verb: Callable[[Any, datetime], Any]) -> None:
        self._verb = verb

    def __call__(self, store: Any, now: datetime) -> Any:
        return self._verb(store, now)


def is_single(group: Sequence[Request]) -> bool:
    """Whether this is one `mark` or one `claim`."""
    if group[0].kind is Kind.MARK:
        return group[-1].kind is Kind.MARK
    return len(group) == 1 and isinstance(group[0].payload, Alone)


WRITES = (Kind.MARK, Kind.SETTLE, Kind.CLAIM, Kind.UPKEEP)

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
