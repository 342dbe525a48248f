"""outbox doctor: every fault it knows is planted, and found with what to do about it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from outbox.cli.checks.database import file_system
from outbox.store import engine
from outbox.store.database import sqlite_path
from tests.cli.installation import found as check_of
from tests.cli.installation import runner, well
from tests.cli.program import CANARY, Program
from tests.running import eventually
from tests.stories import Stories

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file modes")
KNOWN = {"durability"} | ({"journal"} if engine.has_wal_reset_bug() else set())
"""Checks that warn because of this machine's SQLite, and because the tests' PostgreSQL has fsync off."""


@pytest.fixture
def outbox(program: Program) -> Program:
    return well(program)


@pytest.fixture
def stories(outbox: Program) -> Iterator[Stories]:
    with Stories(outbox.url) as opened:
        yield opened


def test_a_good_installation_iswell(outbox: Program, stories: Stories) -> None:
    runner(stories)
    report = outbox.json("doctor")
    assert report["ok"] is True
    assert report["failures"] == 0
    assert {each["check"] for each in report["checks"] if each["result"] == "warn"} <= KNOWN
    expected = {"configuration", "database", "schema", "key", "account", "sender", "runner", "queue"}
    assert expected <= {each["check"] for each in report["checks"]}
    text = outbox.run("doctor").stdout
    assert "ok    runner" in text
    assert text.splitlines()[-1] == ("works, with 1 warning" if report["warnings"] else "all is well")
    assert CANARY not in text


def test_a_sqlite_with_the_wal_reset_bug_is_a_warning_that_says_what_to_do(sqlite_program: Program) -> None:
    """The other half, with a library that has it no more, is in tests/test_sqlite_library.py."""
    found = check_of(well(sqlite_program).json("doctor"), "journal")
    if engine.has_wal_reset_bug():
        assert found["result"] == "warn"
        assert f"{engine.NAME} has the WAL-reset bug" in found["words"]
        assert found["hint"].startswith("pip install 'mail-outbox[sqlite]'")
    else:
        assert (found["result"], found["words"], found["hint"]) == ("ok", "WAL", "")


def test_a_new_installation_is_told_what_comes_next(program: Program) -> None:
    program.init()
    report = program.json("doctor")
    hints = {each["check"]: each["hint"] for each in report["checks"] if each["result"] == "warn"}
    assert hints["account"].startswith("outbox account add")
    assert hints["sender"].startswith("outbox sender add")
    assert hints["runner"] == "outbox run"
    assert "→ outbox run" in program.run("doctor").stdout


def test_a_bad_configuration_is_the_only_thingcheck_of(sqlite_program: Program) -> None:
    (sqlite_program.home / "outbox.toml").write_text('datebase = "x.db"\n', encoding="utf-8")
    (check,) = sqlite_program.json("doctor", code=1)["checks"]
    assert (check["check"], check["result"]) == ("configuration", "fail")
    assert "did you mean database?" in check["hint"]


def test_no_database_at_all_is_a_failure(sqlite_program: Program) -> None:
    *_, check = sqlite_program.json("doctor", code=1)["checks"]
    assert check["check"] == "database"
    assert check["words"].startswith("no database is configured: there is no ./outbox.toml")


def test_a_database_that_cannot_be_reached_is_a_failure(sqlite_program: Program) -> None:
    found = check_of(sqlite_program.json("--database", "sqlite:///nowhere.db", "doctor", code=1), "database")
    assert "there is no database" in found["words"]
    report = sqlite_program.json("--database", "postgresql://olga:geheim@127.0.0.1:1/x", "doctor", code=1)
    assert "geheim" not in str(report)
    assert check_of(report, "database")["result"] == "fail"


def test_missing_tables_are_a_failure(outbox: Program, stories: Stories) -> None:
    stories.sql("DROP VIEW outbox_daily")
    found = check_of(outbox.json("doctor", code=1), "schema")
    assert "view outbox_daily" in found["words"]


def test_a_copy_of_the_database_is_a_failure(outbox: Program, stories: Stories) -> None:
    stories.sql("UPDATE outbox_meta SET value = '00000000-0000-4000-a000-000000000000' WHERE key = 'database_uuid'")
    found = check_of(outbox.json("doctor", code=1), "schema")
    assert (found["result"], "a copy?" in found["words"]) == ("fail", True)


def test_a_missing_key_is_a_failure_once_a_password_needs_it(program: Program) -> None:
    program.init()
    key = program.home / "outbox.key"
    content = key.read_bytes()
    key.unlink()
    assert check_of(program.json("doctor"), "key")["result"] == "warn"
    key.write_bytes(content)
    key.chmod(0o600)
    program.add_account()
    key.unlink()
    assert check_of(program.json("doctor", code=1), "key")["result"] == "fail"


@POSIX
def test_a_key_that_others_can_read_is_a_failure(outbox: Program) -> None:
    (outbox.home / "outbox.key").chmod(0o644)
    found = check_of(outbox.json("doctor", code=1), "key")
    assert found["result"] == "fail"
    assert "chmod" in found["hint"]


def test_a_password_that_does_not_open_is_a_failure_by_its_account(outbox: Program, stories: Stories) -> None:
    stories.sql("UPDATE outbox_account SET relay_host = 'evil.example.com'")
    report = outbox.json("doctor", code=1)
    found = check_of(report, "key")
    assert found["result"] == "fail"
    assert "account shop: the relay host is now 'evil.example.com'" in found["words"]
    assert CANARY not in str(report)


def test_a_key_in_the_directory_of_the_database_is_mentioned(sqlite_program: Program) -> None:
    sqlite_program.run("init", "--database", "sqlite:///outbox.db")
    assert "keep their backups apart" in check_of(sqlite_program.json("doctor"), "key")["words"]
    sqlite_program.run("schema", "apply", "--database", sqlite_program.url)
    report = sqlite_program.json("--database", sqlite_program.url, "doctor", code=1)  # and that is another database
    assert "backups" not in check_of(report, "key")["words"]


def test_what_is_paused_is_a_warning(outbox: Program) -> None:
    outbox.run("account", "pause", "shop", "--reason", "wrong password")
    found = check_of(outbox.json("doctor"), "account")
    assert "wrong password" in found["words"]
    assert found["hint"] == "outbox account resume shop"


def test_a_pause_over_a_password_wants_another_password(outbox: Program, stories: Stories) -> None:
    stories.sql("UPDATE outbox_account SET pause_reason = 'auth: 535 5.7.8 no'")
    found = check_of(outbox.json("doctor"), "account")
    assert (found["result"], found["hint"]) == ("warn", "outbox account set-password shop")


def test_a_relay_that_does_not_answer_is_a_warning(outbox: Program, stories: Stories) -> None:
    stories.sql("UPDATE outbox_account SET breaker_failures = 3, breaker_reason = 'connection refused'")
    found = check_of(outbox.json("doctor"), "relay")
    assert found["words"] == "relay smtp.example.com:587: the last 3 attempts failed: connection refused"
    assert found["hint"] == "outbox account test shop"


def test_a_runner_that_was_killed_is_dead_before_its_lease_is_over(outbox: Program, stories: Stories) -> None:
    runner(stories, lock=False)
    presence = Path(sqlite_path(outbox.url) + ".runner-fedcba9876543210") if "sqlite" in outbox.url else None
    if presence is not None:
        presence.touch()  # as it is left behind, with nobody's lock on it
    else:
        starting = "SELECT clock_timestamp() < pg_postmaster_start_time() + interval '2 s'"
        eventually(
            lambda: not stories.sql(starting)[0][0], "the server is not just starting: a free lock proves something"
        )
    found = check_of(outbox.json("doctor"), "runner")
    assert (found["result"], "is dead: it was killed" in found["words"]) == ("warn", True)


def test_what_a_role_may_not_do_is_a_failure_with_its_role(sqlite_program: Program, postgres_url: str) -> None:
    program = Program(sqlite_program.home, postgres_url).init()
    with Stories(postgres_url) as stories:
        stories.sql("DROP ROLE IF EXISTS newcomer")
        stories.sql("CREATE ROLE newcomer LOGIN PASSWORD 'x'")
        stories.sql("GRANT SELECT ON outbox_meta TO newcomer")
        try:
            url = re.sub(r"://([^@/]*@)?", "://newcomer:x@", postgres_url)
            report = program.json("--database", url, "doctor", code=1)
            said = program.fails(4, "--database", url, "list")
        finally:
            stories.sql("DROP OWNED BY newcomer")
            stories.sql("DROP ROLE newcomer")
    found = [each for each in report["checks"] if "permission denied" in each["words"]]
    assert [each["hint"].partition(";")[0] for each in found] == ["this needs the role outbox_runner"]
    assert "hint: this needs the role outbox_runner; an auditor reads the views" in said


def test_mail_of_an_unregistered_sender_is_a_warning(outbox: Program, stories: Stories) -> None:
    runner(stories)
    stories.mail(sender="root@example.org")
    found = check_of(outbox.json("doctor"), "sender")
    assert found["words"] == "1 message from root@example.org cannot go: not registered"
    assert "outbox sender add root@example.org" in found["hint"]


def test_due_mail_without_a_runner_is_a_failure(outbox: Program, stories: Stories) -> None:
    assert check_of(outbox.json("doctor"), "runner")["result"] == "warn"
    stories.mail()
    found = check_of(outbox.json("doctor", code=1), "runner")
    assert (found["words"], found["hint"]) == ("no runner is running, and 1 due", "outbox run")


def test_a_runner_that_does_not_renew_its_lease_is_a_warning(outbox: Program, stories: Stories) -> None:
    runner(stories)
    runner(stories, "0123456789", lease=timedelta(minutes=-5, seconds=-30))
    told = [each["words"] for each in outbox.json("doctor")["checks"] if each["check"] == "runner"]
    late = "01234567 on web1, pid 7, version 0.1.0 has not renewed its lease for 5m"
    assert [each.startswith(late) for each in told].count(True) == 1


def test_what_stands_still_is_a_warning(outbox: Program, stories: Stories) -> None:
    runner(stories)
    stories.claim(stories.mail())
    stories.attempt(stories.mail(on_doubt="hold"), None)
    stories.mail(due_at=(datetime.now(UTC) + timedelta(days=40)).isoformat())
    words = [each["words"] for each in outbox.json("doctor")["checks"] if each["check"] == "queue"]
    assert words == [
        "1 message should be moving and is not: 1",
        "1 message held in doubt: only a person can say what became of them",
        "1 message due in more than 30 days: meant to be?",
        "0 due; 1 held",
    ]


@POSIX
def test_mail_that_every_user_can_read_is_a_warning(sqlite_program: Program) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "shop.db"
        program = Program(sqlite_program.home, f"sqlite:///{path}").init()
        path.chmod(0o644)
        assert check_of(program.json("doctor"), "files")["result"] == "ok"  # nobody else may enter its directory
        Path(folder).chmod(0o755)
        found = check_of(program.json("doctor"), "files")
        assert (found["result"], "chmod o-rw" in found["hint"]) == ("warn", True)
        path.chmod(0o640)
        assert check_of(program.json("doctor"), "files")["result"] == "ok"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/srv/app/outbox.db", "nfs4"), ("/srv/apparatus/outbox.db", "ext4"), ("/srv/with space/o.db", "cifs")],
)
def test_a_network_file_system_is_known_by_its_mount(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mounts"
    lines = "/dev/sda1 / ext4 rw 0 0", "nas:/x /srv/app nfs4 rw 0 0", "//nas/y /srv/with\\040space cifs rw 0 0"
    mounts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert file_system(Path(path), mounts) == kind


def test_a_machine_without_mounts_has_no_known_file_system(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "nowhere") == ""


def test_a_server_that_forgets_commits_is_a_warning(sqlite_program: Program, postgres_url: str) -> None:
    with Stories(postgres_url) as stories:
        ((name,),) = stories.sql("SELECT current_database()")
        stories.sql(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    found = check_of(well(Program(sqlite_program.home, postgres_url)).json("doctor"), "durability")
    assert found["result"] == "warn"
    assert "synchronous_commit = off: a crash of the server can lose mail" in found["words"]
