"""One SMTP session without I/O: octets in, actions out.

    action = dialogue.begin(opening(session))      Say: write its octets, wait for a reply (a deadline by its stage)
    action = dialogue.received(octets)             Body: write it, get the dot mark, then resume()
    action = dialogue.resume()                     SECURE: do the TLS handshake, then resume()
                                                   Derive: run() it on another thread, then resume()
    action = dialogue.failed("closed")             Done: the conversation is over, with its report
    action = dialogue.fenced("claim lost")         None: go on waiting

It knows no clock and no socket, so that any order and any fragmentation of events is a function call in a test. Rules
it keeps for every conversation: nothing is said while something unasked lies unread, TLS does not begin on octets that
came in clear (response injection, RFC 3207 §6), and a malformed reply ends the connection.
"""

from __future__ import annotations

from outbox.core.reply import MalformedReply, ReplyParser
from outbox.smtp.session import Action, Body, Derive, Done, Fault, Fenced, Say, Secure, Sent, Session, Steps


class Dialogue:
    """The conversation of `session`, one at a time. `busy` while one is going on."""

    __slots__ = ("_parser", "_steps", "_waiting", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self._parser = ReplyParser()
        self._steps: Steps | None = None
        self._waiting: Action | None = None

    @property
    def busy(self) -> bool:
        return self._steps is not None

    def begin(self, steps: Steps) -> Action | Done:
        """Start a conversation."""
        assert self._steps is None, "one conversation at a time"
        self._steps = steps
        return self._advance(None)

    def received(self, octets: bytes) -> Action | Done | None:
        """What the relay sent. None: not yet an answer, or nobody had asked: then the session is of no further use."""
        self._parser.feed(octets)
        if self._steps is None:
            self.session.usable, self.session.broken = False, True
            return None
        if type(self._waiting) is Secure:
            return self.failed("the relay spoke in clear when TLS was to begin")
        if type(self._waiting) is Derive:
            return self.failed("the relay spoke when it was our turn")
        action: Action | Done | None = None
        try:
            while (reading := self._parser.take()) is not None:
                action = self._advance(reading)
                if type(action) is Done:
                    break
        except MalformedReply as error:
            return self.failed(str(error))
        return action

    def resume(self) -> Action | Done | None:
        """TLS is up, a key is worked out, or all of the body is written and marked. None: a reply has begun to arrive,
        so it is not the time for the dot.
        """
        if type(self._waiting) is Body and self._parser.pending:
            return None
        return self._advance(None)

    def failed(self, fault: str) -> Done:
        """The connection is closed, silent or incomprehensible."""
        return self._throw(Fault(fault))

    def fenced(self, reason: str) -> Done:
        """The dot mark was not given."""
        return self._throw(Fenced(reason))

    def _advance(self, sent: Sent) -> Action | Done:
        assert self._steps is not None
        try:
            action = self._waiting = self._steps.send(sent)
        except StopIteration as end:
            return self._end(end)
        if type(action) is Say:
            if action.octets and self._parser.pending:
                return self.failed("the relay said more than its answer")
        elif type(action) is Secure and self._parser.pending:
            return self.failed("the relay said more than its answer to STARTTLS, in clear: injected")
        return action

    def _throw(self, fault: Fault) -> Done:
        assert self._steps is not None
        self.session.usable, self.session.broken = False, True
        try:
            self._steps.throw(fault)
        except StopIteration as end:
            return self._end(end)
        raise AssertionError("a conversation goes on after its connection failed")  # pragma: no cover -- ours would

    def _end(self, end: StopIteration) -> Done:
        self._steps = self._waiting = None
        if self._parser.pending:  # an answer too many: the next one would be taken for another's
            self.session.usable, self.session.broken = False, True
        return Done(end.value)
