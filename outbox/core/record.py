"""Records: what the steps of a delivery hand on to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A frozen dataclass with slots, to the type checker. The interpreter does not pay for being told again: a frozen
    one is made in three times the time, and a dozen are made for every mail.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
