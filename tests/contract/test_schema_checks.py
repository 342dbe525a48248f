"""Every CHECK refuses what it should, and its name in the error tells the writer what is wrong. Over both databases."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import peewee
import pytest

from outbox.store.database import Dialect, dialect
from outbox.store.migrate import migrations
from outbox.store.statements import origin_of
from tests.statements import insert, one, refused, run

MIB = 1024 * 1024
CAP = 25 * MIB


@dataclass(frozen=True, slots=True)
class Refusal:
    """`statement`, after one mail was inserted, violates `constraint`. `only`: the dialect where it can be written."""

    constraint: str
    statement: str
    values: tuple[Any, ...] = ()
    only: str = ""


def _mail(constraint: str, only: str = "", **columns: Any) -> Refusal:
    return _row(
        "outbox",
        constraint,
        {"id": 2, "sender": "a@example.com", "recipients": "b@example.net", "text_body": "x"},
        columns,
        only,
    )


def _attachment(constraint: str, only: str = "", **columns: Any) -> Refusal:
    return _row(
        "outbox_attachment",
        constraint,
        {"message_id": 1, "position": 0, "filename": "a.pdf", "content": b"%PDF"},
        columns,
        only,
    )


def _account(constraint: str, **columns: Any) -> Refusal:
    return _row(
        "outbox_account", constraint, {"name": "main", "relay_host": "h", "relay_port": 25, "tls": "none"}, columns
    )


def _recipient(constraint: str, **columns: Any) -> Refusal:
    good = {"message_id": 1, "position": 0, "claim_no": 1, "address": "a@b", "kind": "to", "fate": "accepted"}
    return _row("outbox_recipient", constraint, good, columns)


def _row(table: str, constraint: str, good: dict[str, Any], bad: dict[str, Any], only: str = "") -> Refusal:
    columns = {name: value for name, value in {**good, **bad}.items() if value is not None}
    marks = ", ".join("?" * len(columns))
    return Refusal(
        constraint, f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values()), only
    )


def _delivery(constraint: str, assignments: str, only: str = "") -> Refusal:
    return Refusal(constraint, f"UPDATE outbox_delivery SET {assignments}", (), only)


_HEADER_COLUMNS = ("sender_name", "return_path", "recipients", "cc", "bcc", "reply_to", "subject")
_CONTENT = [
    _mail("outbox_id_positive", id=0),
    _mail("outbox_token_hex", token="abc"),
    _mail("outbox_token_hex", token="0123456789abcdef>\r\nBcc: x"),
    _mail("outbox_created_at_real", created_at="1969-12-31"),
    _mail("outbox_created_at_real", "sqlite", created_at="now"),
    _mail("outbox_source_short", source=""),
    _mail("outbox_source_short", source="x" * 65),
    _mail("outbox_priority_0_to_9", priority=10),
    _mail("outbox_priority_0_to_9", priority=-1),
    _mail("outbox_priority_0_to_9", "sqlite", priority=5.5),
    _mail("outbox_priority_0_to_9", "sqlite", priority="urgent"),
    _mail("outbox_on_doubt_retry_or_hold", on_doubt="ask"),
    *[
        _mail(f"outbox_{column}_real", only, **{column: date})
        for column in ("due_at", "expires_at")
        for only, date in [
            ("", "1969-12-31"),
            ("", "9999-12-31"),
            ("postgres", "infinity"),
            ("postgres", "0044-03-15 BC"),
            ("sqlite", "10:00"),
            ("sqlite", "2026-02-30"),
            ("sqlite", "2026-03-01T24:61"),
        ]
    ],
    _mail("outbox_dedup_key_short", dedup_key=""),
    _mail("outbox_dedup_key_short", dedup_key="x" * 501),
    _mail("outbox_tag_short", tag="x" * 256),
    *[
        _mail("outbox_sender_bare_address", sender=sender)
        for sender in (
            "", " ", "shop", "shop@", "@example.com", "Shop <shop@example.com>", "a b@example.com", "a@b@example.com",
            "a@example.com, b@example.com", "a@example.com\n", "a\r\n@example.com", "a\x7f@example.com",
            "a\t@example.com", "x" * 320 + "@example.com",
        )
    ],
    *[
        _mail(f"outbox_{column}_no_line_breaks", **{column: f"a@example.com{breaker}Bcc: evil@example.org"})
        for column in _HEADER_COLUMNS
        for breaker in ("\r", "\n", "\r\n")
    ],
    *[
        _mail(f"outbox_{column}_no_line_breaks", "sqlite", **{column: "a@example.com\0"}) for column in _HEADER_COLUMNS
    ],
    _mail("outbox_sender_bare_address", "sqlite", sender="a@example.com\0"),
    _mail("outbox_sender_name_short", sender_name="x" * 1001),
    _mail("outbox_return_path_short", return_path="x" * 321),
    _mail("outbox_recipients_at_most_1_mib", recipients="x" * (MIB + 1)),
    _mail("outbox_cc_at_most_1_mib", cc="ü" * (MIB // 2 + 1)),
    _mail("outbox_bcc_at_most_1_mib", bcc="x" * (MIB + 1)),
    _mail("outbox_reply_to_short", reply_to="x" * 10_001),
    _mail("outbox_subject_short", subject="x" * 2001),
    _mail("outbox_headers_json_object", headers="[]"),
    _mail("outbox_headers_json_object", headers='"X-Order: 7"'),
    _mail("outbox_headers_json_object", "sqlite", headers="X-Order: 7"),
    _mail("outbox_headers_at_most_256_kib", headers='{"X-A": "' + "x" * (256 * 1024) + '"}'),
    _mail("outbox_text_body_at_most_25_mib", text_body="x" * (CAP + 1)),
    _mail("outbox_html_body_at_most_25_mib", html_body="x" * (CAP + 1)),
    _mail("outbox_raw_at_most_25_mib", text_body=None, raw=b"x" * (CAP + 1)),
    _mail("outbox_columns_are_text", "sqlite", subject=b"Order 7"),
    _mail("outbox_columns_are_text", "sqlite", text_body=b"Thanks"),
    _mail("outbox_columns_are_text", "sqlite", text_body=None, raw=7),
    _mail("outbox_body_present", text_body=None),
    _mail("outbox_body_present", text_body=""),
    _mail("outbox_body_present", text_body="", html_body="", raw=b""),
    _mail("outbox_raw_excludes_bodies", raw=b"To: a@b\r\n\r\n"),
    _mail("outbox_raw_excludes_bodies", text_body="", html_body="<p>", raw=b"To: a@b\r\n\r\n"),
    _mail("outbox_recipients_present", recipients=None),
    _mail("outbox_recipients_present", recipients="", cc=" ", bcc=""),
]  # fmt: skip
_FILES = [
    _attachment("outbox_attachment_position", position=-1),
    _attachment("outbox_attachment_filename_no_line_breaks", filename="a\r\nb.pdf"),
    _attachment("outbox_attachment_filename_short", filename="x" * 1001),
    _attachment("outbox_attachment_content_type", content_type="pdf"),
    _attachment("outbox_attachment_content_type", content_type="application/pdf\r\nX-Evil: 1"),
    _attachment("outbox_attachment_content_id", content_id="<logo>"),
    _attachment("outbox_attachment_content_id", content_id="a b"),
    _attachment("outbox_attachment_at_most_25_mib", content=b"x" * (CAP + 1)),
    _attachment("outbox_attachment_columns_are_text", "sqlite", filename=b"a.pdf"),
    _attachment("outbox_attachment_columns_are_text", "sqlite", content=7.5),
]
_DELIVERIES = [
    _delivery("outbox_delivery_state", "state = 'lost'", "sqlite"),
    Refusal(
        "outbox_delivery_state",
        "INSERT INTO outbox_delivery_live (message_id, state, sender, priority, due_at, on_doubt)"
        " VALUES (2, 'lost', 'a@b', 5, now(), 'retry')",
        only="postgres",
    ),
    _delivery("outbox_delivery_priority", "priority = 10"),
    *[
        _delivery(f"outbox_delivery_{column}_real", f"{column} = '9999-12-31'")
        for column in ("due_at", "expires_at", "dot_at", "first_attempt_at")
    ],
    _delivery("outbox_delivery_due_at_real", "due_at = '2026-03-01 09:30:00'", "sqlite"),
    _delivery("outbox_delivery_final_at_real", "state = 'sent', final_at = '9999-12-31'"),
    _delivery("outbox_delivery_on_doubt", "on_doubt = 'ask'"),
    _delivery("outbox_delivery_claim_no", "claim_no = -1", "postgres"),
    *[_delivery(f"outbox_delivery_{column}", f"{column} = -1") for column in ("failures", "doubts", "crashes")],
    _delivery("outbox_delivery_sending_has_owner", "state = 'sending', claim_no = 1"),
    _delivery("outbox_delivery_sending_has_owner", "lease_owner = 'r1'"),
    _delivery("outbox_delivery_sending_is_claimed", "state = 'sending', lease_owner = 'r1'"),
    *[
        _delivery("outbox_delivery_final_has_time", f"state = '{s}'")
        for s in ("sent", "failed", "expired", "cancelled")
    ],
    _delivery("outbox_delivery_final_has_time", "final_at = '2026-03-01T09:30:00.000Z'"),
]
_REST = [
    *[
        Refusal(
            constraint,
            "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at, ended_at, outcome)"
            " VALUES (1, 1, 'r1', '2026-03-01T09:30:00.000Z', ?, ?)",
            (ended_at, outcome),
        )
        for constraint, ended_at, outcome in [
            ("outbox_attempt_outcome", "2026-03-01T09:30:00.000Z", "fine"),
            ("outbox_attempt_closed_has_time", None, "accepted"),
            ("outbox_attempt_closed_has_time", "2026-03-01T09:30:00.000Z", None),
        ]
    ],
    _recipient("outbox_recipient_kind", kind="from"),
    _recipient("outbox_recipient_fate", fate="sent"),
    _account("outbox_account_name", name=""),
    _account("outbox_account_relay_port", relay_port=0),
    _account("outbox_account_relay_port", relay_port=65536),
    _account("outbox_account_tls", tls="maybe"),
    _account("outbox_account_mechanism", mechanism="gssapi"),
    _account("outbox_account_probes", probes=-1),
    _account("outbox_account_max_connections", max_connections=0),
    _account("outbox_account_max_messages", max_messages=0),
    _account("outbox_account_pause_has_reason", paused_until="2026-03-01T09:30:00.000Z"),
    *[
        Refusal(
            constraint,
            "INSERT INTO outbox_sender (address, account, paused_until) VALUES (?, 'a', ?)",
            (address, until),
        )
        for constraint, address, until in [
            ("outbox_sender_lower_case", "Shop@example.com", None),
            ("outbox_sender_address", "shop", None),
            ("outbox_sender_address", "*", None),
            ("outbox_sender_address", "shop <shop@example.com>", None),
            ("outbox_sender_pause_has_reason", "shop@example.com", "2026-03-01T09:30:00.000Z"),
        ]
    ],
    Refusal("outbox_sender_probes", "INSERT INTO outbox_sender (address, account, probes) VALUES ('a@b', 'a', -1)"),
    *[
        Refusal(constraint, sql, (), "sqlite")
        for constraint, sql in [
            (
                "outbox_account_paused_until_24",
                "INSERT INTO outbox_account (name, relay_host, relay_port, tls, paused_until, pause_reason)"
                " VALUES ('m', 'h', 25, 'none', 'tomorrow', 'x')",
            ),
            (
                "outbox_account_breaker_until_24",
                "INSERT INTO outbox_account (name, relay_host, relay_port, tls, breaker_until)"
                " VALUES ('m', 'h', 25, 'none', '2026-03-01 10:00')",
            ),
            *[
                (
                    f"outbox_account_{column}_24",
                    f"INSERT INTO outbox_account (name, relay_host, relay_port, tls, {column})"
                    " VALUES ('m', 'h', 25, 'none', 'soon')",
                )
                for column in ("starttls_seen_at", "probe_until")
            ],
            (
                "outbox_sender_probe_until_24",
                "INSERT INTO outbox_sender (address, account, probe_until) VALUES ('shop@example.com', 'a', 'soon')",
            ),
            (
                "outbox_sender_paused_until_24",
                "INSERT INTO outbox_sender (address, account, paused_until, pause_reason)"
                " VALUES ('shop@example.com', 'a', 'tomorrow', 'x')",
            ),
        ]
    ],
    Refusal(
        "outbox_runner_asleep",
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until, asleep)"
        " VALUES ('r1', 'h', 1, '0', '', '', 2)",
        only="sqlite",
    ),
]


def _policy(table: str, good: dict[str, Any]) -> Callable[..., Refusal]:
    """Refusals of one of the tables of the delivery policy."""

    def refusal(constraint: str, only: str = "", **bad: Any) -> Refusal:
        return _row(table, f"{table}_{constraint}", good, bad, only)

    return refusal


_MOMENT = "2026-03-01T09:30:00.000Z"
_limit = _policy("outbox_limit", {"scope": "account", "name": "main"})
_usage = _policy(
    "outbox_usage",
    {"scope": "account", "name": "main", "span": "day", "began_at": _MOMENT, "used": 0, "before": 0},
)
_rule = _policy("outbox_reply_rule", {"pattern": "x", "verdict": "defer", "scope": "relay"})
_suppression = _policy("outbox_suppression", {"address": "a@b", "reason": "x"})
_oauth = _policy("outbox_oauth", {"account": "main", "setup": "x", "key_id": "k"})
_dkim = _policy(
    "outbox_dkim",
    {
        "sender": "a@b",
        "selector": "s1",
        "domain": "b",
        "algorithm": "rsa-sha256",
        "secret": "x",
        "key_id": "k",
    },
)
_event = _policy("outbox_event", {"at": _MOMENT, "kind": "accepted", "message_id": 1})
_lease = _policy("outbox_lease", {"name": "webhook", "owner": "r", "until": _MOMENT})
_pickup = _policy("outbox_pickup", {"name": "in", "path": "/in", "badmail": "/bad"})
_pickup_file = _policy("outbox_pickup_file", {"claim": "c", "folder": "in", "name": "a.eml"})
_user = _policy("outbox_user", {"name": "crm", "password_hash": "scrypt$1"})
_POLICY = [
    _user("name", name=""),
    _user("password_hash", password_hash="secret"),
    _pickup("name", name=""),
    _pickup("mode", mode="all"),
    _pickup("poll_ms", poll_ms=99),
    _pickup("settle_ms", settle_ms=-1),
    _pickup("max_bytes", max_bytes=0),
    _pickup("archive", archive="never"),
    _pickup_file("result", result="lost", done_at=_MOMENT),
    _pickup_file("done_has_result", done_at=_MOMENT),
    *[_mail("outbox_dsn_notify", dsn_notify=each) for each in ("always", "success,never", "delay,", "delay,delay")],
    _mail("outbox_dsn_ret", dsn_ret="body"),
    _mail("outbox_dsn_envid", dsn_envid="x" * 101),
    _mail("outbox_dsn_envid", dsn_envid="a\r\nRCPT TO:<b@c>"),
    _mail("outbox_dsn_envid", dsn_envid="ü"),
    _limit("scope", scope="relay"),
    _limit("lower_case", scope="domain", name="Example.com"),
    *[_limit(each, **{each: 0}) for each in ("connections", "per_minute", "per_hour", "per_day")],
    _usage("span", span="week"),
    _usage("began_at_24", "sqlite", began_at="now"),
    _rule("pattern", pattern=""),
    _rule("verdict", verdict="accept"),
    _rule("scope", scope="world"),
    _rule("delay", delay=0),
    _suppression("lower_case", address="A@b"),
    _suppression("address", address="a"),
    _suppression("until_24", "sqlite", until="tomorrow"),
    *[_oauth(f"{each}_24", "sqlite", **{each: "soon"}) for each in ("refresh_at", "expires_at", "refreshing_until")],
    _dkim("selector", selector="-a"),
    _dkim("selector", selector="a b"),
    _dkim("algorithm", algorithm="rsa-sha1"),
    _event("kind", kind="opened"),
    _event("about_something", message_id=None),
    _event("at_24", "sqlite", at="now"),
    _event("webhook_due", "sqlite", webhook_due=2),
    _event("notice_due", "sqlite", notice_due=2),
    _lease("until_24", "sqlite", until="soon"),
]
REFUSALS = [*_CONTENT, *_FILES, *_DELIVERIES, *_REST, *_POLICY]

# Reached by an UPDATE only, after the delivery is final: tested with the erasure, in test_schema_immutable.py; and the
# trigger speaks before the CHECK where claim_no is turned back.
ELSEWHERE = {"sqlite": {"outbox_erased_at_real", "outbox_delivery_claim_no"}, "postgres": {"outbox_erased_at_real"}}


@pytest.mark.parametrize(
    "refusal", REFUSALS, ids=[f"{number}-{refusal.constraint}" for number, refusal in enumerate(REFUSALS)]
)
def test_a_check_refuses_with_its_name(scratch_database: peewee.Database, refusal: Refusal) -> None:
    if refusal.only not in ("", dialect(scratch_database)):
        return  # it cannot be written in this dialect
    insert(scratch_database, id=1)
    with refused(refusal.constraint):
        run(scratch_database, refusal.statement, *refusal.values)


def test_a_refusal_on_postgres_tells_drivers_all_that_a_check_does(scratch_database: peewee.Database) -> None:
    if dialect(scratch_database) == "sqlite":
        return  # its errors are words only
    schema = one(scratch_database, "SELECT current_schema()")
    with pytest.raises(peewee.IntegrityError) as caught:
        run(
            scratch_database,
            "INSERT INTO outbox (sender, recipients, subject, text_body)"
            " VALUES ('a@example.com', 'b@example.net', 'one', 'x'), ('a@example.com', 'c@example.net', 'two', '')",
        )
    told: Any = getattr(origin_of(caught.value), "diag", None)
    assert (told.sqlstate, told.constraint_name) == ("23514", "outbox_body_present")
    assert (told.schema_name, told.table_name) == (schema, "outbox")
    assert "c@example.net" in told.message_detail
    assert "b@example.net" not in told.message_detail


@pytest.mark.parametrize(
    "columns",
    [
        {"headers": '{"X-Order": "7"}'},
        {"headers": ""},
        {"text_body": None, "html_body": "<p>x", "reply_to": "c@example.com", "sender_name": "Ünïcode " * 100},
        {"text_body": None, "recipients": None, "raw": b"To: a@b\r\n\r\nx"},
        {"recipients": None, "cc": "c@example.net"},
        {"recipients": " ", "bcc": "c@example.net"},
        {"recipients": ", ".join(["somebody@example.net"] * 500), "subject": "x" * 2000},
        {"dsn_notify": "success,delay", "dsn_ret": "hdrs", "dsn_envid": "7"},
        {"dsn_notify": "", "dsn_ret": "", "tag": "", "subject": ""},
        {"dedup_key": "x" * 500, "tag": "ü" * 255, "source": "s" * 64},
        {"due_at": "2027-03-01T09:30:00.000Z", "expires_at": "9999-12-30T00:00:00.000Z", "on_doubt": "hold"},
        {"sender": " Shop@Example.com ", "priority": 0},
        {"token": "0123456789abcdef" * 4},
    ],
)
def test_what_violates_nothing_is_taken(scratch_database: peewee.Database, columns: dict[str, Any]) -> None:
    """Of every column, what it may hold: what is ordinary by itself, and what has to be looked at."""
    if dialect(scratch_database) == "postgres" and columns.get("headers") == "":
        return  # jsonb has no ''
    message = insert(scratch_database, **columns)
    assert one(scratch_database, "SELECT state FROM outbox_delivery WHERE message_id = ?", message) == "queued"


@pytest.mark.parametrize("which", ["sqlite", "postgres"])
def test_every_check_in_the_schema_is_tested(which: Dialect) -> None:
    sql = "\n".join(migration.sql for migration in migrations(which))
    named = set(re.findall(r"CONSTRAINT (\w+)\s+CHECK", sql))
    tested = {refusal.constraint for refusal in REFUSALS if refusal.only in ("", which)}
    assert named - tested == ELSEWHERE[which]
    for migration in migrations(which):  # a later one may make a table anew, with the same names
        plain = re.sub(r"--.*", "", migration.sql)
        names = re.findall(r"CONSTRAINT (\w+)\s+CHECK", plain)
        assert len(re.findall(r"\bCHECK\b", plain)) == len(names) == len(set(names)), "every CHECK has a name"
