"""Connections kept for reuse, so that a message costs one transaction and not one TCP, TLS and AUTH handshake.

**Key.** A connection is used again only under the key it was made for: account name, credential version, and whatever
else makes two connections different. So credentials never cross, and a changed password is used from the next message
on. **Liveness.** A connection that the relay closed while it was idle is normal, costs nobody an attempt, and is not
even mentioned: it is replaced. RSET asks the question where a connection was idle for long or has a failed transaction
to end, and not after a clean 250, because some relays count RSETs as junk. What dies unasked shows in `Report.stale`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

from outbox.core.outcome import Report
from outbox.smtp.connection import Connection
from outbox.smtp.relay import Deadlines, Relay

PROBE_AFTER = 30.0
"""Seconds of idleness after which RSET asks whether a connection is still there."""

MAX_AGE = 300.0
"""Seconds after which a connection is replaced, used or not."""

MAX_IDLE = 10.0
"""Seconds of idleness after which `close_idle` closes it: some relays allow an account three connections in all."""

Key = tuple[Hashable, ...]
"""(account name, credential version, …)"""


class Pool:
    """Idle connections by key. Belongs to one event loop. Times are those of the loop's clock, in seconds."""

    def __init__(
        self,
        deadlines: Deadlines | None = None,
        *,
        probe_after: float = PROBE_AFTER,
        max_age: float = MAX_AGE,
        max_idle: float = MAX_IDLE,
    ) -> None:
        self._deadlines = deadlines or Deadlines()
        self._probe_after, self._max_age, self._max_idle = probe_after, max_age, max_idle
        self._idle: dict[Key, list[Connection]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def take(self, key: Key, relay: Relay) -> Connection | Report:
        """The connection of this key that was used last, or a new one, or why there is none."""
        kept = self._idle.get(key)
        now = self._now() if kept else 0.0
        while kept:
            connection = kept.pop()
            if not self._is_spent(connection, now) and (
                not self._is_doubtful(connection, now) or await connection.reset()
            ):
                return connection
            self._close_aside(connection)
        self._idle.pop(key, None)
        return await Connection.open(relay, self._deadlines)

    async def give(self, key: Key, connection: Connection) -> None:
        """Keep it for the next message, or close it where it is of no more use. Does not wait for that."""
        if self._is_spent(connection, connection.idle_since):
            self._close_aside(connection)
        else:
            self._idle.setdefault(key, []).append(connection)

    async def drop(self, account: str) -> None:
        """Close the idle connections of an account: its credentials have changed, or it is paused."""
        for key in [each for each in self._idle if each and each[0] == account]:
            for connection in self._idle.pop(key):
                self._close_aside(connection)

    async def close_idle(self) -> None:
        """Close what has been idle for too long, or is gone. To be called every few seconds."""
        now = self._now()
        for key, kept in list(self._idle.items()):
            old = [each for each in kept if self._is_spent(each, now) or now - each.idle_since > self._max_idle]
            kept[:] = [each for each in kept if each not in old]
            if not kept:
                del self._idle[key]
            for connection in old:
                self._close_aside(connection)

    async def close(self) -> None:
        """Close everything, and wait until it is closed."""
        for kept in self._idle.values():
            for connection in kept:
                self._close_aside(connection)
        self._idle.clear()
        while self._closing:
            await asyncio.wait(self._closing)

    @property
    def idle(self) -> int:
        """How many connections are kept."""
        return sum(map(len, self._idle.values()))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _is_spent(self, connection: Connection, now: float) -> bool:
        return (
            not connection.usable
            or connection.session.transactions >= connection.relay.max_messages
            or now - connection.opened_at > self._max_age
        )

    def _is_doubtful(self, connection: Connection, now: float) -> bool:
        return connection.session.dirty or now - connection.idle_since > self._probe_after

    def _close_aside(self, connection: Connection) -> None:
        closing = asyncio.get_running_loop().create_task(connection.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
