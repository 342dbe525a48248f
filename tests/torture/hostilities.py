"""A hundred hostile rows, no two alike: each column with each fault that it can have.

Most of them PostgreSQL, or a CHECK of the schema, would not let in. So they come in by a connection without CHECKs
(`ignore_check_constraints`, and on PostgreSQL as somebody who has dropped them), as a restored dump or an administrator
might: what is in the table nobody has to believe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import peewee

from outbox.store.database import dialect

HEAD = b"From: shop@example.com\r\nTo: ann@example.net\r\nSubject: Order 7\r\n"
ANN = "ann@example.net"
EVE = "\r\nRCPT TO:<eve@example.net>"
UNREADABLE = b"\xff\xfe"
NO_TEXT = {"text_body": None}


@dataclass(frozen=True)
class Hostility:
    """`what` it is, in words; `columns` besides those of a good mail; `status` and `words`: what must be said of it.
    `files`: the columns of its attachments.
    """

    what: str
    columns: dict[str, Any]
    status: str
    words: str
    files: tuple[dict[str, Any], ...] = ()


def _header_columns() -> Iterator[Hostility]:
    """What becomes a header or an envelope, with what would become another line of it."""
    named = {
        "sender_name": ("Shop", "5.6.0", "sender_name has"),
        "subject": ("Order", "5.6.0", "the header Subject has"),
        "recipients": (ANN, "5.1.3", "its recipients cannot be read"),
        "cc": (ANN, "5.1.3", "its cc cannot be read"),
        "bcc": (ANN, "5.1.3", "its bcc cannot be read"),
        "reply_to": (ANN, "5.1.3", "its Reply-To addresses cannot be read"),
        "return_path": ("shop@example.com", "5.1.7", "its return path is not an address"),
    }
    for column, (good, status, words) in named.items():
        yield Hostility(f"{column}: CRLF and a command", {column: good + EVE}, status, words)
        yield Hostility(f"{column}: LF and a field", {column: f"{good}\nBcc: eve@example.net"}, status, words)
        yield Hostility(f"{column}: a control character", {column: f"{good}\a"}, status, words)
        yield Hostility(f"{column}: NUL", {column: f"{good}\0"}, status, words)
        words = f"column {column} holds bytes that are not UTF-8"
        yield Hostility(f"{column}: bytes", {column: UNREADABLE}, "5.6.0", words)


def _address_columns() -> Iterator[Hostility]:
    """Lists of addresses that are none. Three of the four columns have a third each: one parser reads them all."""
    faults = [
        ("no @", "nobody", "there is no @"),
        ("two @", "ann@@example.net", "this is not an address: 'ann@@example.net'"),
        ("an empty place", f"{ANN},,{ANN}", "there is an empty place"),
        ("semicolons", f"{ANN};{ANN}", "separated by commas"),
        ("a group", f"friends: {ANN};", "groups are not accepted"),
        ("words after it", f"<{ANN}> evil", "this is not an address"),
        ("20,000 comments", "(" * 20_000 + ANN, "comments are not accepted"),
        ("an open quote", f'"Ann <{ANN}>', "this is not an address"),
        ("an empty label", "ann@example..net", "it has an empty part"),
        ("a long local part", f"{'a' * 65}@example.net", "longer than 64 octets"),
        ("a long label", f"ann@{'a' * 64}.net", "longer than 63"),
        ("a domain of two minds", "ann@straße.example", "not the same domain to all software"),
        ("an invisible character", "an\u200bn@example.net", "an invisible character"),
        ("a source route", f"<@a.example:{ANN}>", "this is not an address"),
        ("no literal", "ann@[300.1.1.1]", "is not an address literal"),
        ("a number", 7, "there is no @ in '7'"),
    ]
    named = {"recipients": "its recipients", "cc": "its cc", "bcc": "its bcc", "reply_to": "its Reply-To addresses"}
    for number, (what, value, words) in enumerate(faults):
        for column in {"recipients", ["cc", "bcc", "reply_to"][number % 3]}:
            yield Hostility(
                f"{column}: {what}", {column: value}, "5.1.3", f"{named[column]} cannot be read: .*{re.escape(words)}"
            )
    yield Hostility("nobody", {"recipients": None}, "5.1.0", "it has no recipient")


def _senders() -> Iterator[Hostility]:
    for what, value in {
        "another's": "eve@example.org",
        "a name, too": "Shop <shop@example.com>",
        "no address": "shop",
        "two": "shop@example.com, eve@example.net",
        "bytes": UNREADABLE + b"@example.com",
        "a command": "eve@`reboot`",
        "a second line": f"shop@example.com{EVE}",
    }.items():
        yield Hostility(f"sender: {what}", {"sender": value}, "5.7.1", "sender not registered: ")
    yield Hostility("return_path: two", {"return_path": f"{ANN}, {ANN}"}, "5.1.7", "return path .* expected, not 2")
    yield Hostility("return_path: a name", {"return_path": f"Ann <{ANN}>"}, "5.1.7", "return path is more than a bare")
    yield Hostility("return_path: another's", {"return_path": "eve@example.org"}, "5.7.1", "eve@example.org may not")


def _headers() -> Iterator[Hostility]:
    """The column `headers`."""
    deep, long = "[" * 100_000 + "]" * 100_000, "1" * 200_000
    faults = [
        ("no JSON", "{not json}", "headers is not JSON: '{not"),
        ("an open object", '{"X-A": "x"', "headers is not JSON: "),
        ("two objects", '{"X-A": "x"} {"Bcc": "y"}', "headers is not JSON: .*Bcc"),
        ("an array", "[1]", "headers is not a JSON object of names and texts: '[1]'"),
        ("a text", '"a"', "headers is not a JSON object"),
        ("a deep value", f'{{"X-A": {deep}}}', "headers is not JSON: .*[[["),
        ("a long number", f'{{"X-A": {long}}}', "headers is not JSON: .*1111"),
        ("a number for a text", '{"X-N": 7}', "a text, or a list of texts: 'X-N'"),
        ("null for a text", '{"X-Null": null}', "a text, or a list of texts: 'X-Null'"),
        ("an object for a text", '{"X-O": {"b": 1}}', "a text, or a list of texts: 'X-O'"),
        ("a list in a list", '{"X-L": [["a"]]}', "a text, or a list of texts: 'X-L'"),
        ("NaN", '{"X-NaN": NaN}', "a text, or a list of texts: 'X-NaN'"),
        ("half a character", '{"X-A": "\\ud800"}', "the header X-A has a control character or a broken one"),
        ("NUL", '{"X-A": "a\\u0000b"}', "the header X-A has a control character"),
        ("LF", '{"X-A": "1\\nBcc: eve@example.net"}', "the header X-A has a line break"),
        ("a name with CRLF", '{"X-A: 1\\r\\nBcc": "eve@example.net"}', "is not a header name"),
        ("a name with a colon", '{"X-A:": "x"}', "'X-A:' is not a header name"),
        ("a name with a space", '{"X A": "x"}', "'X A' is not a header name"),
        ("no name", '{"": "x"}', "'' is not a header name"),
        ("a long name", json.dumps({"X-" + "a" * 80: "x"}), "is not a header name"),
        ("a name in UTF-8", '{"X-Ä": "x"}', "'X-Ä' is not a header name"),
        ("a long value", json.dumps({"X-A": "a" * 70_000}), "the header X-A is longer than"),
        ("150 of them", json.dumps({f"X-{number}": "x" for number in range(150)}), "more than 100 fields"),
    ]
    for what, value, words in faults:
        pattern = ".*".join(map(re.escape, words.split(".*")))
        yield Hostility(f"headers: {what}", {"headers": value}, "5.6.0", pattern)
    yield Hostility("headers: bytes", {"headers": UNREADABLE}, "5.6.0", "column headers holds bytes")
    for name in ("from", "BCC", "Message-ID", "DKIM-Signature", "MIME-Version", "Content-Type", "Resent-To"):
        value = json.dumps({name: "eve@example.net"})
        yield Hostility(f"headers: {name}", {"headers": value}, "5.6.0", f"the header {name} is reserved")


def _raw() -> Iterator[Hostility]:
    """Messages that come complete, and are none."""
    shop, nobody = b"From: shop@example.com\r\n", {"recipients": None}
    header = "the senders in its header cannot be read: "
    faults: list[tuple[str, bytes, str, str, dict[str, Any]]] = [
        ("only words", b"no header, just words", "5.1.7", header + "no empty line", {}),
        ("a stray line", HEAD + b"nonsense\r\n\r\nx\r\n", "5.1.7", header + "line 4 .* not a header field", {}),
        ("a name with a space", HEAD + b"X A: b\r\n\r\nx\r\n", "5.1.7", header + "line 4 .*X A", {}),
        ("a continuation first", b" x\r\n" + HEAD + b"\r\nx\r\n", "5.1.7", header + "its header begins", {}),
        ("a long line", HEAD + b"\r\n" + b"a" * 999 + b"\r\n", "5.6.0", "a line of its body is longer than 998", {}),
        ("a long field", HEAD + b"X: " + b"a" * 999 + b"\r\n\r\nx", "5.6.0", "a line of its header is longer", {}),
        ("NUL in the body", HEAD + b"\r\nx\0\r\n", "5.6.0", "there is a NUL in its body", {}),
        ("NUL in the header", HEAD + b"X: \0\r\n\r\nx\r\n", "5.6.0", "there is a NUL in its header", {}),
        ("another's From", b"From: eve@example.org\r\n\r\nx\r\n", "5.7.1", "eve@example.org may not send", {}),
        ("another's Sender", HEAD + b"Sender: eva@example.org\r\n\r\nx", "5.7.1", "eva@example.org may not send", {}),
        ("a From that is none", b"From: nobody\r\n\r\nx\r\n", "5.1.7", header + "there is no @", {}),
        ("an open comment", b"From: (shop@example.com\r\n\r\nx", "5.1.7", header + "a comment is not closed", {}),
        ("an open group", shop + b"To: us: a@example.net\r\n\r\nx", "5.1.3", "in its header .* a group is not", nobody),
        ("a To that is none", shop + b"To: nobody\r\n\r\nx\r\n", "5.1.3", "recipients in its header .* no @", nobody),
        ("to nobody", shop + b"\r\nx\r\n", "5.1.0", "it has no recipient", nobody),
    ]
    for what, content, status, words, more in faults:
        yield Hostility(f"raw: {what}", {"raw": content, **NO_TEXT, **more}, status, words)
    alone = {"raw": HEAD + b"\r\nx\r\n", **NO_TEXT}
    yield Hostility("raw: and a file", alone, "5.6.0", "a raw message has its attachments inside", ({},))


def _files() -> Iterator[Hostility]:
    """The columns of `outbox_attachment`."""
    faults: list[tuple[str, dict[str, Any], str]] = [
        ("type: no slash", {"content_type": "pdf"}, "'pdf' is not a content type"),
        ("type: CRLF", {"content_type": "text/plain\r\nBcc: eve@example.net"}, "'text/plain.*Bcc.* is not a content"),
        ("type: multipart", {"content_type": "multipart/mixed"}, "cannot be 'multipart/mixed'"),
        ("type: an encoded word", {"content_type": 'a/b; name="=?utf-8?q?x?="'}, "is not a content type"),
        ("type: long", {"content_type": "text/" + "a" * 300}, "'text/aaa.* is not a content type"),
        ("type: half a parameter", {"content_type": "text/plain; charset"}, "charset' is not a content type"),
        ("type: bytes", {"content_type": UNREADABLE}, "column content_type holds bytes"),
        ("filename: CRLF", {"filename": "a\r\nBcc: eve@example.net"}, "the filename has a line break"),
        ("filename: a tab", {"filename": "a\tb"}, "the filename .* has a tab"),
        ("filename: a control character", {"filename": "a\ab"}, "the filename has a control character"),
        ("filename: long", {"filename": "a" * 1001}, "the filename .* is longer than 1000"),
        ("filename: bytes", {"filename": UNREADABLE}, "column filename holds bytes"),
        ("content_id: brackets", {"content_id": "<logo>"}, "the content_id '<logo>' must be like"),
        ("content_id: CRLF", {"content_id": "a\r\nBcc: eve@example.net"}, "the content_id 'a.*Bcc.*' must be like"),
        ("content_id: in UTF-8", {"content_id": "lögo"}, "the content_id 'lögo' must be like"),
        ("content_id: bytes", {"content_id": UNREADABLE}, "column content_id holds bytes"),
    ]
    for what, columns, words in faults:
        yield Hostility(f"file, {what}", {}, "5.6.0", f"attachment 1: .*{words}", (columns,))
    second: tuple[dict[str, Any], ...] = ({}, {"filename": "b\tc"})
    yield Hostility("file, the second of two", {}, "5.6.0", "attachment 2: the filename", second)
    twice = ({"content_id": "logo"}, {"content_id": "logo"})
    html = {"html_body": "<p>Thanks</p>"}
    yield Hostility("file, content_id twice", html, "5.6.0", "two attachments have the same content_id, 'logo'", twice)
    for what, content in {"8-bit": "Grüße".encode(), "NUL": b"a\0", "a long line": b"a" * 1000}.items():
        columns = {"content_type": "message/rfc822", "content": content}
        yield Hostility(f"file, message: {what}", {}, "5.6.0", "an attached message must be ASCII", (columns,))


def _others() -> Iterator[Hostility]:
    for column in ("text_body", "html_body"):
        for what, content in {"bytes": UNREADABLE, "half a character": b"x\xed\xa0\x80"}.items():
            words = f"column {column} holds bytes that are not UTF-8"
            yield Hostility(f"{column}: {what}", {**NO_TEXT, column: content}, "5.6.0", words)
    yield Hostility("no body", NO_TEXT, "5.6.0", "it has no body")
    for token in ("a b", "a" * 65, "a\r\nb", "a>b", "ä", "a\0b"):
        yield Hostility(f"token: {token[:9]!r}", {"token": token}, "5.6.0", "its token is not made of letters and dig")
    yield Hostility("created_at: in the year 0", {"created_at": "0000-01-01T00:00:00.000Z"}, "5.6.0", "created_at")
    for value in ("sometimes", "never,success", "success,success", "SUCCESS", f"never{EVE}"):
        words = f"dsn_notify must be .*, not {value!r}"
        yield Hostility(f"dsn_notify: {value!r}", {"dsn_notify": value}, "5.5.4", re.sub(r"\\", r"\\\\", words))
    for value in ("half", f"full{EVE}"):
        yield Hostility(f"dsn_ret: {value!r}", {"dsn_ret": value}, "5.5.4", "dsn_ret must be 'full' or 'hdrs', not ")
    for value in ("a" * 101, f"a{EVE}", "ä"):
        yield Hostility(f"dsn_envid: {value[:9]!r}", {"dsn_envid": value}, "5.5.4", "dsn_envid must be printable ASCII")
    for column in ("dsn_notify", "dsn_ret", "dsn_envid"):
        words = f"column {column} holds bytes that are not UTF-8"
        yield Hostility(f"{column}: bytes", {column: UNREADABLE}, "5.6.0", words)


def all_of_them() -> list[Hostility]:
    parts = (_header_columns, _address_columns, _senders, _headers, _raw, _files, _others)
    found = [each for part in parts for each in part()]
    assert len({each.what for each in found}) == len(found)
    return found


# -- into the database


def storable(kind: str, hostility: Hostility) -> bool:
    """PostgreSQL has types: no bytes and no NUL get into a text, and nothing but JSON that it understands. What its
    triggers and generated columns need is kept from neither.
    """
    if kind == "sqlite":
        return True
    values = [*hostility.columns.items(), *(pair for file in hostility.files for pair in file.items())]
    for column, value in values:
        if isinstance(value, bytes) and column not in ("raw", "content"):
            return False
        if isinstance(value, str) and "\0" in value:
            return False
    headers = hostility.columns.get("headers")
    if headers is None:
        return "created_at" not in hostility.columns
    try:
        json.loads(headers)
    except (ValueError, RecursionError):
        return False
    return not any(each in headers for each in ("NaN", "\\u0000", "\\ud800"))


def without_checks(db: peewee.Database) -> None:
    """From now on this database believes everything: SQLite for this connection, PostgreSQL for good."""
    if dialect(db) == "sqlite":
        db.execute_sql("PRAGMA ignore_check_constraints = 1")
        return
    for table in ("outbox", "outbox_attachment"):
        names = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = %s::regclass"
        for (name,) in db.execute_sql(names, (table,)).fetchall():
            db.execute_sql(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    checked = (
        "CREATE OR REPLACE FUNCTION outbox_checked(mail outbox) RETURNS text LANGUAGE sql AS $$ SELECT 'queued' $$"
    )
    db.execute_sql(checked)


def insert(db: peewee.Database, hostility: Hostility) -> int:
    """The id of its row."""
    row = {"sender": "shop@example.com", "recipients": ANN, "subject": "Order", "text_body": "x", **hostility.columns}
    [(number,)] = _insert(db, "outbox", row, " RETURNING id")
    for place, columns in enumerate(hostility.files):
        file = {"filename": "a.pdf", "content_type": "application/pdf", "content": b"%PDF", **columns}
        _insert(db, "outbox_attachment", {"message_id": number, "position": place, **file})
    return int(number)


def _insert(db: peewee.Database, table: str, row: dict[str, Any], returning: str = "") -> list[Any]:
    row = {name: value for name, value in row.items() if value is not None}
    marks = ", ".join([db.param] * len(row))
    cursor = db.execute_sql(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks}){returning}", tuple(row.values()))
    return list(cursor.fetchall()) if returning else []


def unlike(expected: Iterable[tuple[Hostility, Sequence[Any]]]) -> list[str]:
    """Of hostilities and what was found of them (state, status, reply): those that are not as they must be. What a
    person reads of them is one line, whatever is in it.
    """
    return [
        f"{each.what}: {tuple(found)}"
        for each, found in expected
        if tuple(found[:2]) != ("failed", each.status) or not re.search(each.words, found[2] or "") or "\n" in found[2]
    ]
