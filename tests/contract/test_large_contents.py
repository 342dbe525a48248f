"""A large content is measured before it is read; in a batch, only small ones are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import peewee
import pytest

from outbox.core.message import Message
from outbox.core.settlement import Fate
from outbox.store import LARGE, Content, Store
from tests.contract.stores import NOW, add, claim, deferred, settle
from tests.statements import run

BIG = "x" * (LARGE - 1) + "ä"  # one octet more than characters
KINDS: dict[str, dict[str, Any]] = {
    "text": {"text_body": BIG},
    "html": {"html_body": BIG},
    "raw": {"text_body": None, "raw": b"From: shop@example.com\r\n\r\n" + b"x" * LARGE},
}


def all_of(store: Store) -> dict[int, Content | int]:
    return {each.message_id: found for each, found in store.contents(claim(store))}


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_large_body_a_batch_has_its_octets(store: Store, database: peewee.Database, kind: str) -> None:
    small, large, last = add(database, 1)[0], add(database, 1, **KINDS[kind])[0], add(database, 1)[0]
    claimed = claim(store)
    found = {each.message_id: content for each, content in store.contents(claimed)}
    octets = found[large]
    assert isinstance(octets, int)
    assert LARGE < octets < LARGE + 100
    assert isinstance(found[small], Content)
    assert isinstance(found[last], Content)
    (claim_of_large,) = [each for each in claimed if each.message_id == large]
    assert isinstance(store.content(claim_of_large).message, Message)


def test_files_count_and_small_ones_are_read(store: Store, database: peewee.Database) -> None:
    with_large, with_small = add(database, 2)
    add_file = "INSERT INTO outbox_attachment (message_id, position, filename, content) VALUES (?, ?, 'a', ?)"
    for position in (1, 2):
        run(database, add_file, with_large, position, b"x" * LARGE)
    run(database, add_file, with_small, 1, b"x")
    found = all_of(store)
    octets, small = found[with_large], found[with_small]
    assert isinstance(octets, int)
    assert 2 * LARGE < octets < 2 * LARGE + 1000
    assert isinstance(small, Content)
    assert isinstance(small.message, Message)
    assert [each.content for each in small.message.attachments] == [b"x"]


def test_a_large_one_that_was_tried_before_is_measured_too(store: Store, database: peewee.Database) -> None:
    add(database, 1, text_body=BIG)
    (claimed,) = claim(store)
    settle(store, replace(deferred(claimed), due_at=NOW))
    assert [type(each) for each in all_of(store).values()] == [int]


@pytest.mark.parametrize("kind", ["text_body", "html_body", "raw"])
def test_what_has_64_kib_is_large_and_what_has_less_is_not(store: Store, database: peewee.Database, kind: str) -> None:
    """And it is measured to the octet, with its other bodies and its files."""
    exact: dict[int, int | None] = {}
    for octets in (LARGE - 1, LARGE, LARGE + 1):
        text = "x" * octets
        columns: dict[str, Any] = {"text_body": None, kind: text.encode() if kind == "raw" else text}
        exact[add(database, 1, **columns)[0]] = octets if octets >= LARGE else None
    (filed,) = add(database, 1, text_body="t" * 7, html_body="h" * 11)
    add_file = "INSERT INTO outbox_attachment (message_id, position, filename, content) VALUES (?, 0, 'a', ?)"
    run(database, add_file, filed, b"x" * LARGE)
    exact[filed] = LARGE + 18
    assert {each: size if isinstance(size, int) else None for each, size in all_of(store).items()} == exact
    assert LARGE == 65536


def test_of_a_batch_each_has_its_own_fates_however_many(store: Store, database: peewee.Database) -> None:
    ids = add(database, 3, recipients="ann@example.net, bob@example.net")
    for each in claim(store):
        settle(store, replace(deferred(each), due_at=NOW))
    found = all_of(store)
    assert {each: content.fates for each, content in found.items() if isinstance(content, Content)} == {
        each: {0: Fate.DEFERRED} for each in ids
    }
