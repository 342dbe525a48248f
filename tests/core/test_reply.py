"""The reply parser: strict about form, indifferent to fragmentation, and its words are safe to store."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.core.reply import (
    MAX_LINES,
    MAX_OCTETS,
    MAX_TEXT,
    MalformedReply,
    Reading,
    Reply,
    ReplyParser,
    sanitise,
)


def read(*fragments: bytes) -> list[Reading | str]:
    """Everything the parser makes of a stream; the complaint, where it complains, is the last."""
    parser, found = ReplyParser(), list[Reading | str]()
    for fragment in fragments:
        parser.feed(fragment)
        try:
            while (reading := parser.take()) is not None:
                found.append(reading)
        except MalformedReply as error:
            return [*found, str(error)]
    return found


def parse(octets: bytes) -> Reply:
    (reading,) = read(octets)
    assert isinstance(reading, Reading)
    return reading.reply


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"250 ok\r\n", Reply(250, "", "ok")),
        (b"250\r\n", Reply(250)),
        (b"250 \r\n", Reply(250)),
        (b"250 ok\n", Reply(250, "", "ok")),
        (b"250 2.1.5 Ok\r\n", Reply(250, "2.1.5", "Ok")),
        (b"250 2.0.0\r\n", Reply(250, "2.0.0")),
        (b"550 5.1.1 <a@b>: no such user\r\n", Reply(550, "5.1.1", "<a@b>: no such user")),
        (b"550-5.7.1 one\r\n550-5.7.1\r\n550 5.7.1 two\r\n", Reply(550, "5.7.1", "one two")),
        (b"250-5.1.1 one\r\n250 two\r\n", Reply(250, "", "5.1.1 one two")),
        (b"354 2.0.0 go\r\n", Reply(354, "", "2.0.0 go")),
        (b"450 5.7.1 class and code disagree\r\n", Reply(450, "", "5.7.1 class and code disagree")),
        (b"550 5.1.1: not a status\r\n", Reply(550, "", "5.1.1: not a status")),
        (b"550 5.1234.1 too long\r\n", Reply(550, "", "5.1234.1 too long")),
        (b"250 a\x00b\x1b[31m\tc\x7f\r\n", Reply(250, "", "a b [31m c")),
        (b"250 gr\xc3\xbc\xc3\x9fe \xff\r\n", Reply(250, "", "grüße \ufffd")),
        ("250 a\u202eb\u2028c\r\n".encode(), Reply(250, "", "a b c")),
    ],
)
def test_a_reply_has_a_code_a_status_and_words(octets: bytes, expected: Reply) -> None:
    assert parse(octets) == expected


@pytest.mark.parametrize(
    "octets",
    [
        b"2_0 what\r\n",
        b"25\r\n",
        b"250_ok\r\n",
        b"250ok\r\n",
        b"2500 ok\r\n",
        b" 250 ok\r\n",
        b"\r\n",
        b"199 early\r\n",
        b"600 late\r\n",
        b"\xff\xfe\r\n",
        "２50 ok\r\n".encode(),
        b"HTTP/1.1 400 Bad Request\r\n",
        b"250-one\r\n251 two\r\n",
        b"250-one\r\ntwo\r\n",
        b"250 " + b"x" * MAX_OCTETS + b"\r\n",
        b"2" * (MAX_OCTETS + 1),
        b"250-x\r\n" * (MAX_LINES + 1),
        b"250-" + b"x" * 2000 + b"\r\n",  # 40 of these
    ],
)
def test_anything_else_is_malformed(octets: bytes) -> None:
    if octets.startswith(b"250-xx"):
        octets *= 40
    assert isinstance(read(octets)[-1], str)


def test_the_caps_are_reached_but_not_crossed() -> None:
    assert len(read(b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n")) == 1
    assert isinstance(read(b"250 " + b"x" * (MAX_OCTETS - 6) + b"\r\n")[0], Reading)


def test_what_a_reply_may_have_at_most() -> None:
    """RFC 5321 has 512 octets a line and no most; Postfix stops at 64 KiB, too."""
    assert (MAX_OCTETS, MAX_LINES, MAX_TEXT) == (65536, 100, 1024)


@pytest.mark.parametrize(
    ("octets", "is_too_long"),
    [
        (b"250 " + b"x" * 65531 + b"\n", False),  # 65536 with its line end
        (b"250 " + b"x" * 65532 + b"\n", True),
        (b"250-" + b"x" * 60000 + b"\n" + b"250 " + b"x" * 5526 + b"\n", False),  # and together
        (b"250-" + b"x" * 60000 + b"\n" + b"250 " + b"x" * 5527 + b"\n", True),
        (b"250-" + b"x" * 60000 + b"\n" + b"x" * 5531, False),  # not complete, and still within it
        (b"250-" + b"x" * 60000 + b"\n" + b"x" * 5532, True),
        (b"2" * 65536, False),
        (b"2" * 65537, True),
    ],
)
def test_a_reply_is_too_long_by_one_octet(octets: bytes, is_too_long: bool) -> None:
    complaint = f"a reply of more than {MAX_OCTETS} octets"
    assert (complaint in read(octets)) is is_too_long
    half = len(octets) // 2
    assert (complaint in read(octets[:half], octets[half:])) is is_too_long


def test_each_reply_is_measured_by_itself() -> None:
    one = b"250-a\r\n" + b"250 " + b"x" * 40_000 + b"\r\n"
    assert [type(each) for each in read(one, one, one)] == [Reading] * 3
    lines = b"250-x\r\n" * 70 + b"250 x\r\n"
    assert [type(each) for each in read(lines, lines)] == [Reading] * 2


def test_a_complaint_has_an_excerpt_of_sixty_octets() -> None:
    (complaint,) = read(b"\x1b[31m" + b"y" * 300 + b"\r\n")
    assert complaint == f"not an SMTP reply: {'[31m' + 'y' * 56!r}"
    assert read(b"250-a\r\n551 b\r\n") == ["one reply with two codes, 250 and 551"]


def test_words_are_cut_at_a_kilobyte_and_between_letters() -> None:
    assert parse(b"250 " + b"x" * 1024 + b"\r\n").text == "x" * 1024
    assert parse(b"250 " + b"x" * 1025 + b"\r\n").text == "x" * 1024
    assert parse(b"250 x" + "\u00e9".encode() * 600 + b"\r\n").text == "x" + "\u00e9" * 511
    assert parse(b"550 5.1.1 " + b"x" * 1025 + b"\r\n") == Reply(550, "5.1.1", "x" * 1024)
    assert parse(b"550-5.1.1 " + b"x" * 600 + b"\r\n550 5.1.1 " + b"y" * 600 + b"\r\n").text == (
        "x" * 600 + " " + "y" * 423
    )


def test_the_lines_of_a_reply_are_kept_as_they_came() -> None:
    (reading,) = read(b"250-relay.example\r\n250-SIZE 1\r\n250\r\n")
    assert isinstance(reading, Reading)
    assert reading.lines == (b"relay.example", b"SIZE 1", b"")
    (reading,) = read(b"250 \xff  x\r\n")
    assert isinstance(reading, Reading)
    assert reading.lines == (b"\xff  x",)


def test_something_is_pending_until_it_was_taken() -> None:
    parser = ReplyParser()
    story: list[tuple[bytes, int, bool]] = [
        (b"", 0, False),
        (b"250 a\r\n250 b\r\n", 1, True),
        (b"", 1, False),
        (b"250-a\r\n", 0, True),  # a line of a reply that is not complete
        (b"250 b\r\n25", 1, True),
        (b"0 c\r\n", 1, False),
    ]
    for octets, complete, left in story:
        parser.feed(octets)
        for _ in range(complete):
            assert parser.take() is not None
        if left and not complete:
            assert parser.take() is None
        assert parser.pending is left


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        (199, (False, False, False)),
        (200, (True, False, False)),
        (299, (True, False, False)),
        (300, (False, True, False)),
        (399, (False, True, False)),
        (400, (False, False, False)),
        (499, (False, False, False)),
        (500, (False, False, True)),
    ],
)
def test_the_first_digit_is_what_counts(code: int, kinds: tuple[bool, bool, bool]) -> None:
    answer = Reply(code)
    assert (answer.positive, answer.intermediate, answer.permanent) == kinds


def test_a_reply_is_written_as_a_relay_says_it() -> None:
    assert str(Reply(550, "5.1.1", "no such user")) == "550 5.1.1 no such user"
    assert str(Reply(250)) == "250"
    assert str(Reply(0, "", "no reply")) == "no reply"


def test_pipelined_replies_come_one_by_one() -> None:
    assert [item.reply.code for item in read(b"250 a\r\n550-b\r\n550 b\r\n354") if isinstance(item, Reading)] == [
        250,
        550,
    ]


def test_an_endless_reply_dripping_in_costs_no_more_than_its_octets() -> None:
    started = time.process_time()
    assert read(*[b"2"] * (MAX_OCTETS + 1)) == [f"a reply of more than {MAX_OCTETS} octets"]
    assert time.process_time() - started < 2


@settings(deadline=None)
@given(st.text(), st.integers(1, 2000))
def test_sanitised_text_is_printable_and_short(text: str, limit: int) -> None:
    clean = sanitise(text, limit=limit)
    assert clean.isprintable()
    assert len(clean.encode()) <= limit
    assert sanitise(clean, limit=limit).startswith(clean.rstrip())


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_any_words_become_a_storable_reply(words: bytes) -> None:
    answer = parse(b"250 " + words.replace(b"\n", b"") + b"\r\n")
    assert "\0" not in answer.text
    assert len(answer.text.encode()) <= MAX_TEXT


streams = st.lists(
    st.sampled_from(
        [b"250 ok\r\n", b"250-a\r\n", b"250 b\n", b"354\r\n", b"550 5.1.1 no\r\n", b"551-x\r\n", b"2_0\r\n"]
    )
    | st.binary(max_size=4),
    max_size=8,
).map(b"".join)


@settings(deadline=None)
@given(streams, st.lists(st.integers(0, 80)))
def test_fragmentation_does_not_matter(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    fragments = [stream[start:end] for start, end in pairwise(edges)]
    assert read(*fragments) == read(stream)
