"""Hypothesis strategies for mail: header texts, names, addresses, bodies, attachments, whole messages.

They lean towards what breaks composers: text that looks like an encoded-word, quotes and backslashes, other scripts,
very long words, lines at the limits.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from outbox.core.address import Address
from outbox.core.message import Attachment, Message

# A deadline of 200 ms an example measures the machine, not the code; the tests of speed say so themselves.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

ATEXT = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~"
NASTY_WORDS = (
    "=?utf-8?q?x=0ABcc:_y?=",
    "=?utf-8?b?Cg==?=",
    "=?UTF-8?Q?=0A?=Bcc:",
    "=?",
    "?=",
    "=_m.7.token",
    "Grüße",
    "日本語",
    "שלום",
    "مرحبا",
    "👩‍👩‍👧‍👦",
    '"quoted"',
    "back\\slash",
    "(comment)",
    "a,b;c:d<e>f@g",
    "From",
    ".",
    "x" * 75,
    "y" * 1200,
    "ü" * 300,
)

characters = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029")
header_characters = st.characters(exclude_categories=["Cs", "Cc"])
words = st.one_of(
    st.sampled_from(NASTY_WORDS), st.text(characters, min_size=1, max_size=20), st.text(ATEXT, min_size=1)
)
header_texts = st.one_of(
    st.lists(words, max_size=12).map(" ".join),
    st.text(header_characters, max_size=200),
    st.text(ATEXT + " \t", max_size=200),
)
names = st.lists(words.filter(lambda word: len(word) < 200), max_size=5).map(" ".join)

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
domains = st.one_of(
    st.lists(labels, min_size=1, max_size=3).map(".".join),
    st.sampled_from(["example.com", "münchen.example", "例え.example", "xn--mnchen-3ya.example", "[192.0.2.1]"]),
)
dot_atoms = st.lists(st.text(ATEXT, min_size=1, max_size=12), min_size=1, max_size=3).map(".".join)
locals_ascii = dot_atoms
locals_any = st.one_of(dot_atoms, st.sampled_from(['"john doe"', '"a@b"', '"a\\"b"', "jürgen", "用户", "δοκιμή"]))


def addresses(local: st.SearchStrategy[str] = locals_any) -> st.SearchStrategy[Address]:
    from outbox.core.address import single_spaced

    return st.builds(Address, names.map(single_spaced), local, domains)


def address_lists(min_size: int = 0, max_size: int = 5) -> st.SearchStrategy[str]:
    return st.lists(addresses(), min_size=min_size, max_size=max_size).map(lambda found: ", ".join(map(str, found)))


lines = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80),
    st.text(ATEXT + " ", max_size=120),
    st.sampled_from(["", ".", "..", ".x", "From here", " trailing ", "--=_m.7.0123456789abcdef", "z" * 998, "w" * 999]),
)
bodies = st.lists(lines, min_size=1, max_size=12).flatmap(
    lambda some: st.sampled_from(["\n", "\r\n", "\r"]).map(lambda end: end.join(some))
)

filenames = st.one_of(
    st.text(characters, max_size=100),
    st.sampled_from(['a"b\\c.txt', "=?utf-8?q?x=0ABcc:_y?=.txt", "Grüße 日本.pdf", "x" * 255]),
)
content_types = st.sampled_from(
    [
        "application/octet-stream",
        "image/png",
        "text/csv; charset=utf-8",
        'text/calendar; method="REQUEST"; charset=utf-8',
    ]
)
attachments = st.builds(
    Attachment, filenames, st.binary(max_size=300), content_types, st.sampled_from(["", "", "logo", "a.b@shop.example"])
)


def attachment_lists() -> st.SearchStrategy[tuple[Attachment, ...]]:
    unique = st.lists(attachments, max_size=3, unique_by=lambda each: each.content_id or id(each))
    return unique.map(tuple)


header_names = st.sampled_from(
    ["X-Order", "List-Id", "References", "X-Priority", "Precedence", "Auto-Submitted", "X" * 76]
)
headers = st.dictionaries(header_names, st.one_of(header_texts, st.lists(header_texts, max_size=2)), max_size=3)


def messages(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    """Composed messages that must render."""
    parts: dict[str, st.SearchStrategy[Any]] = {
        "id": st.integers(1, 2**63 - 1),
        "token": st.text("0123456789abcdef", min_size=16, max_size=32),
        "created_at": st.integers(86_400, 253_370_764_800).map(lambda second: datetime.fromtimestamp(second, UTC)),
        "sender": st.builds("{}@{}".format, locals_ascii, domains),
        "sender_name": names,
        "recipients": address_lists(),
        "cc": address_lists(max_size=2),
        "bcc": st.just("hidden@example.org"),
        "reply_to": address_lists(max_size=1),
        "subject": header_texts,
        "headers": headers.map(lambda given: json.dumps(given) if given else ""),
        "text_body": st.none() | bodies,
        "html_body": st.none() | bodies,
        "attachments": attachment_lists(),
    }
    built = st.builds(Message, **(parts | fixed))
    return built.filter(lambda message: bool(message.text_body or message.html_body))
