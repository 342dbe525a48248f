"""The rules for header fields, their encoding and folding, and the check that every composed block must pass."""

from __future__ import annotations

import email.header
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox.core.address import Address
from outbox.core.header import check_header, split_block, unfolded, verify_block
from outbox.core.message import RESERVED_HEADERS
from outbox.core.words import address_field, encoded_words, parameter, pieces_field, text_field
from tests.core import strategies as some

NAMES = ["Date", "To", "Subject"]
MEANT = b"Date: x\r\nTo: a,\r\n b,\r\n\tc\r\nSubject:\r\n\r\n"


def test_a_block_that_is_what_was_meant_passes() -> None:
    verify_block(MEANT, NAMES)


WRONG = {
    "a field too many": MEANT.replace(b" b,", b"Bcc: b"),
    "a field too many at the end": MEANT[:-2] + b"Bcc: x\r\n\r\n",
    "a field too few": MEANT.replace(b"To: a,", b" To: a,"),
    "another order": b"To: x\r\nDate: x\r\nSubject: x\r\n\r\n",
    "another case": MEANT.replace(b"To:", b"TO:"),
    "a name that is only the beginning": MEANT.replace(b"To:", b"Tomorrow:"),
    "an empty line too early": MEANT.replace(b" b,", b"\r\n b,"),
    "a line of white space": MEANT.replace(b" b,", b" \t "),
    "a bare line feed": MEANT.replace(b" b,", b" b\nBcc: x,"),
    "a bare carriage return": MEANT.replace(b" b,", b" b\rBcc: x,"),
    "a NUL": MEANT.replace(b" b,", b" \0b,"),
    "a long line": MEANT.replace(b" b,", b" " + b"b" * 998),
    "no empty line": MEANT[:-2],
    "two empty lines": MEANT + b"\r\n",
    "a body": MEANT + b"x",
    "a line that is no field": MEANT.replace(b" b,", b"b"),
    "a continuation line first": b" x\r\n" + MEANT,
    "nothing": b"",
}


@pytest.mark.parametrize("block", WRONG.values(), ids=WRONG.keys())
def test_a_block_that_is_anything_else_does_not_leave(block: bytes) -> None:
    with pytest.raises(ValueError, match="composed header"):
        verify_block(block, NAMES)


@given(st.binary(max_size=5), st.integers(0, len(MEANT)))
def test_no_injected_bytes_make_a_field(injected: bytes, place: int) -> None:
    block = MEANT[:place] + injected + MEANT[place:]
    try:
        verify_block(block, NAMES)
    except ValueError:
        return
    assert [name for name, _ in split_block(block[:-2])] == ["date", "to", "subject"]


@pytest.mark.parametrize("name", [*sorted(RESERVED_HEADERS), "MIME-Version", "content-id", "Resent-From"])
def test_fields_with_a_column_of_their_own_are_reserved(name: str) -> None:
    for spelled in (name, name.upper(), name.title()):
        with pytest.raises(ValueError, match="reserved"):
            check_header(spelled, "x")


@pytest.mark.parametrize(
    "name", ["X-Order", "List-Unsubscribe", "References", "In-Reply-To", "Auto-Submitted", "X!#$%&'*+^_`|~"]
)
def test_other_fields_are_the_applications(name: str) -> None:
    check_header(name, "Grüße\t=?utf-8?q?x?= " + "x" * 2000)


def test_a_split_block_is_the_same_bytes() -> None:
    block = b"A: 1\r\nB :\r\n  2\r\n\t3\r\nC:\r\n"
    fields = split_block(block)
    assert [name for name, _ in fields] == ["a", "b", "c"]
    assert b"".join(field for _, field in fields) == block
    assert unfolded(fields[1][1]) == "2\t3"


# -- encoded-words and folding


@given(some.header_texts.filter(bool))
def test_encoded_words_decode_to_the_text(text: str) -> None:
    for room in (75, 40, 10):
        words = encoded_words(text, room)
        assert all(len(word) <= 75 for word in words)
        for word in words:
            assert re.fullmatch(r"=\?utf-8\?[qb]\?[^? ]*\?=", word)
            email.header.make_header(email.header.decode_header(word))  # none cuts a character
        assert str(email.header.make_header(email.header.decode_header("\n ".join(words)))) == text


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=300))
def test_ascii_text_is_left_alone_and_only_folded(text: str) -> None:
    if text != text.strip() or "=?" in text:
        return
    folded = text_field("Subject", text)
    assert folded.replace("\r\n", "") == f"Subject: {text}".rstrip()
    assert all(line.strip() for line in folded.split("\r\n"))


def test_lines_are_broken_where_they_can_be() -> None:
    folded = text_field("Subject", " ".join(["word"] * 60))
    assert max(map(len, folded.split("\r\n"))) <= 76
    assert text_field("References", "<" + "x" * 200 + ">") == "References: <" + "x" * 200 + ">"
    assert "=?utf-8?" in text_field("X-Url", "https://example.com/" + "x" * 1000)
    assert pieces_field("To", [" " + "x" * 100, " y"]) == "To: " + "x" * 100 + "\r\n y"


def test_only_the_words_that_need_it_are_encoded() -> None:
    assert (
        text_field("List-Id", "Über uns <news.example.com>") == "List-Id: =?utf-8?b?w5xiZXI=?= uns <news.example.com>"
    )
    assert text_field("X", "a  é  b") == "X: a =?utf-8?b?IMOp?=  b"


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        ("a b.txt", [' filename="a b.txt"']),
        ('a"b.txt', [" filename*=utf-8''a%22b.txt"]),
        ("Grüße.pdf", [" filename*=utf-8''Gr%C3%BC%C3%9Fe.pdf"]),
        ("=?utf-8?q?x?=", [" filename*=utf-8''%3D%3Futf-8%3Fq%3Fx%3F%3D"]),
        ("ü" * 12, [" filename*0*=utf-8''" + "%C3%BC" * 9 + ";", " filename*1*=" + "%C3%BC" * 3]),
    ],
)
def test_parameters_are_quoted_or_percent_encoded(value: str, pieces: list[str]) -> None:
    assert parameter("filename", value) == pieces


@given(st.lists(some.addresses(), min_size=1, max_size=5))
def test_no_line_of_an_address_list_is_longer_than_998(addresses: list[Address]) -> None:
    assert max(len(line.encode()) for line in address_field("Reply-To", addresses).split("\r\n")) <= 998
