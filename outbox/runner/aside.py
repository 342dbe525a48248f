"""Threads for what may never come back: above all the system's resolver, which can be silent for half a minute a name.

asyncio's own threads are waited for at the end, five minutes by the loop and without limit by the interpreter, so that
one silent name server would keep a runner from ending; and there are so few that some silent names hold up all others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

MOST = 64
"""Threads. What is asked beyond them waits."""

Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Aside(ThreadPoolExecutor):
    """For `loop.set_default_executor`, which takes nothing but this class; but its threads are daemons, which nobody
    waits for.
    """

    def __init__(self, most: int = MOST) -> None:
        super().__init__(1)  # never used
        self._most = most
        self._asked: SimpleQueue[Call] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._count = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` in a thread of ours."""
        future: Future[Any] = Future()
        self._asked.put((future, fn, args, kwargs))
        if not self._idle.acquire(blocking=False):
            with self._lock:
                new = self._count < self._most
                self._count += new
            if new:
                threading.Thread(target=self._work, name="outbox-aside", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            future, call, arguments, named = self._asked.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*arguments, **named))
                except BaseException as error:  # noqa: BLE001 -- belongs to whoever asked
                    future.set_exception(error)
            del future, call, arguments, named
            self._idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nobody waits."""
