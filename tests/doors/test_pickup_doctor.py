"""outbox doctor: what it knows of pickup folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import sqlite_program as sqlite_program
from tests.cli.installation import checks, well, words_of
from tests.cli.program import Program


def test_what_is_wrong_with_a_folder_is_said(sqlite_program: Program) -> None:
    outbox = well(sqlite_program)
    drop, bad = outbox.home / "in", outbox.home / "badmail"
    outbox.run("pickup", "add", "in", str(drop))
    assert words_of(outbox.json("doctor"), "pickup", "ok") == [f"in: {drop}"]

    old = drop / "old.eml"
    old.write_bytes(b"From: shop@example.com\n\n")
    os.utime(old, (1_700_000_000,) * 2)
    (drop / "new.eml").write_bytes(b"x")
    (bad / "a.eml.bad.json").write_text("{}", encoding="utf-8")
    if os.name != "nt":
        drop.chmod(0o777)
    report = outbox.json("doctor")
    words = " | ".join(words_of(report, "pickup", "warn"))
    assert "in: 1 file not taken, the oldest for" in words
    assert "1 file in" in words
    assert os.name == "nt" or "every user of this machine may write into it" in words
    assert checks(report, "pickup", "ok") == []


def test_a_badmail_that_is_not_there_is_a_failure(sqlite_program: Program) -> None:
    outbox = well(sqlite_program)
    outbox.run("pickup", "add", "in", str(outbox.home / "in"))
    Path(outbox.home / "badmail").rmdir()
    (check,) = checks(outbox.json("doctor", code=1), "pickup", "fail")
    assert check["words"].endswith("badmail is not there, or no folder")


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
def test_the_drop_box_of_the_sendmail_command_is_meant_to_be_one(sqlite_program: Program) -> None:
    """As docs/sendmail.md makes it. Where others can look into it, too, or it is no spool, it is said."""
    outbox = well(sqlite_program)
    spool = outbox.home / "spool"
    outbox.run("pickup", "add", "spool", str(spool))
    spool.chmod(0o2733)
    assert "may write into it" in words_of(outbox.json("doctor"), "pickup", "warn")[0]

    file = outbox.home / "outbox.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('# spool = ""', f'spool = "{spool}"'), encoding="utf-8")
    assert words_of(outbox.json("doctor"), "pickup", "ok") == [f"spool: {spool}"]
    spool.chmod(0o2777)
    assert "may write into it" in words_of(outbox.json("doctor"), "pickup", "warn")[0]
