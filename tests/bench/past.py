"""A long past, made quickly: finished messages in their millions, as a few years of sending leave them.

with fresh(bench, "sqlite") as ground:
    build(ground.db, 10_000_000)      # ids 1 … 10,000,000; what is enqueued from now on follows

Of 1,000 messages 5 failed, 5 expired, 5 were cancelled, 2 were sent after a doubt, and the others were sent at once, by
SENDERS senders, evenly over two years up to ENDED days ago. The rows are written past triggers, CHECKs and indexes,
which are put back: what is in the database then is what the program itself would have left there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import peewee

from outbox.clock import Clock

SENDERS = 50
"""``shop@example.com`` is one of them, the others are ``s7@past.example``."""

SHOP = "shop@example.com"
SPAN = timedelta(days=730)
ENDED = timedelta(days=40)
CHUNK = 500_000

Say = Callable[[str], None]

_STATE = """CASE WHEN n % 200 = 0 THEN 'failed' WHEN n % 200 = 50 THEN 'expired' WHEN n % 200 = 100 THEN 'cancelled'
  ELSE 'sent' END"""
_SENDER = f"CASE WHEN n % {SENDERS} = 0 THEN '{SHOP}' ELSE 's' || (n % {SENDERS}) || '@past.example' END"
_DOUBT = "(n % 500 = 13)"
_ADDRESS = "'customer' || (n * 2654435761 % 2147483647) || '@example.net'"  # no order: as addresses come
_REPLY = """CASE WHEN n % 200 = 0 THEN 550 WHEN n % 200 = 50 THEN 451 ELSE 250 END,
  CASE WHEN n % 200 = 0 THEN '5.1.1' WHEN n % 200 = 50 THEN '4.7.1' ELSE '2.0.0' END,
  CASE WHEN n % 200 = 0 THEN 'no such user' WHEN n % 200 = 50 THEN 'greylisted' ELSE 'Ok: queued' END"""
_RUNNER = "'0123456789abcdef0123456789abcdef'"

# {at} is the moment of message n, {numbers} the numbers from ? to ?.
_OUTBOX = f"""
INSERT INTO outbox (id, token, created_at, dedup_key, tag, sender, recipients, subject, text_body)
SELECT n, {{token}}, {{at}}, CASE WHEN n % 5 = 0 THEN 'past-' || n END,
  CASE WHEN n % 20 = 0 THEN 't' || (n % 1000) END, {_SENDER}, {_ADDRESS}, 'Order ' || n, 'Thanks'
FROM {{numbers}}"""
_DELIVERY = f"""
INSERT INTO outbox_delivery (message_id, state, sender, priority, due_at, on_doubt, claim_no, failures, doubts,
  dot_at, first_attempt_at, final_at, last_code, last_status, last_reply)
SELECT n, {_STATE}, {_SENDER}, 5, {{at}}, 'retry', CASE WHEN {_DOUBT} THEN 2 ELSE 1 END, 0,
  CASE WHEN {_DOUBT} THEN 1 ELSE 0 END, {{at}}, {{at}}, {{at}}, {_REPLY}
FROM {{numbers}}"""
_ATTEMPT = f"""
INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at, dot_at, ended_at, outcome, stage, code,
  status, reply, relay, tls, account, sha256)
SELECT n, claim, {_RUNNER}, {{at}}, {{at}}, {{at}},
  CASE WHEN {_DOUBT} AND claim = 1 THEN 'doubt' WHEN n % 200 = 0 THEN 'bounced' WHEN n % 200 = 50 THEN 'deferred'
    ELSE 'accepted' END, 'dot', {_REPLY}, 'mx.example.net[192.0.2.1]:25', 'TLSv1.3', 'main', {_RUNNER}
FROM {{numbers}} CROSS JOIN (SELECT 1 AS claim UNION ALL SELECT 2) AS claims WHERE claim = 1 OR {_DOUBT}"""
_RECIPIENT = f"""
INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate, code, status, reply, at)
SELECT n, 0, claim, {_ADDRESS}, 'to',
  CASE WHEN {_DOUBT} AND claim = 1 THEN 'doubt' WHEN n % 200 = 0 THEN 'bounced' WHEN n % 200 = 50 THEN 'deferred'
    ELSE 'accepted' END, {_REPLY}, {{at}}
FROM {{numbers}} CROSS JOIN (SELECT 1 AS claim UNION ALL SELECT 2) AS claims WHERE claim = 1 OR {_DOUBT}"""
_TABLES = (_OUTBOX, _DELIVERY, _ATTEMPT, _RECIPIENT)

_SQLITE = {
    "numbers": "(WITH RECURSIVE c (n) AS (SELECT ? UNION ALL SELECT n + 1 FROM c WHERE n < ?) SELECT n FROM c)",
    "token": "printf('%032x', n)",
}
_POSTGRES = {
    "numbers": "(SELECT n FROM generate_series(?::bigint, ?::bigint) AS n) AS numbers",
    "token": "lpad(to_hex(n), 32, '0')",
}


def build(db: peewee.Database, count: int, say: Say = lambda text: None) -> None:
    """Write that many finished messages into a migrated database that has none yet."""
    first = (Clock().now() - ENDED - SPAN).timestamp()
    step = SPAN.total_seconds() / count
    sqlite = isinstance(db, peewee.SqliteDatabase)
    at = f"strftime('%Y-%m-%dT%H:%M:%fZ', {first} + n * {step}, 'unixepoch')"
    if not sqlite:
        at = f"date_trunc('milliseconds', to_timestamp({first} + n * {step}))"
    words = {"at": at, **(_SQLITE if sqlite else _POSTGRES)}
    with _bare_sqlite(db) if sqlite else _bare_postgres(db):
        for start in range(1, count + 1, CHUNK):
            end = min(start + CHUNK - 1, count)
            for table in _TABLES:
                sql = table.format(**words).replace("%", "%" if sqlite else "%%").replace("?", db.param)
                db.execute_sql(sql, (start, end))
            say(f"{end:,} finished messages are in the {'SQLite' if sqlite else 'PostgreSQL'} database")


@contextmanager
def _bare_sqlite(db: peewee.Database) -> Iterator[None]:
    """Without triggers, CHECKs, secondary indexes and a journal."""
    kept = [
        (kind, name, sql)
        for kind, name, sql in db.execute_sql(
            "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
            " AND tbl_name IN ('outbox', 'outbox_delivery', 'outbox_attempt', 'outbox_recipient')"
        ).fetchall()
    ]
    for pragma in ("journal_mode = off", "synchronous = off", "foreign_keys = off", "ignore_check_constraints = on"):
        db.execute_sql(f"PRAGMA {pragma}")
    for kind, name, _ in kept:
        db.execute_sql(f"DROP {kind} {name}")
    yield
    for _, _, sql in kept:
        db.execute_sql(sql)
    for pragma in ("ignore_check_constraints = off", "foreign_keys = on", "synchronous = full", "journal_mode = wal"):
        db.execute_sql(f"PRAGMA {pragma}")


@contextmanager
def _bare_postgres(db: peewee.Database) -> Iterator[None]:
    """Without triggers and secondary indexes; afterwards it is vacuumed and analysed, as by autovacuum."""
    tables = ("outbox", "outbox_delivery", "outbox_delivery_final", "outbox_attempt", "outbox_recipient")
    kept = db.execute_sql(
        "SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid::regclass::text = ANY(%s) AND c.relkind = 'i' AND NOT c.relispartition"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)",
        (list(tables),),
    ).fetchall()
    db.execute_sql("SET synchronous_commit = off")
    db.execute_sql("SET maintenance_work_mem = '256MB'")
    for table in tables:
        db.execute_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    for name, _ in kept:
        db.execute_sql(f"DROP INDEX {name}")
    yield
    for _, definition in kept:
        db.execute_sql(definition)
    for table in tables:
        db.execute_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    db.execute_sql("SELECT setval(pg_get_serial_sequence('outbox', 'id'), (SELECT max(id) FROM outbox))")
    db.execute_sql("VACUUM ANALYZE")
    db.execute_sql("RESET synchronous_commit")
    db.execute_sql("RESET maintenance_work_mem")
