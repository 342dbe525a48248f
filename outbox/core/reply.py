"""A relay's answer, parsed once, at the edge, into a type."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply (RFC 5321 §4.2): `code` 200–599, `status` the enhanced code (RFC 3463, ``"5.1.1"``) or ``""``,
    `text` the words, sanitised for SQL and for people: no control characters, lines joined by a space, at most 1 KiB of UTF-8.
    """

    code: int
    status: str = ""
    text: str = ""

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        return 300 <= self.code < 400

    @property
    def transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.status, self.text) if part)
