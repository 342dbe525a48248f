"""A program in a process of its own, and what it cost: seconds, CPU time, memory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bench.figures import Unmeasurable

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Usage:
    """`seconds` from start to end; `cpu` seconds, user and system, of the program and the processes it started; `rss`,
    the largest resident size in bytes that any one of them had.
    """

    seconds: float
    cpu: float
    rss: int


class Process:
    """Started when made. What it says goes to the file `said`."""

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        *,
        name: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to ours, of which nothing that configures Outbox is passed on."""
        if not hasattr(os, "wait4"):
            raise Unmeasurable("this system does not tell what a process has used (os.wait4)")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OUTBOX_")}
        self.said = folder / f"{name or Path(command[0]).name}-{time.monotonic_ns()}.log"
        self._began = time.monotonic()
        with self.said.open("wb") as file:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                env={**inherited, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.status: int | None = None
        self._usage = Usage(0, 0, 0)
        self._reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)
        self._reaper.start()

    def _reap(self) -> None:
        _, status, used = os.wait4(self.pid, 0)
        unit = 1 if sys.platform == "darwin" else 1024
        self._usage = Usage(time.monotonic() - self._began, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)
        self.status = self._popen.returncode = os.waitstatus_to_exitcode(status)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._reaper.join(10)
        if self._reaper.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)  # its session is its own
            self._reaper.join(10)

    def stop(self) -> None:
        """SIGTERM; returns at once."""
        if self.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float = PATIENCE) -> Usage:
        """Until it has ended. Raises RuntimeError, with what it said, unless its exit status is 0 by then."""
        self._reaper.join(seconds)
        if self.status != 0:
            ending = "has not ended" if self.status is None else f"ended with status {self.status}"
            raise RuntimeError(f"{self.said.name} {ending}: {self.output[-2000:]}")
        return self._usage

    @property
    def output(self) -> str:
        return self.said.read_text(errors="replace")

    # -- while it runs

    @property
    def cpu(self) -> float:
        """CPU seconds so far, user and system, of this process alone."""
        parts = self._proc("stat").rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss(self) -> int:
        """Bytes of memory it has now."""
        return self._memory("VmRSS:")

    @property
    def peak(self) -> int:
        """The most bytes of memory it has had."""
        return self._memory("VmHWM:")

    def _memory(self, name: str) -> int:
        line = next(line for line in self._proc("status").splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except FileNotFoundError:
            if Path("/proc/self").exists():
                raise RuntimeError(f"it has ended: {self.output[-2000:]}") from None
            raise Unmeasurable("this system has no /proc, which tells what a running process uses") from None


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module of ours."""
    return [sys.executable, "-m", module, *arguments]


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def until_it_answers(port: int, process: Process, seconds: float = 20.0) -> None:
    """Until something listens on `port`. Raises RuntimeError when the process has ended instead."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.status is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.said.name} does not listen: {process.output[-2000:]}")
        time.sleep(0.01)
