"""The system as a test wants it: a wall clock that jumps, a disk that fails, a log of what was written and synced.

shim = Shim(folder)                          # compiles shim.c; raises Unmeasurable where that cannot be
with site.run(**shim.environment(...)): …    # a program with it
shim.clock(timedelta(days=30))               # from now on; only CLOCK_REALTIME
shim.fail(FULL); shim.fail(NOTHING)
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.bench.figures import Unmeasurable
from tests.running import Runner, Site, command

NOTHING, FULL, SYNC_ERROR, WRITE_ERROR = range(4)
_RECORD = struct.Struct("<IIIq")


@dataclass(frozen=True, slots=True)
class Record:
    """`op`: w(rite), t(runcate), f(sync), s(aid), or a(cknowledged), which whoever hears an acknowledgement adds."""

    op: str
    name: str
    offset: int
    octets: bytes


class Shim:
    """Belongs to a folder of its own."""

    def __init__(self, folder: Path) -> None:
        if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
            raise Unmeasurable("the shim needs Linux and gcc")
        folder.mkdir(parents=True, exist_ok=True)
        self._library = folder / "shim.so"
        source = Path(__file__).with_name("shim.c")
        built = subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-o", self._library, source, "-ldl"], capture_output=True, text=True
        )
        if built.returncode:
            raise Unmeasurable(f"the shim does not compile: {built.stderr.strip()[:300]}")
        self._file = folder / "shim.control"
        self._file.write_bytes(bytes(32))
        self.log = folder / "shim.log"
        with self._file.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), 32)

    def environment(self, watched: Path, *, log: bool = False) -> dict[str, str]:
        """For a program; `watched`: the beginning of the paths whose faults, and whose writes, are meant."""
        made = {"LD_PRELOAD": str(self._library), "OUTBOX_SHIM": str(self._file), "OUTBOX_SHIM_FOLDER": str(watched)}
        return made | ({"OUTBOX_SHIM_LOG": str(self.log)} if log else {})

    def clock(self, shift: timedelta) -> None:
        struct.pack_into("<q", self._control, 0, int(shift.total_seconds() * 1e9))

    def fail(self, how: int, *, after: int = 0) -> None:
        """`after` so many calls that go well."""
        struct.pack_into("<q", self._control, 8, how + 256 * after)

    @property
    def failed(self) -> int:
        """How many calls have failed so far."""
        found: int = struct.unpack_from("<q", self._control, 16)[0]
        return found

    @contextmanager
    def runner(
        self, site: Site, watched: Path, *arguments: str, log: bool = False, **settings: str
    ) -> Iterator[Runner]:
        """`outbox run ARGUMENTS` with it."""
        environment = {f"OUTBOX_{name.upper()}": value for name, value in settings.items()}
        with Runner(
            command("run", *arguments),
            site.folder,
            OUTBOX_DATABASE=site.url,
            **environment,
            **self.environment(watched, log=log),
        ) as made:
            yield made

    def acknowledge(self, what: str) -> None:
        """Into the log, in its order: somebody has heard that this is so."""
        octets = what.encode()
        with self.log.open("ab", buffering=0) as file:
            file.write(_RECORD.pack(ord("a"), 0, len(octets), 0) + octets)

    def records(self) -> Iterator[Record]:
        octets = self.log.read_bytes()
        place = 0
        while place < len(octets):
            op, name_length, length, offset = _RECORD.unpack_from(octets, place)
            place += _RECORD.size
            name = octets[place : place + name_length].decode()
            place += name_length
            yield Record(chr(op), name, offset, octets[place : place + length])
            place += length
