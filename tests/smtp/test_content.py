"""What is written between DATA and the dot: exactly the message, and never a second one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.core.outcome import Stage
from outbox.core.render import Rendered
from outbox.smtp.connection import CHUNK
from outbox.smtp.transaction import content_flaw, stuffed
from tests import relay as scripted
from tests.smtp.sending import TO_ANN, Mark, account, connect, run

SECOND = b"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n"
SMUGGLING = [
    before + b"." + after
    for before in (b"\r\n", b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n\0", b"\0\r\n")
    for after in (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\0\r\n", b"\r\n\0")
]


@pytest.mark.parametrize("end", SMUGGLING, ids=[repr(end)[2:-1] for end in SMUGGLING])
def test_no_end_of_data_can_be_smuggled_in(end: bytes) -> None:
    """It is either refused by ourselves or arrives, dot and all, as one message (CVE-2023-51764, -51765, -51766)."""
    content = b"Subject: x\r\n\r\nfirst" + end + SECOND

    async def story(relay: scripted.Relay) -> None:
        connection = await connect(account(relay))
        report = await connection.deliver(TO_ANN, Rendered(content, False, False), Mark())
        if report.stage is Stage.MAIL:
            assert report.reply is not None
            assert (report.reply.code, report.reply.status) == (554, "5.6.0")
        assert (await connection.deliver(TO_ANN, Rendered(b"after\r\n", False, False), Mark())).stage is Stage.DOT
        await connection.close()

    with scripted.Relay() as relay:
        run(story(relay))
    honest = end == b"\r\n.\r\n"
    assert [message.content for message in relay.messages] == [content] * honest + [b"after\r\n"]
    assert {message.recipients for message in relay.messages} == {("ann@example.net",)}


CONTENTS = {
    "empty": b"",
    "a dot": b".\r\n",
    "two dots": b"..\r\n",
    "dots everywhere": b".a\r\n.\r\n..\r\n...\r\n\r\n.\r\n",
    "an empty line": b"\r\n",
    "a line of 1200 octets": b"x" * 1200 + b"\r\n",
    "just over a chunk": b"x\r\n" * 21846,
    "8 bits": b"\xff\xfe\r\n",
    **{
        f"a dot {off} octets from the edge of a chunk": b"x" * (CHUNK + off - 2) + b"\r\n." * 30_000 + b"\r\n"
        for off in range(-3, 4)
    },
}


@pytest.mark.parametrize("name", CONTENTS)
def test_whatever_the_content_it_arrives_as_it_is(name: str) -> None:
    assert received(CONTENTS[name]) == CONTENTS[name]


def test_a_missing_line_end_is_added() -> None:
    assert received(b"no line end") == b"no line end\r\n"


def received(content: bytes) -> bytes:
    async def story(relay: scripted.Relay) -> None:
        connection = await connect(account(relay))
        assert (await connection.deliver(TO_ANN, Rendered(content, False, True), Mark())).stage is Stage.DOT
        await connection.close()

    with scripted.Relay() as relay:
        run(story(relay))
    return relay.messages[0].content


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"\r\n", b".", b"a", b"\r\n."]), max_size=30).map(b"".join), st.integers(2, 8))
def test_a_content_is_stuffed_in_pieces_as_it_is_as_a_whole(content: bytes, size: int) -> None:
    cuts = [stuffed(content, start, start + size) for start in range(0, len(content), size)]
    assert b"".join(cuts) == stuffed(content)


pieces = st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"\0", b"a", b"..", b"\r\n.\r\n"]), max_size=12).map(
    b"".join
)


@settings(deadline=None, max_examples=500)
@given(pieces)
def test_what_passes_has_one_end_whoever_reads_it(content: bytes) -> None:
    bare = re.search(rb"(?<!\r)\n|\r(?!\n)|\0", content)
    assert bool(content_flaw(content)) == bool(bare)
    if bare:
        return
    wire = stuffed(content) + b".\r\n"
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3  # strictly, the only end is ours
    for line_end in (rb"\r\n", rb"\n", rb"\r", rb"\r?\n"):  # and for those who are not strict
        ends = [match.end() for match in re.finditer(rb"(?:^|" + line_end + rb")\.(?:" + line_end + rb")", wire)]
        assert all(end >= len(wire) - 1 for end in ends)
    assert re.sub(rb"(?m)^\.\.", b".", wire[:-3]) == content + b"\r\n" * (
        bool(content) and not content.endswith(b"\r\n")
    )
