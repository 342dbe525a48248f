"""A runner that ends, or stands still, by itself at a named point: the entry point of the crash matrix.

    run({"arguments": ["run", "-q"], "point": {"name": "mark.written", "turn": 1, "act": "kill"}})

What one part of a runner calls of another is wrapped before it starts; production code knows nothing of that.

    VERB.begun, .written, .committed      a verb of the store that writes: before its first statement; behind its last,
                                          before the COMMIT; behind the COMMIT, before anybody is told
    WHERE.WHAT.begun, …                   the same for what else goes through `Clerk.upkeep`, named after its function
    say.STAGE.before, .after              the runner writes to its relay, in this stage of the dialogue
    heard.STAGE                           the relay has answered, and nothing has been made of it
    connected                             TCP's own
    presence.take.before, …               the lock that shows it to be alive; rescue.save.before, … the rescue file

`act`: "kill" (kill -9), "stop" (SIGSTOP) or "trace". With `trace`, a path, all points are noted there, one a line, as
they are passed. `lose`: the acknowledgement of the first COMMIT with this verb is lost. `deaf`: from this point on the
database cannot be written to.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any

WRITES = ("claim", "claim_one", "mark", "settle", "reclaim", "reclaim_stray", "expire", "tell_delayed")
"""The verbs of `Store` that write."""

SIDES = ("begun", "written", "committed")


class Watch:
    """Counts the points as they are passed, and acts at the one that is asked for."""

    def __init__(self, point: dict[str, Any]) -> None:
        self._name, self._turn = point.get("name", ""), point.get("turn", 1)
        self._act = point.get("act", "trace")
        self._trace = os.open(point["trace"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if "trace" in point else -1
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def passes(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1
            reached = name == self._name and self._counts[name] == self._turn
        if self._trace >= 0:
            os.write(self._trace, name.encode() + b"\n")
        if reached and self._act != "trace":
            os.kill(os.getpid(), signal.SIGKILL if self._act == "kill" else signal.SIGSTOP)

    def has_passed(self, name: str) -> bool:
        return not name or self._counts[name] > 0

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, with a point before and one after it."""

        @wraps(function)
        def watched(*arguments: Any, **named: Any) -> Any:
            self.passes(f"{name}.before")
            result = function(*arguments, **named)
            self.passes(f"{name}.after")
            return result

        return watched


class Verbs:
    """Watches a store: what is written in its transactions."""

    def __init__(self, watch: Watch, store: Any, point: dict[str, Any]) -> None:
        self._watch = watch
        self._lose, self._deaf = point.get("lose", ""), point.get("deaf", "")
        self.written: list[str] = []
        self._transaction, self._single = store.transaction, store.single
        store.transaction, store.single = self.transaction, self.single
        self._inside = False
        for name in WRITES:
            setattr(store, name, self.named(name, getattr(store, name)))

    def named(self, name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(verb)
        def watched(*arguments: Any) -> Any:
            self._watch.passes(f"{name}.begun")
            self.written.append(name)
            return verb(*arguments)

        return watched

    def transaction(self) -> AbstractContextManager[None]:
        return self._watched(self._transaction)

    def single(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """Of one statement, which may be committed by itself before it is `written`."""
        return self._watched(partial(self._single, durable=durable))

    @contextmanager
    def _watched(self, opens: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        from outbox.store import TransientError

        if self._inside:  # `single` has begun a transaction after all
            with opens():
                yield
            return
        self.written.clear()
        if self._deaf and self._watch.has_passed(self._deaf):
            raise TransientError("it is deaf")
        self._inside = True
        try:
            with opens():
                yield
                for name in self.written:
                    self._watch.passes(f"{name}.written")
        finally:
            self._inside = False
        if self._lose in self.written:
            self._lose = ""
            raise TransientError("the acknowledgement is lost", reconnect=True)
        for name in self.written:
            self._watch.passes(f"{name}.committed")


def name_of(verb: Callable[..., Any]) -> str:
    """Where a function of the runner is, and what it is called: ``upkeep.renew``. A lambda is named after its home."""
    while isinstance(verb, partial):
        verb = verb.func
    parts = [each for each in verb.__qualname__.split(".") if not each.startswith("<")]
    return f"{verb.__module__.rpartition('.')[2]}.{parts[-1].lstrip('_')}"


def run(argument: dict[str, Any]) -> None:
    """`outbox ARGUMENTS`, watched."""
    point = argument["point"]
    if point:
        watch_runner(Watch(point), point)
    sys.argv = ["outbox", *argument["arguments"]]
    from outbox.cli.main import main

    main()


def watch_runner(watch: Watch, point: dict[str, Any]) -> None:
    _watch_store(watch, point)
    _watch_connections(watch)
    from outbox.runner import rescue

    service: Any = importlib.import_module("outbox.runner.service")

    for name in ("save", "take", "discard"):
        setattr(rescue, name, watch.around(f"rescue.{name}", getattr(rescue, name)))
    open_presence = service.open_presence

    def opened(*arguments: Any, **named: Any) -> Any:
        presence: Any = open_presence(*arguments, **named)
        presence.take = watch.around("presence.take", presence.take)
        presence.release = watch.around("presence.release", presence.release)
        return presence

    service.open_presence = opened


def _watch_store(watch: Watch, point: dict[str, Any]) -> None:
    from outbox.runner.writing.clerk import Clerk

    assembly: Any = importlib.import_module("outbox.runner.assembly")
    open_store, upkeep = assembly.open_store, Clerk.upkeep
    verbs: list[Verbs] = []

    def opened(*arguments: Any) -> Any:
        store = open_store(*arguments)
        verbs.append(Verbs(watch, store, point))
        return store

    def watched(self: Clerk, verb: Callable[..., Any]) -> Any:
        return upkeep(self, verbs[0].named(name_of(verb), verb))

    assembly.open_store = opened
    Clerk.upkeep = watched  # type: ignore[method-assign]


def _watch_connections(watch: Watch) -> None:
    from outbox.smtp.connection import Connection

    received, made = Connection.data_received, Connection.connection_made

    def data_received(self: Connection, data: bytes) -> None:
        watch.passes(f"heard.{self.session.stage}")
        received(self, data)

    def connection_made(self: Connection, transport: Any) -> None:
        watch.passes("connected")
        made(self, transport)

    def get(self: Connection) -> Any:
        return self.__dict__.get("_watched")

    def put(self: Connection, transport: Any) -> None:
        self.__dict__["_watched"] = transport and Wire(watch, self, transport)

    Connection.data_received = data_received  # type: ignore[method-assign]
    Connection.connection_made = connection_made  # type: ignore[method-assign]
    Connection._transport = property(get, put)  # type: ignore[assignment]


class Wire:
    """A transport, whose writes are watched."""

    def __init__(self, watch: Watch, connection: Any, transport: Any) -> None:
        self._watch, self._connection, self._inner = watch, connection, transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, octets: bytes) -> None:
        stage = self._connection.session.stage
        self._watch.passes(f"say.{stage}.before")
        self._inner.write(octets)
        self._watch.passes(f"say.{stage}.after")
