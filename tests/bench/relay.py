"""A relay that takes everything and keeps nothing, with a delay before it answers the end of a message:
``python -m tests.bench.relay PORT MILLISECONDS``. It offers PIPELINING, and writes the count of mails it has taken to
its standard output whenever that has changed, at most a hundred times a second, as smtp-sink does with ``-c``.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque

EHLO = b"250-bench.invalid\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 52428800\r\n250 ENHANCEDSTATUSCODES\r\n"
REPLIES = {
    b"EHLO": EHLO,
    b"HELO": b"250 bench.invalid\r\n",
    b"MAIL": b"250 2.1.0 Ok\r\n",
    b"RCPT": b"250 2.1.5 Ok\r\n",
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"DATA": b"354 End data with <CR><LF>.<CR><LF>\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
TAKEN = b"250 2.0.0 Ok: queued as %d\r\n"
END = b"\r\n.\r\n"
HALF_A_TICK = 0.0005
"""asyncio's timers are late by up to a millisecond: what is due within half of one is answered, so that the delay is
right on the whole.
"""


class Relay:
    """What all sessions share: the count, and the answers that are not due yet."""

    def __init__(self, delay: float) -> None:
        self.taken = 0
        self._delay = delay
        self._later: deque[tuple[float, asyncio.Transport, bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timed = False

    def take(self, transport: asyncio.Transport) -> None:
        self.taken += 1
        answer = TAKEN % self.taken
        if not self._delay:
            transport.write(answer)
            return
        self._later.append((self._loop.time() + self._delay, transport, answer))
        if not self._timed:
            self._timed = True
            self._loop.call_at(self._later[0][0] - HALF_A_TICK, self._answer)

    def _answer(self) -> None:
        now = self._loop.time() + HALF_A_TICK
        while self._later and self._later[0][0] <= now:
            _, transport, answer = self._later.popleft()
            if not transport.is_closing():
                transport.write(answer)
        self._timed = bool(self._later)
        if self._timed:
            self._loop.call_at(self._later[0][0] - HALF_A_TICK, self._answer)

    async def tell(self) -> None:
        told = 0
        while True:
            if told != self.taken:
                told = self.taken
                sys.stdout.write(f"mesg={told}\r")
                sys.stdout.flush()
            await asyncio.sleep(0.01)


class Session(asyncio.Protocol):
    """One client."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._buffer = b""
        self._content = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(b"220 bench.invalid ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        while self._buffer and (self._end_content() if self._content else self._obey(replies)):
            pass
        if replies:
            self._transport.write(b"".join(replies))

    def _end_content(self) -> bool:
        """Whether the end of the message has come. What is known not to hold it is not kept."""
        head, end, rest = self._buffer.partition(END)
        if not end:
            self._buffer = head[-len(END) :]
            return False
        self._buffer, self._content = rest, False
        self._relay.take(self._transport)
        return True

    def _obey(self, replies: list[bytes]) -> bool:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        verb = line[:4].upper()
        self._buffer = rest
        self._content = verb == b"DATA"
        replies.append(REPLIES.get(verb, b"502 5.5.1 Not here\r\n"))
        if self._content:
            self._buffer = b"\r\n" + rest  # so that a message of no lines ends, too
        if verb == b"QUIT":
            self._transport.write(b"".join(replies))
            replies.clear()
            self._transport.close()
        return True


async def serve(port: int, delay: float) -> None:
    relay = Relay(delay)
    server = await asyncio.get_running_loop().create_server(lambda: Session(relay), "127.0.0.1", port, backlog=1024)
    async with server:
        await relay.tell()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
