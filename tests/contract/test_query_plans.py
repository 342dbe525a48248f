"""What people ask, and what a runner does, costs the same however much was sent before: counted, not timed.

The same is asked of a database with some past and of one with four times as much. What reads the past costs four times
as much there; what finds its rows by an index costs the same, but for a level of that index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import peewee
import pytest

from outbox.clock import Clock
from outbox.store import Pick, open_store, runners
from outbox.store.database import connect, dialect
from outbox.store.migrate import apply
from tests.bench.past import build
from tests.contract.stores import ME, sent
from tests.plans import Seen, observed
from tests.questions import handful, questions, reads_more

SHORT, LONG = 6_000, 24_000
BATCH = 20
BIG = {"outbox", "outbox_delivery_final", "outbox_attempt", "outbox_recipient"}
"""What grows with the years, on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Pasts:
    """The same handful of mail of today behind a short past and behind a long one."""

    short: peewee.Database
    long: peewee.Database
    urls: tuple[str, str]


@contextmanager
def past(url: str, count: int) -> Iterator[peewee.Database]:
    with closing(connect(url)) as db:
        apply(db)
        build(db, count)
        handful(url)
        if dialect(db) == "postgres":
            db.execute_sql("VACUUM ANALYZE")
            for way in ("seqscan", "hashjoin", "mergejoin"):  # quick while tables are small, as here; not the others
                db.execute_sql(f"SET enable_{way} = off")
        yield db


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def pasts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pasts]:
    if request.param == "sqlite":
        folder: Path = tmp_path_factory.mktemp("pasts")
        urls = (f"sqlite:///{(folder / 'short.db').as_posix()}", f"sqlite:///{(folder / 'long.db').as_posix()}")
        with past(urls[0], SHORT) as short, past(urls[1], LONG) as long:
            yield Pasts(short, long, urls)
        return
    copies: Any = request.getfixturevalue("_postgres_copies")
    with copies.fresh() as first, copies.fresh() as second, past(first, SHORT) as short, past(second, LONG) as long:
        if not short.execute_sql("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()[0]:
            pytest.skip("auto_explain needs a superuser")
        yield Pasts(short, long, (first, second))


def grows(short: Seen, long: Seen) -> bool:
    """Whether that is more than what deeper indexes cost: PostgreSQL's are of two levels there, and of three here."""
    return long.cost > 2 * short.cost + 60


def test_no_question_costs_more_for_the_years_before(pasts: Pasts) -> None:
    again = dict(questions(pasts.long))
    grown = {}
    for name, ask in questions(pasts.short):
        if reads_more(name):
            continue
        ask()  # what is asked for the first time reads the schema
        again[name]()
        with observed(pasts.short) as short:
            ask()
        with observed(pasts.long) as long:
            again[name]()
        assert short.plans, name
        if grows(short, long):
            grown[name] = f"{short.cost} → {long.cost}\n" + "\n".join(long.plans)
    assert not grown, "\n".join(f"{name}: {plans}" for name, plans in grown.items())


def test_what_reads_more_than_its_answer_does_not_read_the_past(pasts: Pasts) -> None:
    """It is bounded by the days, by the senders, by what was not sent, or by how much is counted."""
    for name, ask in questions(pasts.long):
        if reads_more(name) and ": numbers" not in name:
            with observed(pasts.long) as seen:
                ask()
            assert not seen.scanned & BIG, "\n".join([name, *seen.plans])
            assert seen.cost < 4 * LONG, "\n".join([name, str(seen.cost), *seen.plans])


def test_a_runner_claims_and_settles_at_the_cost_of_an_empty_database(pasts: Pasts) -> None:
    claims, settlements = [], []
    for db, url in zip((pasts.short, pasts.long), pasts.urls, strict=True):
        claiming, settling = worked(db, url)
        claims.append(claiming)
        settlements.append(settling)
    for short, long in (claims, settlements):
        assert not grows(short, long), f"{short.cost} → {long.cost}\n" + "\n".join(long.plans)
        assert not long.scanned & BIG


def test_a_claim_does_not_look_at_what_is_scheduled_or_paused(pasts: Pasts) -> None:
    before, _ = worked(pasts.short, pasts.urls[0])
    later = (datetime.now(UTC) + timedelta(days=7)).isoformat()
    mark = pasts.short.param
    sql = f"INSERT INTO outbox (sender, recipients, text_body, due_at) VALUES ({', '.join([mark] * 4)})"
    with pasts.short.atomic():
        for sender, due_at in (("due@example.com", later), ("away@example.com", None)):
            pasts.short.cursor().executemany(sql, [(sender, "ann@example.net", "Hi", due_at)] * 3000)
    if dialect(pasts.short) == "postgres":
        pasts.short.execute_sql("VACUUM ANALYZE outbox_delivery_live")
    after, _ = worked(pasts.short, pasts.urls[0])
    assert not grows(before, after), f"{before.cost} → {after.cost}\n" + "\n".join(after.plans)


def worked(db: peewee.Database, url: str) -> tuple[Seen, Seen]:
    """What a runner's claim of a batch cost, and what its settlement."""
    mark = db.param
    sql = f"INSERT INTO outbox (sender, recipients, text_body) VALUES ({', '.join([mark] * 3)})"
    with db.atomic():
        db.cursor().executemany(sql, [("due@example.com", "ann@example.net", "Hi")] * BATCH)
    if dialect(db) == "postgres":
        db.execute_sql("VACUUM ANALYZE outbox_delivery_live")
    with closing(open_store(url, Clock())) as store:
        store.open()
        now = store.now() + timedelta(seconds=1)
        with store.transaction():
            if not db.execute_sql(f"SELECT 1 FROM outbox_runner WHERE id = {mark}", (ME,)).fetchone():
                runners.register(store, ME, host="web1", pid=1, version="0", now=now, lease=timedelta(hours=1))
        with store.transaction(), observed(store.db) as claiming:
            store.lanes("", 64)
            claims = store.claim(ME, [Pick("due@example.com", 5, BATCH)], now)
        assert len(claims) == BATCH
        with store.transaction(), observed(store.db) as settling:
            store.settle([sent(each) for each in claims], now)
    return claiming, settling
