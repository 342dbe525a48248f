"""The fixture `site`, a database and the programs on it, for the tests here."""

from __future__ import annotations

from tests.running import site

__all__ = ["site"]
