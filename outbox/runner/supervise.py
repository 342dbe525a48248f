"""Several runners on one machine: `outbox run --processes N`. They meet only in the database; there is no leader.

The parent starts the processes, starts one that crashed anew (after 1 s, then twice as long each time, at most 60 s),
passes signals on, and ends when they have ended. A child whose parent is gone drains and ends: its standard input, a
pipe from the parent, is closed then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from outbox.clock import Clock

log = logging.getLogger("outbox.supervise")

SUPERVISED = "OUTBOX_SUPERVISED"
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
STEADY = 60.0
"""A process that lived so long starts anew without counting its earlier crashes."""

FINAL_EXITS = frozenset({0, 2, 3, 5})
"""Done, or something that starting again will not change: usage, configuration, key. A database comes back."""

LOOK_EVERY = 0.1


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    delay: float = field(default=FIRST_DELAY)
    exit: int | None = None


class Supervisor:
    """See above."""

    def __init__(self, count: int, arguments: Sequence[str], clock: Clock) -> None:
        self._arguments = [sys.executable, "-m", "outbox", *arguments]
        self._clock = clock
        self._children = [_Child() for _ in range(count)]
        self._stops = 0

    def stop(self) -> None:
        """Pass a stop on: the first drains, the second ends at once."""
        self._stops += 1
        for child in self._children:
            if child.process is not None:
                _interrupt(child.process)

    def run(self) -> int:
        """Until all have ended. The worst of their exit statuses."""
        while any(child.exit is None for child in self._children):
            for child in self._children:
                if child.exit is None:
                    self._look_after(child)
            self._clock.sleep(LOOK_EVERY)
        return max(child.exit or 0 for child in self._children)

    def _look_after(self, child: _Child) -> None:
        now = self._clock.monotonic()
        if child.process is None:
            if self._stops:
                child.exit = 0
            elif now >= child.start_at:
                child.process, child.started_at = self._start(), now
            return
        status = child.process.poll()
        if status is None:
            return
        child.process = None
        if self._stops and status == -signal.SIGTERM:
            child.exit = 0  # it was told to stop before it could listen, so it had not begun
            return
        if self._stops or status in FINAL_EXITS:
            child.exit = status if status >= 0 else 128 - status
            return
        if now - child.started_at > STEADY:
            child.delay = FIRST_DELAY
        log.error("a runner process ended with status %d; starting it anew in %.0f s", status, child.delay)
        child.start_at = now + child.delay
        child.delay = min(child.delay * 2, LONGEST_DELAY)

    def _start(self) -> subprocess.Popen[bytes]:
        # A session of its own: a Ctrl-C in the terminal reaches the parent only, and is passed on once, not twice.
        return subprocess.Popen(  # noqa: S603 -- our own interpreter and our own arguments
            self._arguments,
            stdin=subprocess.PIPE,
            env={**os.environ, SUPERVISED: "1"},
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def supervise(count: int, arguments: Sequence[str]) -> int:
    """Run `outbox ARGUMENTS` in `count` processes. The exit status."""
    supervisor = Supervisor(count, arguments, Clock())
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None:
            signal.signal(number, lambda *_: supervisor.stop())
    return supervisor.run()


def watch_parent(stop: Callable[[], None]) -> None:
    """In a supervised process: `stop` when the parent is gone."""
    if os.environ.get(SUPERVISED) != "1":
        return
    loop = asyncio.get_running_loop()

    def wait() -> None:
        # Not sys.stdin: Python aborts at its end when a thread is still inside of that.
        while os.read(0, 1):
            pass
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop)

    threading.Thread(target=wait, name="outbox-parent", daemon=True).start()


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.terminate()
