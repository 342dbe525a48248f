"""What the event loop asks of the clerk, and how the answer comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
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
