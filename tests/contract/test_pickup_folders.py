"""Pickup folders and their files as the database has them, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import peewee
import pytest

from outbox.core.pickup import Archive, Folder, Mode, Result, Taken
from outbox.errors import InvalidMail, Refused
from outbox.store import pickup
from outbox.store.journal import Act
from tests.contract.stores import add
from tests.statements import rows, run

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN = Act("ann", NOW)
ORDERS = Folder(
    "orders",
    "/var/orders",
    "/var/bad",
    "/var/sent",
    Mode.REPLAY,
    ("shop@example.com", "*@example.org"),
    timedelta(milliseconds=250),
    timedelta(seconds=2),
    12345,
    Archive.ON_INGEST,
)
PLAIN = Folder("plain", "/srv/plain", "/srv/bad")


def taken(claim: str, folder: str = "orders", name: str = "a.eml") -> Taken:
    return Taken(claim=claim, folder=folder, name=name, octets=7, sha256="0" * 64, owner=1000)


def test_a_folder_is_read_as_it_was_added(database: peewee.Database) -> None:
    for each in (PLAIN, ORDERS):
        pickup.add_folder(database, each, ANN)
    assert pickup.folders(database) == [ORDERS, PLAIN]
    assert pickup.folder(database, "plain") == PLAIN
    with pytest.raises(Refused, match="there is no pickup folder gone"):
        pickup.folder(database, "gone")
    told = rows(database, "SELECT who, verb, filter, detail FROM outbox_journal ORDER BY id")
    assert told == [
        ("ann", "pickup add", "pickup=plain", "/srv/plain"),
        ("ann", "pickup add", "pickup=orders", "/var/orders"),
    ]


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (replace(PLAIN, name="orders"), "is there already"),
        (replace(PLAIN, path="/var/orders"), "is there already"),
        (replace(PLAIN, path="/var/bad"), "is where pickup folder orders puts files"),
        (replace(PLAIN, path="/var/sent"), "is where pickup folder orders puts files"),
        (replace(PLAIN, badmail="/var/orders"), "is where pickup folder plain puts files"),
        (replace(PLAIN, sentmail="/var/orders"), "is where pickup folder plain puts files"),
    ],
)
def test_folders_do_not_take_from_each_other(database: peewee.Database, new: Folder, words: str) -> None:
    pickup.add_folder(database, ORDERS, ANN)
    with pytest.raises(Refused, match=words):
        pickup.add_folder(database, new, ANN)
    assert pickup.folders(database) == [ORDERS]


def test_what_the_schema_refuses_of_a_folder_is_told(database: peewee.Database) -> None:
    with pytest.raises(Refused, match="pickup folder orders cannot be added"), database.atomic():
        pickup.add_folder(database, replace(ORDERS, max_bytes=-1), ANN)


def test_a_folder_is_removed_and_its_files_are_counted(database: peewee.Database) -> None:
    for each in (PLAIN, ORDERS):
        pickup.add_folder(database, each, ANN)
    for claim, folder in (("a", "orders"), ("b", "orders"), ("c", "orders"), ("d", "plain")):
        assert pickup.enter(database, taken(claim, folder), NOW)
    assert not pickup.enter(database, taken("a"), NOW)
    pickup.done(database, "a", Result.SENT, "", "/var/sent/a", NOW)
    pickup.done(database, "a", Result.BAD, "again", "", NOW)  # it is done
    pickup.done(database, "d", Result.BAD, "refused", "/srv/bad/d", NOW)
    assert pickup.counts(database) == {"orders": {"sent": 1, "under way": 2}, "plain": {"bad": 1}}
    assert pickup.known(database, ["a", "d", "z"]) == {"a", "d"}
    assert pickup.known(database, [str(number) for number in range(1200)] + ["a"]) == {"a"}
    assert pickup.remove_folder(database, "orders", ANN) == 2
    assert pickup.folders(database) == [PLAIN]
    found = rows(database, "SELECT claim, result, reason, file FROM outbox_pickup_file WHERE done_at IS NOT NULL")
    assert sorted(found) == [("a", "sent", None, "/var/sent/a"), ("d", "bad", "refused", "/srv/bad/d")]
    with pytest.raises(Refused, match="no pickup folder orders"):
        pickup.remove_folder(database, "orders", ANN)


def test_what_has_ended_of_a_folder(database: peewee.Database) -> None:
    ended, waiting = add(database, 2, recipients="ann@example.net")
    run(
        database,
        "UPDATE outbox_delivery SET state = 'cancelled', final_at = ? WHERE message_id = ?",
        "2026-03-01T12:00:00.000Z",
        ended,
    )
    for claim, message_id, folder in (("a", ended, "orders"), ("b", waiting, "orders"), ("c", ended, "plain")):
        pickup.enter(database, taken(claim, folder, f"{claim}.eml"), NOW)
        pickup.assign(database, claim, message_id)
    pickup.condemn(database, taken("x", name="x.eml"), "no address", "/var/bad/x", NOW + timedelta(seconds=1))
    pickup.archived(database, "a", "/var/sent/a")
    first, second = pickup.ended(database, "orders")
    assert (first.claim, first.name, first.message_id, first.state, first.file) == (
        "a",
        "a.eml",
        ended,
        "cancelled",
        "/var/sent/a",
    )
    assert (first.refusal, first.final_at) == ("", NOW)
    assert (second.claim, second.message_id, second.state, second.refusal) == ("x", 0, "", "no address")
    assert (second.file, second.final_at, second.recipients) == ("/var/bad/x", None, ())
    pickup.done(database, "a", Result.BAD, "cancelled", "", NOW)
    assert [each.claim for each in pickup.ended(database, "orders")] == ["x"]


def test_a_mail_that_was_a_file_is_found_to_be_sent_again(database: peewee.Database) -> None:
    raw = b"From: shop@example.com\r\n\r\nx"
    (filed,) = add(database, 1, text_body=None, subject=None, raw=raw, return_path="bounce@example.com")
    (composed,) = add(database)
    found = pickup.message_of(database, filed)
    assert (found["sender"], found["return_path"], found["raw"]) == ("shop@example.com", "bounce@example.com", raw)
    for gone in (composed, 99):
        with pytest.raises(Refused, match=f"message {gone} is not in the database any more"):
            pickup.message_of(database, gone)


def test_what_the_database_refuses_of_a_mail_is_the_files_fault(database: peewee.Database) -> None:
    with pytest.raises(InvalidMail, match="the database refuses it"), pickup.mail_refused():
        run(database, "INSERT INTO outbox (sender, recipients) VALUES (NULL, 'x')")
