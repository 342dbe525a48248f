"""What else people use to send a backlog, beside us in the same run, each in an environment of its own.

Everybody sends the same mails to the same smtp-sink out of their own queue, on disk as they ship it (SQLite's and
PostgreSQL's own defaults: every commit is synced). A peer's rate is that from its first mail to its last, so that its
start is not counted; ours from our first claim to our last settlement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.bench.drain import CONNECTIONS, SLOW, SLOW_CONNECTIONS, drained
from tests.bench.figures import Bench, Figure, Unmeasurable, at_least
from tests.bench.ground import Sink
from tests.bench.peers.postfix import Postfix
from tests.bench.peers.rival import Peer

TOPIC = "peers"
POST_OFFICE_DEFAULT = "django-post_office"
POSTFIX_DEFAULT = "Postfix"
POST_OFFICE = ("django-post_office==3.12.0", "Django>=5.2,<6")
PROCRASTINATE = ("procrastinate==3.10.0", "psycopg[binary]>=3.2")
HUEY_THREADS = 16
HUEY_PACKAGE = ("huey==3.5.4",)
CONSUMER = ("huey_consumer", "tests.bench.foreign.with_huey.huey", "-n", "-q", "-k")
HUEY = Peer(
    f"huey, {HUEY_THREADS} threads",
    "SQLite; each keeps its connection",
    HUEY_PACKAGE,
    "with_huey",
    sender=(*CONSUMER, "thread", "-w", str(HUEY_THREADS)),
)
HUEY_PROCESSES = Peer(
    "huey, 2 processes",
    "SQLite; each keeps its connection",
    HUEY_PACKAGE,
    "with_huey",
    sender=(*CONSUMER, "process", "-w", "2"),
)
TUNED_POSTFIX = {
    "initial_destination_concurrency": "20",
    "smtp_connection_cache_on_demand": "no",
    "disable_dns_lookups": "yes",
}
"""The best of what was tried: 4 to 100 deliveries at a time, with and without its cache of connections."""

PEERS: tuple[Peer | Postfix, ...] = (
    Peer(POST_OFFICE_DEFAULT, "as it ships: one process, 5 threads, batches of 100", POST_OFFICE, "with_post_office"),
    Peer(
        "django-post_office, tuned",
        "SQLite in WAL, 2 processes of 2 threads, batches of 1,000, success not logged",
        POST_OFFICE,
        "with_post_office",
        tuned=True,
    ),
    HUEY,
    HUEY_PROCESSES,
    Peer(
        "procrastinate, tuned",
        "2 processes, 16 tasks at a time; each sends in its loop, best with a relay this near",
        PROCRASTINATE,
        "with_procrastinate",
        tuned=True,
        processes=2,
        on_postgres=True,
    ),
    Peer("django-mailer", "SQLite in WAL", ("django-mailer==2.3.2", "Django>=5.2,<6"), "with_mailer"),
    Postfix(POSTFIX_DEFAULT, "as it ships; its queue full before its manager starts"),
    Postfix("Postfix, tuned", "20 deliveries at a time from the start, connections not cached, no DNS", TUNED_POSTFIX),
)


def measure(bench: Bench) -> Iterator[Figure]:
    with Sink(bench, counted=True) as sink:
        ours = drained(bench, "sqlite", sink.port, bench.size(50_000, 4_000)).rate
        rates = dict(_rates(bench, sink))
    yield from ratios(ours, {peer.name: rate for peer, rate in rates.items()})
    yield Figure(TOPIC, "Outbox", ours, "mails/s", note=f"one process, SQLite, {CONNECTIONS} connections")
    for peer, rate in rates.items():
        yield Figure(TOPIC, peer.name, rate, "mails/s", note=f"{peer.version}: {peer.settings}")
    yield from with_a_slow_relay(bench)


def _rates(bench: Bench, sink: Sink) -> Iterator[tuple[Peer | Postfix, float]]:
    """Of each that can be measured here: its best turn."""
    for peer in PEERS:
        try:
            turns = range(bench.size(2, 1))
            yield peer, max(peer.rate(bench, sink, bench.size(10_000, 2_000)) for _ in turns)
        except (Unmeasurable, RuntimeError) as why:
            bench.say(f"{peer.name} IS NOT MEASURED: {why}")


def with_a_slow_relay(bench: Bench) -> Iterator[Figure]:
    """At equal connections everybody waits for the relay; what then counts is how many are held, and how cheaply."""
    with Sink(bench, delay=SLOW, counted=True) as sink:
        try:
            theirs = HUEY.rate(bench, sink, bench.size(3_000, 600))
        except (Unmeasurable, RuntimeError) as why:
            bench.say(f"{HUEY.name} IS NOT MEASURED: {why}")
            return
        equal = drained(bench, "sqlite", sink.port, bench.size(3_000, 600), connections=HUEY_THREADS).rate
        many = drained(bench, "sqlite", sink.port, bench.size(30_000, 4_000), connections=SLOW_CONNECTIONS).rate
    about = f"as fast as {HUEY.name}, relay takes 50 ms"
    note = f"both with {HUEY_THREADS} connections: {equal:,.0f} and {theirs:,.0f} mails/s"
    yield Figure(TOPIC, f"{about}, equal", equal / theirs, "×", note=note)
    note = f"one process with {SLOW_CONNECTIONS} connections: {many:,.0f} mails/s"
    yield Figure(TOPIC, f"{about}, many", many / theirs, "×", note=note)


def ratios(ours: float, rates: Mapping[str, float]) -> Iterator[Figure]:
    """How many times as fast we are, by the name of each. Two are held to what they do as they ship."""
    for name, bound in ((POST_OFFICE_DEFAULT, 10), (POSTFIX_DEFAULT, 9)):
        if name in rates:
            yield at_least(TOPIC, f"as fast as {name}", ours / rates[name], "×", bound)
    others = sorted(rates.keys() - {POST_OFFICE_DEFAULT, POSTFIX_DEFAULT}, key=lambda name: -rates[name])
    if others:
        best = others[0]
        yield at_least(TOPIC, "as fast as the best tuned peer", ours / rates[best], "×", 5, best)
    for name in others:
        yield Figure(TOPIC, f"as fast as {name}", ours / rates[name], "×")
