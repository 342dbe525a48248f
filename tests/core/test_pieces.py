"""Large content is composed piece by piece: the same octets as at once, and in memory once."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core import dkim, mime, pieces, raw
from outbox.core.dkim import Algorithm, DkimKey
from outbox.core.message import Attachment, Message
from outbox.core.pieces import LARGE, LINE, Stream, at_line_ends, base64, base64_lines, join
from outbox.core.render import render
from outbox.errors import InvalidMessage
from tests.core.reading import PLAIN

TEXTS = st.one_of(
    st.text(alphabet="ab .=\t\n", max_size=300),
    st.text(alphabet="a.\r\n", max_size=300),
    st.text(alphabet="aé \r\n.=", max_size=300),
    st.text(alphabet="äöü\U0001f600\n", max_size=300),
    st.sampled_from(["y" * 1200, "a\0b\n", "\ud800\n", "x\n--=_a.7.0123456789abcdef\n"]),
)
FILES = st.builds(
    Attachment, st.just("f"), st.binary(max_size=400), st.sampled_from(["image/png", "application/octet-stream"])
)
LETTERS = st.builds(
    Attachment, st.just("m.eml"), TEXTS.map(lambda text: text.encode("utf-8", "replace")), st.just("message/rfc822")
)
BODIES = st.builds(
    lambda text, html, files: replace(PLAIN, text_body=text, html_body=html, attachments=tuple(files)),
    TEXTS,
    st.none() | TEXTS,
    st.lists(FILES | LETTERS, max_size=2),
)
COMPLETE = st.builds(
    lambda end, text: replace(
        PLAIN, text_body=None, raw=b"From: shop@example.com" + end + text.encode("utf-8", "replace")
    ),
    st.sampled_from([b"\r\n\r\n", b"\n\n", b"\r\r"]),
    TEXTS,
)
MEGABYTES = 8_000_000
KEY = DkimKey("example.com", "s", Algorithm.ED25519, lambda digest: digest)


def outcome(message: Message, *, piecewise: int = 0) -> object:
    """What is sent, signed, or why it is not; in pieces of so many octets at most, or all at once."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (mime, raw, dkim):
            patch.setattr(module, "LARGE", -1 if piecewise else 2**40)
        patch.setattr(pieces, "PIECE", piecewise or 2**40)
        try:
            rendered = render(message)
            return rendered, dkim.sign(rendered.data, [KEY], message.created_at)
        except InvalidMessage as invalid:
            return str(invalid)


@given(BODIES | COMPLETE, st.integers(1, 4))
def test_in_pieces_a_message_has_the_same_octets(message: Message, lines: int) -> None:
    assert outcome(message, piecewise=lines * LINE) == outcome(message)


@given(st.binary(max_size=2000).filter(len), st.lists(st.integers(0, 2000), max_size=10))
def test_base64_in_pieces_cut_anywhere_has_the_same_lines(content: bytes, cuts: list[int]) -> None:
    places = sorted([0, len(content), *(each % len(content) for each in cuts)])
    parts = [content[start:stop] for start, stop in pairwise(places)]
    assert b"".join(base64_lines(parts)) == base64(content)


@given(st.text(alphabet="ab\r\n"), st.integers(1, 9))
def test_pieces_end_where_lines_end_and_are_the_whole(text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", size)
        found = list(at_line_ends(text))
    assert "".join(found) == text
    assert all(each.endswith("\n") for each in found[:-1])


def test_a_boundary_is_looked_for_in_large_text_too() -> None:
    text = "x" * 70 + "\n"
    taken = f"--=_m.{PLAIN.id}.{PLAIN.token[:32]}\n"
    body = text * (LARGE // 71) + taken + text
    data = render(replace(PLAIN, text_body=body, attachments=(Attachment("f", b"1"),))).data
    assert f'boundary="=_m1.{PLAIN.id}.'.encode() in data.partition(b"\r\n\r\n")[0]


def test_pieces_of_both_kinds_are_joined_in_order() -> None:
    assert join((b"a", Stream(lambda: iter((b"b", b"c"))), b"d")) == b"abcd"
    assert join((b"a", b"b")) == b"ab"


LARGE_MESSAGES = {
    "text": replace(PLAIN, text_body=("x" * 70 + "\n") * (MEGABYTES // 71)),
    "quoted-printable": replace(PLAIN, text_body="Für Sie.\n" * (MEGABYTES // 10)),
    "base64 text": replace(PLAIN, text_body="Для вас\n" * (MEGABYTES // 14)),
    "attachment": replace(PLAIN, attachments=(Attachment("f", bytes(MEGABYTES)),)),
    "attached message": replace(
        PLAIN, attachments=(Attachment("f", b"a: b\n\n" * (MEGABYTES // 6), "message/rfc822"),)
    ),
    "raw": replace(PLAIN, text_body=None, raw=b"From: a@b.example\r\n\r\n" + b"0123456789\r\n" * (MEGABYTES // 12)),
    "raw with LF": replace(PLAIN, text_body=None, raw=b"From: a@b.example\n\n" + b"0123456789\n" * (MEGABYTES // 11)),
}


@pytest.mark.parametrize("kind", LARGE_MESSAGES)
def test_a_large_message_is_composed_into_one_copy(kind: str) -> None:
    message = LARGE_MESSAGES[kind]
    tracemalloc.start()
    try:
        rendered = render(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rendered.data) > MEGABYTES * 0.9
    assert peak < len(rendered.data) * 1.3


def test_a_large_message_is_signed_without_a_copy_of_its_body() -> None:
    data = render(LARGE_MESSAGES["text"]).data
    tracemalloc.start()
    try:
        signed = dkim.sign(data, [KEY], PLAIN.created_at)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert signed.endswith(data)
    assert peak < len(signed) * 1.3
