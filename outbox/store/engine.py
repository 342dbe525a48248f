"""The SQLite that this program uses: the one that peewee has chosen.

peewee takes the package `pysqlite3` where it is installed and its library is not older than that of Python's own
`sqlite3` (the extra `sqlite` brings one without the WAL-reset bug, see `outbox.store.health`). The two are not the same
module: an exception of one is not an exception of the other. So whoever catches SQLite's errors or asks for its version
takes the module from here.

LIMITS: two copies of the library must not open the same file in one process (closing a file drops the locks that the
other holds on it). Nothing in a runner or a command opens a database but peewee.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3 as sqlite3  # the same names, as far as they are used here
else:
    from peewee import sqlite3 as sqlite3

NAME = f"SQLite {sqlite3.sqlite_version}" + ("" if sqlite3.__name__ == "sqlite3" else " of pysqlite3")
"""For people."""

_FIXED = (3, 51, 3)
_PATCHED = {(3, 44): 6, (3, 50): 7}
"""Branches that were repaired: from which patch level on."""

WAL_RESET_BUG = f"{NAME} has the WAL-reset bug: two connections can, rarely, damage the file"
REMEDY = "pip install 'mail-outbox[sqlite]' brings a SQLite without it: docs/operate.md#sqlites-wal-reset-bug"


def has_wal_reset_bug(version: Sequence[int] = sqlite3.sqlite_version_info) -> bool:
    """Whether this version of SQLite (ours) has it: 3.7.0 up to 3.51.2, but for the branches that were repaired. By it
    two connections can damage a database in WAL mode (sqlite.org/wal.html, "The WAL-Reset Bug").
    """
    first = _PATCHED.get((version[0], version[1]))
    return tuple(version) < _FIXED if first is None else version[2] < first
