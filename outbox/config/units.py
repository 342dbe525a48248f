"""The kinds of values that settings have, as people write them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator

from outbox.core.units import parse_duration, parse_size


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError(f'{value!r} has no unit; write a duration such as "30s", "15m" or "2d"')
    return parse_duration(value)


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f'{value!r} is not a size; write one such as "64 MiB"')
    return value if isinstance(value, int) else parse_size(value)


def _words(value: object) -> str:
    """A list in the file, and text with commas in the environment."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        value = ", ".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a list of words")
    return ", ".join(each.strip() for each in value.split(",") if each.strip())


def checked_uuid(value: str) -> str:
    return str(uuid.UUID(value)) if value else ""


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Size = Annotated[int, BeforeValidator(_size)]
Words = Annotated[str, BeforeValidator(_words)]
"""Several words, kept as text with commas; `words` takes them apart."""


def words(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())
