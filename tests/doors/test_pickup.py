"""A pickup folder on real directories and both databases: what is taken, once, and where it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import peewee
import pytest

from outbox.core.pickup import Archive, Folder, Mode, shown
from outbox.doors.pickup.again import resubmit
from outbox.doors.pickup.intake import Intake, Tally
from outbox.doors.pickup.ledger import Ledger, Verb
from outbox.errors import Refused
from outbox.store import pickup
from tests.clock import FakeClock

MAIL = b"From: Shop <shop@example.com>\r\nTo: ann@example.net, bo@example.net\r\nSubject: Order 7\r\n\r\nThanks\r\n"


def rows(db: peewee.Database, sql: str) -> list[Any]:
    return list(db.execute_sql(sql).fetchall())


class Direct:
    """A connection of our own."""

    def __init__(self, db: peewee.Database, clock: FakeClock) -> None:
        self.db, self.clock = db, clock

    def write(self, verb: Verb[Any]) -> Any:
        with self.db.atomic():
            return verb(self.db, self.clock.now())

    def read(self, verb: Callable[[peewee.Database], Any]) -> Any:
        return verb(self.db)


class Place:
    """A pickup folder with its badmail and sentmail, and a scanner of it."""

    def __init__(self, db: peewee.Database, root: Path) -> None:
        self.db, self.clock = db, FakeClock()
        self.drop, self.bad, self.sent = root / "drop", root / "bad", root / "sent"
        for each in (self.drop, self.bad, self.sent):
            each.mkdir()
        folder = Folder("in", str(self.drop), str(self.bad), str(self.sent), settle=timedelta(0))
        self.ledger = Ledger(Direct(db, self.clock))
        self.intake = Intake(folder, self.ledger, self.clock)

    def change(self, **fields: Any) -> None:
        self.intake.folder = replace(self.intake.folder, **fields)

    def put(self, name: str = "order.eml", content: bytes = MAIL) -> Path:
        path = self.drop / name
        path.write_bytes(content)
        return path

    def scan(self) -> Tally:
        return self.intake.scan()

    def end(self, state: str, *fates: str) -> None:
        """The newest mail has come to its end, so for each of its recipients."""
        mark = self.db.param
        (message_id,) = rows(self.db, "SELECT max(id) FROM outbox")[0]
        run: Callable[..., Any] = self.db.execute_sql
        for place, fate in enumerate(fates):
            values = (message_id, place, 1, f"r{place}@example.net", "to", fate, 550 if fate == "bounced" else 250)
            run(
                "INSERT INTO outbox_recipient (message_id, position, claim_no, address, kind, fate, code)"
                f" VALUES ({', '.join([mark] * 7)})",
                values,
            )
        run(
            f"UPDATE outbox_delivery SET state = {mark}, final_at = due_at, last_code = 550 WHERE message_id = {mark}",
            (state, message_id),
        )

    def mails(self) -> int:
        return int(rows(self.db, "SELECT count(*) FROM outbox")[0][0])

    def work(self) -> list[str]:
        return sorted(each.name for each in (self.drop / ".work").iterdir() if each.name != ".lock")

    def reason(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bad / name).read_bytes())
        return found


@pytest.fixture
def place(database: peewee.Database, tmp_path: Path) -> Place:
    return Place(database, tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))


def test_a_file_becomes_a_row_and_waits_for_its_end(place: Place) -> None:
    place.put()
    assert place.scan() == Tally(taken=1)
    assert rows(place.db, "SELECT source, sender FROM outbox") == [("pickup", "shop@example.com")]
    assert names(place.drop) == []
    assert len(place.work()) == 1
    assert place.scan() == Tally()


def test_what_was_sent_goes_to_sentmail_as_it_came(place: Place) -> None:
    place.put()
    place.scan()
    place.end("sent", "accepted", "accepted")
    assert place.scan() == Tally(archived=1)
    (name,) = names(place.sent)
    assert name.endswith("-order.eml.sent")
    assert (place.sent / name).read_bytes() == MAIL
    assert place.work() == []
    assert rows(place.db, "SELECT result FROM outbox_pickup_file") == [("sent",)]


def test_without_sentmail_it_is_deleted(place: Place) -> None:
    place.change(sentmail="")
    place.put()
    place.scan()
    place.end("sent", "accepted")
    place.scan()
    assert place.work() == []


def test_what_failed_goes_to_badmail_with_its_reason(place: Place) -> None:
    place.put()
    place.scan()
    place.end("failed", "bounced", "bounced")
    place.scan()
    assert names(place.bad) == ["order.eml.bad", "order.eml.bad.json"]
    assert (place.bad / "order.eml.bad").read_bytes() == MAIL
    reason = place.reason("order.eml.bad.json")
    assert reason["stage"] == "delivery"
    assert reason["state"] == "failed"
    assert [each["address"] for each in reason["failed"]] == ["r0@example.net", "r1@example.net"]


def test_what_reached_some_is_sent_and_says_whom_not(place: Place) -> None:
    place.put()
    place.scan()
    place.end("failed", "accepted", "bounced")
    place.scan()
    assert len(names(place.sent)) == 1
    assert names(place.bad) == ["order.eml.bad.json"]
    assert [each["address"] for each in place.reason("order.eml.bad.json")["failed"]] == ["r1@example.net"]


def test_nothing_is_ever_overwritten(place: Place) -> None:
    (place.bad / "order.eml.bad").write_bytes(b"an older one")
    for _ in range(3):
        place.put(content=b"rubbish\n\nrubbish")
        place.scan()
    assert (place.bad / "order.eml.bad").read_bytes() == b"an older one"
    assert len([each for each in names(place.bad) if not each.endswith(".json")]) == 4


@pytest.mark.parametrize(
    ("content", "stage", "words"),
    [
        (b"rubbish\n\nbody", "parse", "not a header field"),
        (b"From: shop@example.com\nSubject: x\n\nbody", "parse", "recipient"),
        (b"From: a@example.com, b@example.com\nTo: c@example.net\n\nbody", "parse", "say which one"),
        (b"From: shop@example.com\nTo: ann@example.net\nX-Big: " + b"x" * 70_000 + b"\n\nbody", "policy", "header"),
        (b"From: ceo@example.com\nX-Sender: shop@example.com\nTo: c@example.net\n\nbody", "policy", "may not send"),
    ],
)
def test_what_is_no_mail_is_bad_at_once(place: Place, content: bytes, stage: str, words: str) -> None:
    place.change(senders=("shop@example.com",))
    place.put(content=content)
    assert place.scan() == Tally(refused=1)
    reason = place.reason("order.eml.bad.json")
    assert reason["stage"] == stage
    assert words in reason["what_happened"]
    assert place.mails() == 0
    assert rows(place.db, "SELECT result, message_id FROM outbox_pickup_file") == [("bad", None)]


def test_links_pipes_and_second_names_are_not_read(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret.eml"
    secret.write_bytes(MAIL)
    (place.drop / "link.eml").symlink_to(secret)
    os.mkfifo(place.drop / "pipe.eml")
    os.link(secret, place.drop / "second.eml")
    (place.drop / "folder.eml").mkdir()
    assert place.scan() == Tally(refused=3)
    assert place.mails() == 0
    assert names(place.drop) == ["folder.eml"]
    assert secret.read_bytes() == MAIL


def test_a_file_that_is_too_large_is_bad(place: Place) -> None:
    place.change(max_bytes=50)
    place.put()
    assert place.scan() == Tally(refused=1)
    assert "larger than 50" in place.reason("order.eml.bad.json")["what_happened"]


def test_a_slow_writer_is_waited_for(place: Place) -> None:
    place.change(settle=timedelta(seconds=2))
    path = place.put(content=MAIL[:40])
    assert place.scan() == Tally()
    place.clock.advance(timedelta(seconds=1.5))
    with path.open("ab") as writer:
        writer.write(MAIL[40:])
    assert place.scan() == Tally()
    place.clock.advance(timedelta(seconds=1.5))
    assert place.scan() == Tally()
    place.clock.advance(timedelta(seconds=1))
    assert place.scan() == Tally(taken=1)


def test_a_header_without_its_end_is_left_for_a_minute(place: Place) -> None:
    path = place.put(content=b"From: shop@example.com\nTo: ann@example.net\n")
    os.utime(path, (place.clock.now().timestamp(),) * 2)
    assert place.scan() == Tally()
    assert names(place.drop) == ["order.eml"]
    place.clock.advance(timedelta(seconds=61))
    assert place.scan() == Tally(refused=1)


def test_empty_and_unfinished_files_stay(place: Place) -> None:
    place.put("empty.eml", b"")
    place.put("order.eml.tmp")
    place.put("notes.txt")
    assert place.scan() == Tally()
    assert names(place.drop) == ["empty.eml", "notes.txt", "order.eml.tmp"]


@pytest.mark.parametrize("name", ["a\nb.eml", "-rf.eml", "ü.eml", os.fsdecode(b"\xff.eml"), "'; DROP TABLE.eml"])
def test_odd_names_are_names(place: Place, name: str) -> None:
    place.put(name)
    assert place.scan() == Tally(taken=1)
    place.end("sent", "accepted")
    place.scan()
    assert names(place.sent)[0].endswith(f"-{shown(name)}.sent")


def test_what_a_crash_left_is_read_again_once(place: Place) -> None:
    """Its reader died after the rename: the claim in its name is still its own."""
    place.scan()
    (place.drop / ".work" / f"{'c' * 32}.1__order.eml").write_bytes(MAIL)
    assert place.scan() == Tally(taken=1)
    assert place.work() == [f"{'c' * 32}.2__order.eml"]
    assert place.scan() == Tally()
    assert place.mails() == 1


def test_a_file_that_ends_its_readers_is_not_read_for_ever(place: Place) -> None:
    place.scan()
    (place.drop / ".work" / f"{'c' * 32}.3__order.eml").write_bytes(MAIL)
    assert place.scan() == Tally(refused=1)
    assert place.mails() == 0
    assert "3 times" in place.reason("order.eml.bad.json")["what_happened"]


def test_one_scanner_at_a_time(place: Place) -> None:
    place.put()
    other = Intake(place.intake.folder, place.ledger, place.clock)

    class Meanwhile(Ledger):
        def ended(self, folder: str) -> Any:
            assert other.scan() == Tally()
            return super().ended(folder)

    place.intake = Intake(place.intake.folder, Meanwhile(Direct(place.db, place.clock)), place.clock)
    assert place.scan() == Tally(taken=1)


def test_archived_at_once(place: Place) -> None:
    place.change(archive=Archive.ON_INGEST)
    place.put()
    place.scan()
    assert len(names(place.sent)) == 1
    place.end("failed", "bounced")
    place.scan()
    assert names(place.bad) == ["order.eml.bad.json"]


def test_mail_queue_dispatchers_files_may_have_any_name(place: Place) -> None:
    place.change(mode=Mode.MQD)
    place.put("0001.msg")
    assert place.scan() == Tally(taken=1)


# -- once more


def stored(place: Place) -> Callable[[int], dict[str, Any]]:
    return lambda message_id: pickup.message_of(place.db, message_id)


def recipients(place: Place) -> str:
    return str(rows(place.db, "SELECT recipients FROM outbox ORDER BY id DESC LIMIT 1")[0][0])


def test_only_those_who_failed_get_it_again(place: Place) -> None:
    place.put()
    place.scan()
    place.end("failed", "accepted", "bounced")
    place.scan()
    told = place.bad / "order.eml.bad.json"
    assert resubmit(place.intake.folder, place.ledger, told, stored(place), place.clock, only_failed=True) == 1
    assert recipients(place) == "r1@example.net"
    assert names(place.bad) == []
    place.end("sent", "accepted")
    assert place.scan() == Tally(archived=1)


def test_a_bad_file_goes_again_to_everybody_and_ends_in_sentmail(place: Place) -> None:
    place.put()
    place.scan()
    place.end("failed", "bounced")
    place.scan()
    resubmit(
        place.intake.folder, place.ledger, place.bad / "order.eml.bad", stored(place), place.clock, only_failed=False
    )
    assert recipients(place) == "ann@example.net, bo@example.net"
    place.end("sent", "accepted")
    place.scan()
    assert len(names(place.sent)) == 1
    assert names(place.bad) == []


def test_it_is_not_entered_twice(place: Place) -> None:
    place.put()
    place.scan()
    place.end("failed", "bounced")
    place.scan()
    told = place.bad / "order.eml.bad.json"
    saved = told.read_bytes()
    resubmit(place.intake.folder, place.ledger, told, stored(place), place.clock, only_failed=True)
    told.write_bytes(saved)
    with pytest.raises(Refused, match="already"):
        resubmit(place.intake.folder, place.ledger, told, stored(place), place.clock, only_failed=True)
    assert place.mails() == 2
