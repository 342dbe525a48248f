"""PostgreSQL's three roles: each can do what the design grants, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import peewee
import pytest

from outbox.store.database import connect
from outbox.store.migrate import roles_sql
from tests.statements import MOMENT, bring, insert, one, rows, run, until_blocked

STRANGER = "outbox_test_stranger"
"""A role of the same server that was granted nothing: whatever it may, PUBLIC may."""
ROLES = ("outbox_app", "outbox_runner", "outbox_auditor", STRANGER)
MAIL = "(sender, recipients, subject, text_body) VALUES ('shop@example.com', 'ann@example.net', 'Order 9', 'Thanks')"


@pytest.fixture(scope="module")
def granted(request: pytest.FixtureRequest) -> Iterator[peewee.Database]:
    """A database with the roles: message 1 is queued, 2 failed, 3 sent."""
    with request.getfixturevalue("_postgres_copies").fresh() as url:
        database = connect(url)
        for _ in range(2):  # it may be run again
            database.connection().execute(roles_sql())
        run(
            database,
            f"DO $$ BEGIN CREATE ROLE {STRANGER} NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN"
            " NULL; END $$",
        )
        for number, state in [(1, "queued"), (2, "failed"), (3, "sent")]:
            insert(database, id=number, dedup_key=f"order-{number}")
            bring(database, number, state)
        run(database, "SELECT setval(pg_get_serial_sequence('outbox', 'id'), 100)")
        run(database, "INSERT INTO outbox_account (name, relay_host, relay_port, tls) VALUES ('main', 'h', 25, 'none')")
        run(
            database,
            "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate)"
            " VALUES (2, 0, 1, 'ann@example.net', 'to', 'bounced'), (2, 1, 1, 'bob@example.net', 'to', 'doubt')",
        )
        yield database
        database.close()


AUDITED = (
    "status audit fate doubtful dead stuck pause sender_health daily"
    " delivery attempt recipient sender runner journal meta"
)
CONTENT = (
    "source priority on_doubt due_at expires_at dedup_key tag sender sender_name return_path recipients cc bcc reply_to"
    " subject headers text_body html_body raw dsn_notify dsn_ret dsn_envid"
)
ATTACHMENT = "message_id position filename content_type content_id content"
RECEIPT = "id dedup_key tag state code status doubts final_at"
EVENT = "id at kind message_id claim_no code status"

# Statement → the roles that may execute it.
MATRIX: dict[str, str] = {
    # enqueueing
    f"INSERT INTO outbox {MAIL}": "app runner",
    f"INSERT INTO outbox {MAIL} RETURNING id": "app runner",
    f"INSERT INTO outbox {MAIL} RETURNING id, dedup_key": "app runner",
    f"INSERT INTO outbox {MAIL} RETURNING token": "runner",
    f"INSERT INTO outbox {MAIL} ON CONFLICT DO NOTHING": "app runner",
    f"INSERT INTO outbox {MAIL} ON CONFLICT DO NOTHING RETURNING id": "app runner",
    "INSERT INTO outbox (sender, bcc, raw, headers, priority, due_at, expires_at, dedup_key, on_doubt, tag, source,"
    " sender_name, cc, reply_to, return_path) VALUES ('a@b', 'c@d', 'x', '{}', 1, now(), now(), 'k', 'hold', 't', 's',"
    " 'n', 'e@f', 'g@h', 'i@j')": "app runner",
    "COPY outbox (sender, recipients, text_body) FROM STDIN": "app runner",
    "INSERT INTO outbox (id, sender, recipients, text_body) VALUES (7, 'a@b', 'c@d', 'x')": "",
    "INSERT INTO outbox (token, sender, recipients, text_body) VALUES (repeat('0', 32), 'a@b', 'c@d', 'x')": "",
    "INSERT INTO outbox (created_at, sender, recipients, text_body) VALUES (now(), 'a@b', 'c@d', 'x')": "",
    "INSERT INTO outbox (erased_at, sender, recipients) VALUES (now(), 'a@b', 'c@d')": "",
    "INSERT INTO outbox_attachment (message_id, position, filename, content) VALUES (1, 0, 'a.pdf', 'x')": "app runner",
    "INSERT INTO outbox_delivery (message_id, sender, priority, due_at, on_doubt)"
    " VALUES (9, 'a@b', 5, now(), 'retry')": "",
    "INSERT INTO outbox_delivery_live (message_id, sender, priority, due_at, on_doubt)"
    " VALUES (9, 'a@b', 5, now(), 'retry')": "",
    # reading mail
    "SELECT id, dedup_key FROM outbox": "app runner auditor",
    "SELECT count(*) FROM outbox": "app runner auditor",
    "SELECT recipients FROM outbox": "runner auditor",
    "SELECT subject FROM outbox WHERE id = 1": "runner auditor",
    "SELECT text_body FROM outbox": "runner",
    "SELECT html_body FROM outbox": "runner",
    "SELECT raw FROM outbox": "runner",
    "SELECT headers FROM outbox": "runner",
    "SELECT * FROM outbox": "runner",
    "COPY outbox TO STDOUT": "runner",
    "SELECT filename FROM outbox_attachment": "runner auditor",
    "SELECT content FROM outbox_attachment": "runner",
    # looking up what became of it
    "SELECT * FROM outbox_receipt": "app runner auditor",
    **{f"SELECT * FROM outbox_{name}": "runner auditor" for name in AUDITED.split()},
    "SELECT * FROM outbox_delivery_live": "",
    "SELECT * FROM outbox_account": "runner",
    "SELECT secret FROM outbox_account": "runner",
    "SELECT name, pause_reason FROM outbox_account": "runner auditor",
    # changing what was said, or what became of it
    "UPDATE outbox SET sender = 'eve@example.org' WHERE id = 0": "",
    "UPDATE outbox SET text_body = 'x' WHERE id = 0": "runner",
    "UPDATE outbox SET erased_at = now(), text_body = NULL WHERE id = 3": "runner",
    "DELETE FROM outbox WHERE id = 3": "runner",
    "TRUNCATE outbox": "",
    "UPDATE outbox_attachment SET filename = 'x' WHERE message_id = 0": "",
    "DELETE FROM outbox_attachment WHERE message_id = 0": "",
    "UPDATE outbox_delivery SET state = 'held' WHERE message_id = 1": "runner",
    "UPDATE outbox_delivery SET state = 'queued', final_at = NULL WHERE message_id = 2": "runner",
    "SELECT 1 FROM outbox_delivery WHERE message_id = 1 FOR UPDATE SKIP LOCKED": "runner",
    "DELETE FROM outbox_delivery WHERE message_id = 0": "",
    "TRUNCATE outbox_delivery": "",
    "INSERT INTO outbox_attempt (message_id, claim_no, runner_id, started_at) VALUES (1, 1, 'r', now())": "runner",
    "UPDATE outbox_attempt SET late_reply = 'x' WHERE message_id = 0": "runner",
    "DELETE FROM outbox_attempt": "",
    "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate)"
    " VALUES (1, 0, 1, 'a@b', 'to', 'accepted')": "runner",
    "UPDATE outbox_recipient SET fate = 'accepted' WHERE position = 1": "runner",
    "UPDATE outbox_recipient SET message_id = 1 WHERE message_id = 0": "",
    "DELETE FROM outbox_recipient": "",
    "SELECT outbox_cancel(1)": "app runner",
    "SELECT outbox_reschedule(1, now())": "app runner",
    "SELECT outbox_enqueue()": "",
    "SELECT outbox_enqueue('a@b', 'c@d', 'Order 9', 'Thanks')": "app runner",
    "SELECT outbox_enqueue(sender => 'a@b', recipients => ARRAY['c@d'], text_body => 'x', dedup_key => 'order-10',"
    ' attachments => \'[{"filename": "a.pdf", "content": "JVBERg=="}]\')': "app runner",
    # accounts, runners, the journal, the schema
    "INSERT INTO outbox_account (name, relay_host, relay_port, tls) VALUES ('evil', 'h', 25, 'none')": "runner",
    "UPDATE outbox_account SET relay_host = 'evil.example'": "runner",
    "INSERT INTO outbox_sender (address, account) VALUES ('eve@example.org', 'main')": "runner",
    "DELETE FROM outbox_sender": "runner",
    "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until) VALUES ('r', 'h', 1, '', now(), now())"
    "": "runner",
    "UPDATE outbox_runner SET asleep = true": "runner",
    "INSERT INTO outbox_journal (who, verb) VALUES ('olga', 'retry')": "runner",
    "UPDATE outbox_journal SET count = 200 WHERE id = 1": "runner",  # what is done in portions is one line
    "UPDATE outbox_journal SET who = 'nobody'": "",
    "DELETE FROM outbox_journal": "",
    "UPDATE outbox_meta SET value = '99'": "",
    "INSERT INTO outbox_meta (key, value) VALUES ('a', 'b')": "",
    "CREATE TABLE outbox_evil (id int)": "",
    "ALTER TABLE outbox DISABLE TRIGGER ALL": "",
    "DROP TRIGGER outbox_immutable ON outbox": "",
    "DROP TABLE outbox_meta": "",
    "ALTER TABLE outbox OWNER TO outbox_app": "",
    "SELECT nextval(pg_get_serial_sequence('outbox', 'id'))": "",
    # secrets, and ways to more rights than one has
    "SELECT setup, token FROM outbox_oauth": "runner",
    "SELECT secret FROM outbox_dkim": "runner",
    "SELECT id, kind, code FROM outbox_event": "app runner auditor",
    "SELECT reply FROM outbox_event": "runner auditor",
    "LOCK TABLE outbox_delivery IN ACCESS EXCLUSIVE MODE": "runner",
    "CREATE FUNCTION outbox_evil() RETURNS int LANGUAGE sql AS 'SELECT 1'": "",
    "CREATE OR REPLACE FUNCTION outbox_cancel(bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'": "",
    "CREATE RULE evil AS ON INSERT TO outbox DO INSTEAD NOTHING": "",
    "CREATE TRIGGER evil BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION outbox_enqueue()": "",
    "CREATE SCHEMA evil": "",
    "DROP VIEW outbox_receipt": "",
    "ALTER ROLE outbox_app CREATEROLE": "",
    "SELECT pg_read_file('/etc/hostname')": "",
    "SELECT rolpassword FROM pg_authid": "",
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("statement", MATRIX, ids=[f"{n}-{text[:40]}" for n, text in enumerate(MATRIX)])
def test_each_role_can_do_what_is_granted_and_nothing_else(granted: peewee.Database, statement: str, role: str) -> None:
    allowed = role.removeprefix("outbox_") in MATRIX[statement].split()
    assert _permitted(granted, statement, role) == allowed


def _permitted(database: peewee.Database, statement: str, role: str) -> bool:
    """Whether the role may execute the statement, which succeeds otherwise. It is undone."""
    from psycopg.errors import InsufficientPrivilege

    connection = database.connection()
    with connection.transaction(force_rollback=True):
        connection.execute(f"SET LOCAL ROLE {role}")
        try:
            if statement.startswith("COPY"):
                with connection.cursor() as cursor, cursor.copy(statement) as copy:
                    if "STDIN" in statement:
                        copy.write_row(("shop@example.com", "ann@example.net", "Thanks"))
                    else:
                        list(copy)
            else:
                connection.execute(statement)
        except InsufficientPrivilege:
            return False
    return True


def test_the_application_has_no_privilege_that_is_not_named(granted: peewee.Database) -> None:
    """By the catalogue, so that a table nobody thought of counts too."""
    held = set(
        rows(
            granted,
            "SELECT c.relname, a.attname, p.name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid,"
            " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS p (name)"
            " WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
            " AND a.attnum > 0 AND NOT a.attisdropped"
            " AND has_column_privilege('outbox_app', c.oid, a.attnum, p.name)",
        )
    )
    assert held == {
        *(("outbox", column, "INSERT") for column in CONTENT.split()),
        *(("outbox", column, "SELECT") for column in ("id", "dedup_key")),
        *(("outbox_attachment", column, "INSERT") for column in ATTACHMENT.split()),
        *(("outbox_receipt", column, "SELECT") for column in RECEIPT.split()),
        *(("outbox_event", column, "SELECT") for column in EVENT.split()),
    }
    whole = rows(
        granted,
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace"
        " AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        " AND has_table_privilege('outbox_app', c.oid, 'DELETE, TRUNCATE, TRIGGER')",
    )
    assert whole == []
    callable_functions = rows(
        granted,
        "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"
        " AND has_function_privilege('outbox_app', oid, 'EXECUTE') ORDER BY 1",
    )
    assert callable_functions == [("outbox_cancel",), *[("outbox_enqueue",)] * 2, ("outbox_reschedule",)]


def test_every_function_but_the_one_that_inserts_is_a_definer_with_a_fixed_search_path(
    granted: peewee.Database,
) -> None:
    functions = rows(
        granted,
        "SELECT proname, pronargs, prosecdef, array_to_string(proconfig, ';') FROM pg_proc"
        " WHERE pronamespace = current_schema()::regnamespace",
    )
    assert len(functions) >= 15
    assert {settings for *_, settings in functions} == {"search_path=pg_catalog, public, pg_temp"}
    invokers = [(name, arguments) for name, arguments, definer, _ in functions if not definer]
    assert invokers == [("outbox_enqueue", 23)] * 2


def test_a_temporary_table_of_the_application_deceives_nobody(granted: peewee.Database) -> None:
    connection = granted.connection()
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL ROLE outbox_app")
        connection.execute("CREATE TEMP TABLE outbox_delivery (LIKE public.outbox_receipt)")
        connection.execute("CREATE TEMP TABLE outbox_runner (id text, asleep boolean, dead_at timestamptz)")
        connection.execute(f"INSERT INTO public.outbox {MAIL}")
        connection.execute("RESET ROLE")
        assert one(granted, "SELECT count(*) FROM public.outbox_delivery WHERE message_id > 100") == 1


# ------------------------------------------------------------------------------------- what an application may call


@pytest.mark.parametrize(
    ("state", "outcome"),
    [("queued", True), ("held", True), ("sending", False), ("sent", False), ("failed", False), ("cancelled", False)],
)
def test_only_what_waits_can_be_cancelled_or_rescheduled(postgres_url: str, state: str, outcome: bool) -> None:
    database = connect(postgres_url)
    for _ in range(2):
        bring(database, insert(database), state)
    assert one(database, "SELECT outbox_cancel(1)") is outcome
    assert one(database, "SELECT outbox_reschedule(2, ?)", "2999-01-01T00:00:00Z") is outcome
    after: list[tuple[Any, ...]] = rows(database, "SELECT state, due_at FROM outbox_delivery ORDER BY message_id")
    assert after[0][0] == ("cancelled" if outcome else state)
    assert (after[1][1] == "2999-01-01T00:00:00.000Z") is outcome
    assert one(database, "SELECT outbox_cancel(99)") is False
    assert one(database, "SELECT outbox_reschedule(99, now())") is False
    database.close()


def test_rescheduling_to_null_is_now_and_wakes_a_runner(postgres_url: str) -> None:
    database = connect(postgres_url)
    message = insert(database, due_at="2999-01-01")
    run(
        database,
        "INSERT INTO outbox_runner (id, host, pid, version, started_at, lease_until, asleep)"
        " VALUES ('r1', 'h', 1, '0', now(), now(), true)",
    )
    run(database, "LISTEN outbox")
    assert one(database, "SELECT outbox_reschedule(?, NULL)", message) is True
    assert one(database, "SELECT due_at <= clock_timestamp() FROM outbox_delivery") is True
    assert len(list(database.connection().notifies(timeout=0.5, stop_after=1))) == 1
    database.close()


def test_a_cancellation_that_races_a_claim_waits_and_says_no(postgres_url: str) -> None:
    """The runner claims and finishes, which moves the row to the other partition: serialization failure inside."""
    application, runner = connect(postgres_url), connect(postgres_url)
    message = insert(application)
    answers: list[bool] = []

    def cancel() -> None:
        with application.connection_context():
            answers.append(one(application, "SELECT outbox_cancel(?)", message))

    with runner.atomic():
        bring(runner, message, "sent")
        racer = threading.Thread(target=cancel)
        racer.start()
        until_blocked(runner)
    racer.join(10)
    assert answers == [False]
    assert rows(runner, "SELECT state, final_at FROM outbox_delivery") == [("sent", MOMENT)]
    application.close()
    runner.close()
