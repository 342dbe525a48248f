"""Results that outlive their runner in a file."""

from __future__ import annotations

import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outbox.config import load
from outbox.core.lifecycle import State
from outbox.core.message import Recipient
from outbox.core.outcome import Outcome, Scope, Stage, Verdict
from outbox.core.reply import Reply
from outbox.core.settlement import Claim, Fate, RecipientFate, Result, Settlement, relinquish
from outbox.runner import rescue

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
REPLY = Reply(250, "2.0.0", "queued as 4Xü")
SENT = Settlement(
    7,
    2,
    State.SENT,
    Result.ACCEPTED,
    stage=Stage.DOT,
    reply=REPLY,
    fates=(
        RecipientFate(
            Recipient(0, "ann@example.net", "to"),
            Fate.ACCEPTED,
            REPLY,
            Outcome(Verdict.ACCEPT, Scope.MESSAGE),
            Stage.DOT,
        ),
    ),
    sender="shop@example.com",
    relay="mx[192.0.2.1]:25",
    sha256="0" * 64,
    account="main",
    credential_version=1,
    dot_at=AT,
)


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "rescue"
    given_back = relinquish(Claim(8, 1, "shop@example.com"))
    rescue.save([path], [SENT])
    rescue.save([path], [given_back])
    assert rescue.take([path], "me") == [SENT, given_back]
    rescue.discard([path], "me")
    assert list(tmp_path.iterdir()) == []
    assert rescue.take([path], "me") == []


def test_what_a_runner_was_killed_over_is_loaded_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "rescue"
    rescue.save([path], [SENT])
    assert rescue.take([path], "killed") == [SENT]
    rescue.save([path], [SENT])
    assert rescue.take([path], "me") == [SENT, SENT]
    rescue.discard([path], "me")
    assert list(tmp_path.iterdir()) == []
    rescue.discard([path], "killed")


def test_nothing_to_save_makes_no_file(tmp_path: Path) -> None:
    rescue.save([tmp_path / "rescue"], [])
    assert not (tmp_path / "rescue").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX")
def test_the_file_is_private(tmp_path: Path) -> None:
    rescue.save([tmp_path / "rescue"], [SENT])
    assert stat.S_IMODE((tmp_path / "rescue").stat().st_mode) == 0o600


def test_a_torn_last_line_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "rescue"
    rescue.save([path], [SENT])
    with path.open("a") as file:
        file.write('{"message_id": 9, "cla')
    rescue.save([path], [SENT])
    assert rescue.take([path], "me") == [SENT, SENT]
    assert (tmp_path / "rescue.bad").read_text().startswith('{"message_id": 9')


def test_a_place_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    closed = tmp_path / "closed" / "rescue"
    closed.parent.write_text("a file, and no directory")
    other = tmp_path / "state" / "rescue"
    rescue.save([closed, other], [SENT])
    assert rescue.take([closed, other], "me") == [SENT]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_where_no_place_is_left_the_log_has_the_results(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = tmp_path / "rescue"
    full.symlink_to("/dev/full")
    rescue.save([full], [SENT])
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
    (tmp_path / "by-hand").write_text(line[line.index("{") :] + "\n")
    assert rescue.take([tmp_path / "by-hand"], "me") == [SENT]


def test_what_is_for_another_database_waits_for_it(tmp_path: Path) -> None:
    paths = [tmp_path / "rescue"]
    rescue.save(paths, [SENT], "1f2e-ours")
    assert rescue.take(paths, "me", "7a6b-another") == []
    rescue.discard(paths, "me")
    assert rescue.take(paths, "me", "7a6b-another") == []
    assert rescue.take(paths, "me", "1f2e-ours") == [SENT]
    rescue.discard(paths, "me")
    assert list(tmp_path.iterdir()) == []


def test_the_places_are_beside_the_database_and_where_programs_keep_their_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "a"))
    file = tmp_path / "shop.db"
    found = rescue.places(load(None, database=f"sqlite:///{file}"))
    assert found == (tmp_path / "shop.db.rescue", tmp_path / "a" / "outbox.rescue")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "b"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "b"))
    found = rescue.places(load(None, database="postgresql://db.example.com/shop"))
    assert found == (tmp_path / "b" / "outbox" / "outbox.rescue",)


def test_a_line_of_a_newer_version_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rescue"
    path.write_text('{"message_id": 9, "claim_no": 1, "colour": "green"}\n')
    assert rescue.take([path], "me") == []
    assert "green" in (tmp_path / "rescue.bad").read_text()
