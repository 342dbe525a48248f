"""A connection to a relay: asyncio around a dialogue.

The dialogue decides what is said; this module writes it, waits for the answer as long as the stage allows, keeps the
body from running ahead of the network, and calls for the dot mark. A plain `asyncio.Protocol` with one timer and two
futures a message: no streams, no tasks.

Deadlines are total: set when a reply is expected, and nothing that arrives but the whole reply moves them. The body has
its deadline for each 64 KiB that the network takes. While only our own dot mark is waited for, there is none.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from outbox.core.outcome import Envelope, Report, Stage
from outbox.core.reply import sanitise
from outbox.smtp.dial import dial, is_loopback, pin_fault, settings_flaw, tls_context, tls_fault, tls_name, unread
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.opening import opening
from outbox.smtp.relay import Deadlines, Relay
from outbox.smtp.session import Action, Body, Derive, Done, Say, Session, Steps, ours
from outbox.smtp.transaction import leave, reset, stuffed, transaction

if TYPE_CHECKING:
    from outbox.core.render import Rendered

__all__ = ["CHUNK", "Connection", "Deadlines", "Mark", "Relay"]

CHUNK = 64 * 1024
"""Octets of a body written at a time; with so much or less of it left, the dot mark is called for."""

Mark = Callable[[], Awaitable[bool]]
"""Commit the dot mark. True: committed, and the claim is still ours. It must end by itself; raising counts as False.
What the relay says while it is awaited is heard before the dot is written.
"""


class Connection(asyncio.Protocol):
    """Made by `Connection.open`. One transaction at a time. `delivered`: messages accepted on it.

    opened_at   loop time; idle_since: loop time at which the last conversation ended
    """

    def __init__(self, relay: Relay, deadlines: Deadlines) -> None:
        self.relay = relay
        self.session = Session(relay)
        self.delivered = 0
        self._loop = asyncio.get_running_loop()
        self.opened_at = self.idle_since = self._loop.time()
        self._deadlines = deadlines
        self._limits = deadlines.by_stage()
        self._dialogue = Dialogue(self.session)
        self._transport: asyncio.Transport | None = None
        self._lost = self._loop.create_future()  # done when the transport is gone
        self._deadline = math.inf  # loop time
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf  # loop time
        self._turn: asyncio.Future[None] | None = None
        self._needed = False  # the coroutine has something to do: TLS, or a key
        self._derive: Derive | None = None
        self._early: list[bytes] | None = None  # what comes before the handshake is judged
        self._done: Done | None = None
        self._content: bytes | None = None  # the body; None outside of one
        self._written = 0  # octets of it
        self._mark_asked = self._marked = False
        self._paused = self._aborted = False

    # ---------------------------------------------------------------- for others

    @classmethod
    async def open(cls, relay: Relay, deadlines: Deadlines | None = None) -> Connection | Report:
        """Connect, secure and sign in. Never raises for what the relay does."""
        flaw = settings_flaw(relay)
        if flaw:
            return Report(Stage.LOCAL, ours(554, "5.3.5", f"the account cannot work: {flaw}"))
        deadlines = deadlines or Deadlines()
        dialled = await dial(relay, deadlines.connect)
        if isinstance(dialled, Report):
            return dialled
        connection = cls(relay, deadlines)
        try:
            await connection._loop.create_connection(lambda: connection, sock=dialled)
        except OSError as error:  # reset before it began
            return Report(Stage.CONNECT, fault=sanitise(str(error)))
        report = await connection._carry_on()
        if report is None and connection.usable:
            return connection
        await connection.close()
        return report or connection._useless()

    async def deliver(self, envelope: Envelope, message: Rendered, mark: Mark) -> Report:
        """One transaction. `mark` is awaited when 64 KiB or less of the body are left (with a small one, before any of
        it is written), and the dot follows only if it says True. Never raises for what the relay does. Cancelled, it
        closes the connection at once.
        """
        assert not self._dialogue.busy, "one transaction at a time"
        if not self.session.usable:
            return self._useless()
        if self.session.dirty:
            failure = await self._converse(reset(self.session))
            if failure is not None:
                return failure
        try:
            self._begin(transaction(self.session, envelope, message))
            if self._done is None:
                await self._next()
            if self._done is None:
                await self._ask_for(mark)
        except BaseException:
            self.abort()
            raise
        report = self._finish()
        assert report is not None
        if report.stage is Stage.DOT and report.reply is not None and report.reply.positive:
            self.delivered += 1
        return report

    async def reset(self) -> bool:
        """RSET: whether the connection is still there, and ready for a transaction."""
        return self.usable and await self._converse(reset(self.session)) is None

    async def close(self) -> None:
        """QUIT, as long as the deadline for it allows, and close. Never raises."""
        if self._transport is None:
            return
        if not (self.session.broken or self._dialogue.busy or self._lost.done() or self._transport.is_closing()):
            with suppress(Exception):
                await self._converse(leave(self.session))
        self.abort()
        await asyncio.wait([self._lost], timeout=1)
        await asyncio.sleep(0)

    def abort(self) -> None:
        """Close at once, saying nothing."""
        self._aborted = True
        self.session.usable, self.session.broken = False, True
        self._rest()
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on it."""
        return self.session.usable and not self._dialogue.busy

    @property
    def relay_name(self) -> str:
        """``host[address]:port`` of the peer."""
        return self.session.relay_name

    @property
    def max_recipients(self) -> int:
        """Of one transaction, as the relay announces it (RFC 9422); 0 when it does not."""
        return self.session.features.max_recipients

    @property
    def starttls_offered(self) -> bool:
        """Whether its first answer to EHLO had STARTTLS; to be remembered, see `Relay.starttls_seen`."""
        return self.session.starttls_offered

    @property
    def tls_name(self) -> str:
        """``"TLSv1.3 TLS_AES_256_GCM_SHA384"``, or ``""``."""
        return self.session.tls_name

    def _useless(self) -> Report:
        """Stale only where it was of use once: a relay that lets us in and closes is not tried again at once."""
        used = self.session.transactions > 0
        fault = "the relay closed the connection, or spoke unasked"
        return replace(self.session.report(Stage.MAIL if used else self.session.stage, fault=fault), stale=used)

    # ---------------------------------------------------------------- conversations

    async def _converse(self, steps: Steps) -> Report | None:
        """A conversation without a body."""
        self._begin(steps)
        return await self._carry_on()

    async def _carry_on(self) -> Report | None:
        """To the end of a conversation that has begun; with TLS on the way, where its steps ask for it."""
        try:
            while self._done is None:
                if self._needed:
                    self._needed = False
                    await (self._secure() if self._derive is None else self._work_out(self._derive))
                else:
                    await self._next()
        except BaseException:
            self.abort()
            raise
        return self._finish()

    def _begin(self, steps: Steps) -> None:
        self._done = None
        self._perform(self._dialogue.begin(steps))

    def _next(self) -> asyncio.Future[None]:
        """Done when the conversation is over or needs its coroutine."""
        self._turn = self._loop.create_future()
        return self._turn

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def _finish(self) -> Report | None:
        done, self._done = self._done, None
        assert done is not None
        self.idle_since = self._loop.time()
        return done.report

    def _perform(self, action: Action | Done) -> None:
        if type(action) is Say:
            if action.octets:
                assert self._transport is not None
                self._transport.write(action.octets)
            self._expect(action.stage)
        elif type(action) is Body:
            self._content, self._written = action.content, 0
            self._mark_asked = self._marked = False
            self._pump()
        elif type(action) is Done:
            self._content, self._done = None, action
            self._deadline = math.inf
            if self.session.broken:
                self.abort()
            self._wake()
        else:
            self._deadline = math.inf  # the handshake has its own, and a key has its iterations
            self._derive = action if type(action) is Derive else None
            self._needed = True
            self._wake()

    async def _work_out(self, derive: Derive) -> None:
        await self._loop.run_in_executor(None, derive.run)  # it takes as long as a hundred messages
        self._derive = None
        if self._done is None:
            self._go_on(self._dialogue.resume())

    async def _secure(self) -> None:
        """The TLS handshake, and on with the conversation, or its end."""
        assert self._transport is not None
        self._early, secured = [], None
        try:
            secured = await self._loop.start_tls(
                self._transport,
                self,
                tls_context(self.relay.ca_file, pinned=bool(self.relay.tls_pins)),
                server_hostname=self.relay.host.removesuffix("."),
                ssl_handshake_timeout=self._deadlines.tls,
            )
        except (OSError, ValueError) as error:
            self._gone()  # the transport does not tell us after a failed handshake
            fault = tls_fault(error)
        else:
            fault = "" if secured else "the relay closed the connection"  # between the handshake and now
        early, self._early = self._early, None
        if self._done is not None:
            return
        if secured is not None:
            self._transport = secured
            secured.set_write_buffer_limits(high=1, low=0)
            peer = secured.get_extra_info("ssl_object")
            self.session.tls_name = tls_name(peer)
            fault = pin_fault(self.relay, peer.getpeercert(binary_form=True))
        if fault or secured is None:
            self._perform(self._dialogue.failed(fault))
            return
        self._go_on(self._dialogue.resume())
        for octets in early:
            self.data_received(octets)

    def _go_on(self, action: Action | Done | None) -> None:
        if action is not None:
            self._perform(action)

    # ---------------------------------------------------------------- the body and the dot mark

    def _pump(self) -> None:
        """Write the next chunk of the body, when the network has taken the one before. When it has taken all and the
        mark is given: the dot.
        """
        transport, content, start = self._transport, self._content, self._written
        assert transport is not None
        if content is None or self._paused or transport.is_closing():
            return
        left = len(content) - start
        if left <= CHUNK and not self._mark_asked:
            self._mark_asked = True
            self._wake()
        if left > 0:
            self._expect(Stage.BODY)
            self._written = start + CHUNK
            transport.write(stuffed(content, start, start + CHUNK))
            if left > CHUNK:
                # By way of the loop, so that a premature reply is read, and others have their turn.
                self._loop.call_soon(self._pump)
            if left > CHUNK or self._paused:
                return
        if not self._marked:
            self._deadline = math.inf  # it is ourselves we wait for
            return
        action = self._dialogue.resume()
        if action is None:
            self._expect(Stage.BODY)  # the relay has begun to say something: hear it out, without the dot
            return
        self._content = None
        self._perform(action)

    async def _ask_for(self, mark: Mark) -> None:
        """The dot mark, while the end of the body is being written; then the end of the conversation."""
        try:
            self._marked = await mark() is True
            refusal = "the dot mark was refused"
        except Exception as error:  # noqa: BLE001 (whatever kept it from being committed)
            refusal = f"the dot mark failed: {error}"
        if self._done is None:
            self._pump() if self._marked else self._perform(self._dialogue.fenced(sanitise(refusal)))
        if self._done is None:
            await self._next()

    # ---------------------------------------------------------------- the clock

    def _expect(self, stage: Stage) -> None:
        """Something must happen within the deadline of `stage`. One timer, moved only when it must ring earlier."""
        self._deadline = self._loop.time() + self._limits[stage]
        if self._rings_at > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = self._deadline
        self._timer = self._loop.call_at(self._rings_at, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, math.inf
        if self._deadline == math.inf:
            return
        if self._loop.time() < self._deadline - 0.001:
            self._set_timer()
            return
        stage = self.session.stage
        limit = f"within {self._limits[stage]:g} s"
        fault = f"the relay took no data {limit}" if stage is Stage.BODY else f"no answer to {stage.upper()} {limit}"
        self._perform(self._dialogue.failed(fault))

    def _rest(self) -> None:
        self._deadline = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, math.inf

    # ---------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # Paused means: the kernel has not taken everything. So the dot is not queued behind a body that is still here.
        self._transport.set_write_buffer_limits(high=1, low=0)
        address = (transport.get_extra_info("peername") or ("",))[0]
        self.session.loopback = is_loopback(address)
        self.session.relay_name = f"{self.relay.host}[{address}]:{self.relay.port}"
        self._begin(opening(self.session))  # now: the banner may come before whoever opens us goes on

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            self._early.append(data)
            return
        self._go_on(self._dialogue.received(data))
        if self.session.broken and not self._dialogue.busy:
            self.abort()

    def eof_received(self) -> None:
        self._broken_off("the relay closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._content is not None and not self.session.encrypted and self._transport is not None:
            # Writing failed; what the relay said before it closed is often why (Postfix reads it, too).
            said = unread(self._transport)
            if said:
                self._go_on(self._dialogue.received(said))
        closed_by = "we" if self._aborted else "the relay"
        self._broken_off(f"the connection broke: {exc}" if exc else f"{closed_by} closed the connection")
        self._gone()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._content is not None:
            self._pump()

    def _broken_off(self, fault: str) -> None:
        self.session.usable, self.session.broken = False, True
        if self._dialogue.busy:
            self._perform(self._dialogue.failed(sanitise(fault)))

    def _gone(self) -> None:
        self.session.usable, self.session.broken = False, True
        self._rest()
        if not self._lost.done():
            self._lost.set_result(None)
