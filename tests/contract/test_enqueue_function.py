"""PostgreSQL's outbox_enqueue(...), the INSERT as one call: what it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import peewee
import pytest

from outbox.store.database import connect
from outbox.store.statements import origin_of
from tests.statements import one, refused, rows, run

FOUR = "sender => 'shop@example.com', recipients => 'ann@example.net', subject => 'Order 7', text_body => 'Thanks'"
ALL: dict[str, tuple[str, str]] = {
    # column: (the argument, what is stored as text)
    "sender": ("'shop@example.com'", "shop@example.com"),
    "recipients": ("'Ann <ann@example.net>, bob@example.net'", "Ann <ann@example.net>, bob@example.net"),
    "subject": ("'Grüße'", "Grüße"),
    "text_body": ("'Thanks'", "Thanks"),
    "html_body": ("'<p>Thanks'", "<p>Thanks"),
    "dedup_key": ("'order-7'", "order-7"),
    "sender_name": ("'The Shop'", "The Shop"),
    "cc": ("'cy@example.net'", "cy@example.net"),
    "bcc": ("'dee@example.net'", "dee@example.net"),
    "reply_to": ("'help@example.com'", "help@example.com"),
    "return_path": ("'<>'", "<>"),
    "headers": ("""'{"X-Order": "7"}'""", '{"X-Order": "7"}'),
    "due_at": ("'2027-03-01 10:30+01'", "2027-03-01 09:30:00+00"),
    "expires_at": ("'2027-03-02'", "2027-03-02 00:00:00+00"),
    "priority": ("2", "2"),
    "on_doubt": ("'hold'", "hold"),
    "tag": ("'receipt'", "receipt"),
    "source": ("'shop'", "shop"),
    "dsn_notify": ("'failure'", "failure"),
    "dsn_ret": ("'hdrs'", "hdrs"),
    "dsn_envid": ("'o7'", "o7"),
}
NOT_THERE = {"id", "token", "created_at", "erased_at"}
"""Columns that are not an application's to write."""


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[peewee.Database]:
    database = connect(postgres_url)
    run(database, "SET timezone = 'UTC'")
    yield database
    database.close()


def test_the_four_arguments_make_the_row_that_the_four_columns_make(postgres: peewee.Database) -> None:
    message = one(postgres, f"SELECT outbox_enqueue({FOUR})")
    run(
        postgres,
        "INSERT INTO outbox (sender, recipients, subject, text_body)"
        " VALUES ('shop@example.com', 'ann@example.net', 'Order 7', 'Thanks')",
    )
    called, inserted = rows(postgres, "SELECT to_jsonb(o) - '{id,token,created_at}'::text[] FROM outbox o ORDER BY id")
    assert (message, called) == (1, inserted)
    assert one(postgres, "SELECT state FROM outbox_delivery WHERE message_id = 1") == "queued"


def test_every_column_has_an_argument(postgres: peewee.Database) -> None:
    columns = {name for (name,) in rows(postgres, "SELECT column_name FROM information_schema.columns"
                                                  " WHERE table_name = 'outbox'")}  # fmt: skip
    assert columns == {*ALL, "raw"} | NOT_THERE
    one(postgres, f"SELECT outbox_enqueue({', '.join(f'{name} => {value}' for name, (value, _) in ALL.items())})")
    (row,) = rows(postgres, f"SELECT {', '.join(f'{name}::text' for name in ALL)} FROM outbox")
    assert dict(zip(ALL, row, strict=True)) == {name: stored for name, (_, stored) in ALL.items()}


def test_null_is_as_good_as_leaving_an_argument_out(postgres: peewee.Database) -> None:
    optional = ", ".join(f"{name} => NULL" for name in ALL if name not in FOUR)
    one(postgres, f"SELECT outbox_enqueue({FOUR}, raw => NULL, attachments => NULL, {optional})")
    assert rows(postgres, "SELECT priority, on_doubt, source, tag FROM outbox") == [(5, "retry", "sql", None)]


def test_a_key_that_is_there_gives_null_and_neither_mail_nor_files(postgres: peewee.Database) -> None:
    call = f"SELECT outbox_enqueue({FOUR}, dedup_key => 'order-7', attachments => ?::text::jsonb)"
    files = '[{"filename": "a.pdf", "content": "JVBERg=="}]'
    assert [one(postgres, call, files) for _ in range(2)] == [1, None]
    assert rows(postgres, "SELECT message_id, position FROM outbox_attachment") == [(1, 0)]


def test_attachments_are_stored_as_their_bytes_in_order(postgres: peewee.Database) -> None:
    one(
        postgres,
        f"SELECT outbox_enqueue({FOUR}, attachments => ?::text::jsonb)",
        '[{"filename": "größe.pdf", "content": "AP8NCg=="},'
        ' {"filename": "logo.png", "content_type": "image/png", "content_id": "logo", "content": "iVBORw=="}]',
    )
    stored = rows(
        postgres, "SELECT position, filename, content_type, content_id, encode(content, 'hex') FROM outbox_attachment"
    )
    assert stored == [
        (0, "größe.pdf", "application/octet-stream", None, "00ff0d0a"),
        (1, "logo.png", "image/png", "logo", "89504e47"),
    ]


@pytest.mark.parametrize(
    ("attachments", "words"),
    [
        ('[{"filename": "a.pdf", "content": "JVBERg==", "content-type": "image/png"}]', "content-type"),
        ('[{"filename": "a.pdf", "content": "%PDF"}]', "base64"),
        ('[{"filename": "a.pdf"}]', "content"),
        ('[{"content": "JVBERg=="}]', "filename"),
        ('{"filename": "a.pdf", "content": "JVBERg=="}', "extract elements"),
        ('[{"filename": "a\\nb.pdf", "content": ""}]', "outbox_attachment_filename_no_line_breaks"),
    ],
)
def test_wrong_attachments_are_refused_and_so_is_their_mail(
    postgres: peewee.Database, attachments: str, words: str
) -> None:
    with pytest.raises(peewee.PeeweeException, match=words):
        run(postgres, f"SELECT outbox_enqueue({FOUR}, attachments => ?::text::jsonb)", attachments)
    assert one(postgres, "SELECT count(*) FROM outbox") == 0


@pytest.mark.parametrize(
    ("changed", "constraint"),
    [
        ("subject => E'Order 7\\r\\nBcc: eve@example.org'", "outbox_subject_no_line_breaks"),
        ("text_body => ''", "outbox_body_present"),
        ("priority => 10", "outbox_priority_0_to_9"),
        ("sender => 'Shop <shop@example.com>'", "outbox_sender_bare_address"),
        ("headers => '[]'", "outbox_headers_json_object"),
        ("recipients => NULL", "outbox_recipients_present"),
    ],
)
def test_what_the_table_refuses_it_refuses_with_the_same_name(
    postgres: peewee.Database, changed: str, constraint: str
) -> None:
    arguments = [each for each in FOUR.split(", ") if each.split()[0] != changed.split()[0]]
    with pytest.raises(peewee.IntegrityError) as caught:
        run(postgres, f"SELECT outbox_enqueue({', '.join([*arguments, changed])})")
    told: Any = getattr(origin_of(caught.value), "diag", None)
    assert (told.sqlstate, told.constraint_name) == ("23514", constraint)


# ------------------------------------------------------------------------------------------------------------- lists


def test_recipients_may_be_lists(postgres: peewee.Database) -> None:
    one(
        postgres,
        "SELECT outbox_enqueue('shop@example.com', recipients => ?::text[], cc => ?::text[], bcc => ?::text[],"
        " text_body => 'x', priority => 1)",
        ["ann@example.net", '"Müller, \\"Bo\\"" <bo@example.net>'],
        ["cy@example.net"],
        [],
    )
    stored = rows(postgres, "SELECT recipients, cc, coalesce(bcc, ''), priority FROM outbox")
    assert stored == [('ann@example.net, "Müller, \\"Bo\\"" <bo@example.net>', "cy@example.net", "", 1)]


@pytest.mark.parametrize("where", ["recipients", "cc", "bcc"])
@pytest.mark.parametrize(
    "item",
    ["ann@example.net, eve@example.org", "a@b;eve@example.org", "Müller, Ann <a@b>", '"Ann, <a@b>', "", " ", None],
)
def test_an_item_of_a_list_is_one_address(postgres: peewee.Database, where: str, item: str | None) -> None:
    lists: dict[str, Any] = {"recipients": ["good@example.net"], where: ["good@example.net", item]}
    given = ", ".join(f"{name} => ?::text[]" for name in lists)
    with refused("each item of a list is one address"):
        run(postgres, f"SELECT outbox_enqueue('shop@example.com', text_body => 'x', {given})", *lists.values())


def test_an_empty_list_is_nobody(postgres: peewee.Database) -> None:
    with refused("outbox_recipients_present"):
        run(postgres, "SELECT outbox_enqueue('shop@example.com', ARRAY[]::text[], 'Order 7', 'Thanks')")


@pytest.mark.parametrize(
    "arguments",
    [
        "raw => 'To: ann@example.net'",
        "text_body => 'x', bcc => 'ann@example.net'",
        "NULL, text_body => 'x', bcc => 'ann@example.net'",
        "ARRAY['ann@example.net'], 'Order 7', 'Thanks'",
        "recipients => '{}'::text[], text_body => 'x', bcc => ARRAY['ann@example.net']",
    ],
)
def test_a_call_fits_one_function_only(postgres: peewee.Database, arguments: str) -> None:
    assert one(postgres, f"SELECT outbox_enqueue('shop@example.com', {arguments})") == 1
