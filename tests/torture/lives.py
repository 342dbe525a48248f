"""Asks the zygote for programs, and knows what becomes of them.

with Zygote(folder) as zygote:
    life = zygote.runner(url, "--until-empty", run_lease="1s")      # `outbox run --until-empty`
    life.kill(); life.wait() == -9
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0


class Life:
    """One process. `status`: None while it lives; negative for a signal."""

    def __init__(self, log: Path, changed: threading.Condition) -> None:
        self.log = log
        self.pid = 0
        self.status: int | None = None
        self.stopped = False
        self._changed = changed

    def wait(self, seconds: float = PATIENCE) -> int:
        """Until it ends: its exit status. Raises TimeoutError with what it said."""
        self.until(ended=True, seconds=seconds)
        assert self.status is not None
        return self.status

    def until(self, *, ended: bool = False, seconds: float = PATIENCE) -> None:
        """Until it is stopped by a signal, or has `ended`. Raises TimeoutError."""
        with self._changed:
            reached = self._changed.wait_for(
                lambda: self.status is not None or (self.stopped and not ended), timeout=seconds
            )
        if not reached:
            raise TimeoutError(f"neither ended nor stopped within {seconds:g} s:\n{self.output[-3000:]}")

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    @property
    def lives(self) -> bool:
        return self.status is None

    def kill(self) -> None:
        """kill -9. It may have ended by itself."""
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM."""
        self._send(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self._send(signal.SIGSTOP)
        self.until()

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        with self._changed:  # the zygote tells us of an end when it has reaped it
            if self.status is None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)


class Zygote:
    """See above. `folder` is where the logs go. For any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changed = threading.Condition()
        self._asked: deque[Life] = deque()
        self._lives: dict[int, Life] = {}
        self._numbers = count(1)
        self._asking = threading.Lock()

    def __enter__(self) -> Zygote:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.zygote"],
            cwd=ROOT,
            env={**inherited, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name="zygote", daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for life in list(self._lives.values()):
            life.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._listener.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def runner(
        self,
        url: str,
        *arguments: str,
        folder: Path,
        point: Mapping[str, Any] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Life:
        """`outbox run ARGUMENTS`, watched where `point` says so (see `tests.torture.watched`)."""
        environment = {f"OUTBOX_{name.upper()}": value for name, value in (settings or {}).items()}
        argument = {"arguments": ["run", *arguments], "point": dict(point or {})}
        environment |= {"OUTBOX_DATABASE": url, "XDG_STATE_HOME": str(folder)}
        return self.ask("tests.torture.watched:run", argument, folder, **environment)

    def ask(self, entry: str, argument: object, folder: Path, **environment: str) -> Life:
        """A new process that calls this function with this argument."""
        life = Life(folder / f"life-{next(self._numbers)}.log", self._changed)
        wanted = {
            "entry": entry,
            "argument": argument,
            "log": str(life.log),
            "folder": str(folder),
            "environment": environment,
        }
        assert self._process.stdin is not None
        with self._asking:
            self._asked.append(life)
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self._process.stdin.flush()
        with self._changed:
            if not self._changed.wait_for(lambda: life.pid, timeout=PATIENCE):
                raise TimeoutError("the zygote bears no child")
        return life

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            with self._changed:
                self._take(event)
                self._changed.notify_all()

    def _take(self, event: dict[str, Any]) -> None:
        if "born" in event:
            life = self._asked.popleft()
            life.pid = event["born"]
            self._lives[life.pid] = life
            return
        life = self._lives[event["pid"]]
        life.stopped = event["event"] == "stopped"
        if event["event"] == "exited":
            life.status = event["status"]
            del self._lives[life.pid]
