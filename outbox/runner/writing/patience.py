"""How the clerk meets a fault of the database that passes: by trying the same again, for as long as the clerk lives.

What a person has to know is said once, at once for a full disk, a broken connection or a file that is gone, after some
seconds for a lock; again every minute; and when it is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from outbox.clock import Clock
from outbox.errors import UnusableDatabase
from outbox.runner.writing.request import AbandonedError
from outbox.store import Store, TransientError

log = logging.getLogger("outbox.clerk")

T = TypeVar("T")

TOLD_AFTER = 5.0
"""Seconds for which a lock is nothing to talk about."""

TOLD_AGAIN = 60.0


class Patience:
    """Belongs to the clerk's thread. `is_abandoned()`: nobody waits any more. `on_wait()` is called for each fault,
    `on_return()` when we have connected again, perhaps to a file that others have written.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        is_abandoned: Callable[[], bool],
        on_wait: Callable[[], None],
        on_return: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._is_abandoned = is_abandoned
        self._on_wait = on_wait
        self._on_return = on_return
        self._broken = False
        self.broken_at = float("-inf")
        """When a connection last broke, by the monotonic clock."""

    def until_done(self, verb: Callable[[], T]) -> T:
        """Try until it works: 0.2 ms at first (a lock is short), a second at last. Raises what does not pass, and
        AbandonedError.
        """
        delay, since, told_at = 0.0002, self._clock.monotonic(), float("-inf")
        while True:
            try:
                if self._broken:
                    self._reconnect()
                answer = verb()
            except TransientError as error:
                if self._is_abandoned():
                    raise AbandonedError from error
                self._broken = error.reconnect
                now = self._clock.monotonic()
                if self._broken:
                    self.broken_at = now
                    delay = max(delay, 0.05)
                self._on_wait()
                if (error.grave or now - since > TOLD_AFTER) and now - told_at > TOLD_AGAIN:
                    told_at = now
                    log.warning("waiting for the database: %s", error)
                self._clock.sleep(delay)
                # While the fault looks like another writer's lock, look again soon: waiting longer is how one starves.
                delay = min(delay * 2, 0.001 if now - since < 1 else 1.0)
            else:
                if told_at > float("-inf"):
                    log.warning("the database answers again, after %.1f s", self._clock.monotonic() - since)
                return answer

    def _reconnect(self) -> None:
        try:
            self._store.close()
            self._store.open()
        except UnusableDatabase:
            raise
        except Exception as error:  # whatever keeps us from connecting may pass
            raise TransientError(str(error), reconnect=True) from error
        self._broken = False
        self._on_return()
