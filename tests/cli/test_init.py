"""``outbox init``."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from outbox import keys
from outbox.config import load
from outbox.store.database import connect
from outbox.store.migrate import status
from tests.cli.program import Program

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


def mode(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_it_makes_configuration_and_key_and_says_what_to_do_next(program: Program) -> None:
    result = program.run("init", "--database", program.url)
    config = load()
    assert config.database == program.url
    assert config.key_file == Path("outbox.key").absolute()
    db = connect(program.url)
    assert config.database_uuid == status(db).database_uuid
    db.close()
    assert len(keys.load(config.key_file).ids) == 1
    assert "outbox account add" in result.stderr
    assert program.run("account", "list").stderr.startswith("there are no accounts")


@posix
def test_nothing_it_makes_is_for_other_users(sqlite_program: Program) -> None:
    before = os.umask(0)
    try:
        sqlite_program.run("init", "--database", "sqlite:///new.db")
    finally:
        os.umask(before)
    assert (mode("outbox.toml"), mode("outbox.key")) == (0o600, 0o600)
    assert mode("new.db") & 0o007 == 0


def test_run_again_it_changes_nothing(program: Program) -> None:
    program.init()
    before = {name: content for name, content in program.files().items() if name.startswith("outbox.")}
    result = program.run("init")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["kept", "kept", "kept"]
    assert {name: content for name, content in program.files().items() if name.startswith("outbox.")} == before


def test_what_is_missing_is_made(sqlite_program: Program) -> None:
    program = sqlite_program
    program.init()
    Path("outbox.key").unlink()
    program.run("init")
    assert len(keys.load(Path("outbox.key").absolute()).ids) == 1


def test_a_new_key_is_not_made_where_passwords_are_sealed_with_another(program: Program) -> None:
    program.init().add_account()
    (key_id,) = keys.load(Path("outbox.key").absolute()).ids
    Path("outbox.key").unlink()
    said = program.fails_after_output(1, "init")
    assert f"passwords sealed with key {key_id}" in said
    assert not Path("outbox.key").exists()


def test_it_does_not_change_the_database_of_an_existing_configuration(sqlite_program: Program) -> None:
    sqlite_program.init()
    assert "names another database" in sqlite_program.fails(1, "init", "--database", "sqlite:///other.db")
    assert not Path("other.db").exists()


def test_it_notices_a_configuration_that_is_for_another_copy_of_the_database(sqlite_program: Program) -> None:
    sqlite_program.init()
    text = Path("outbox.toml").read_text(encoding="utf-8")
    uuid = load().database_uuid
    Path("outbox.toml").write_text(text.replace(uuid, "00000000-0000-4000-a000-000000000000"), encoding="utf-8")
    assert "a copy?" in sqlite_program.fails(3, "init")


def test_one_file_is_one_database_however_it_is_written(sqlite_program: Program) -> None:
    sqlite_program.run("init", "--database", "new.db")
    assert "kept  the tables in new.db" in sqlite_program.run("init", "--database", "sqlite:///new.db").stdout


def test_a_variable_left_from_elsewhere_is_noticed(sqlite_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_DATABASE", sqlite_program.url)
    said = sqlite_program.run("init", "--database", "here.db").stderr
    assert "warning: OUTBOX_DATABASE is set, to " in said
    assert "and overrides outbox.toml\nhint: unset OUTBOX_DATABASE" in said
    monkeypatch.setenv("OUTBOX_DATABASE", "gone/shop.db")
    said = sqlite_program.run("init", code=4).stderr
    assert "warning: OUTBOX_DATABASE is set, and overrides outbox.toml" in said
    assert "(from the environment variable OUTBOX_DATABASE)" in said
    assert "mkdir" not in said


def test_it_names_the_next_steps_that_are_left(sqlite_program: Program) -> None:
    sqlite_program.init().add_account()
    said = sqlite_program.run("init").stderr
    assert said == "next: outbox sender add ADDRESS --account shop\n      outbox run\n"


def test_without_a_terminal_it_needs_a_database_or_yes(sqlite_program: Program) -> None:
    assert "which database?" in sqlite_program.fails(2, "init")
    sqlite_program.run("init", "--yes")
    assert Path("outbox.db").exists()
    assert 'database = "sqlite:///outbox.db"' in Path("outbox.toml").read_text(encoding="utf-8")


def test_a_configuration_elsewhere_has_paths_that_work_from_everywhere(
    sqlite_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "etc" / "outbox.toml"
    sqlite_program.run("--config", str(other), "init", "--database", "sqlite:///here.db")
    assert Path("here.db").exists()
    assert other.with_name("outbox.key").exists()
    monkeypatch.chdir(tmp_path)
    sqlite_program.run("--config", str(other), "account", "list")


def test_keys_from_elsewhere_are_used_and_no_file_is_made(
    sqlite_program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_KEYS", keys.new().text)
    assert "kept  the key in OUTBOX_KEYS" in sqlite_program.run("init", "--database", sqlite_program.url).stdout
    assert not Path("outbox.key").exists()
    assert "OUTBOX_KEYS" not in os.environ
    Path("outbox.toml").unlink()
    monkeypatch.setenv("OUTBOX_KEY_FILE", str(tmp_path / "my.key"))
    sqlite_program.run("init", "--database", sqlite_program.url)
    assert (tmp_path / "my.key").exists()
    assert not Path("outbox.key").exists()


@posix
def test_a_key_file_that_others_can_read_is_not_taken(sqlite_program: Program) -> None:
    sqlite_program.init()
    Path("outbox.key").chmod(0o644)
    assert "is open to other users" in sqlite_program.fails_after_output(5, "init")


def test_a_database_that_cannot_be_reached_leaves_nothing_behind(sqlite_program: Program) -> None:
    said = sqlite_program.fails(4, "init", "--database", "postgresql://nobody:canary@127.0.0.1:1/none")
    assert "canary" not in said
    assert not any(Path(name).exists() for name in ("outbox.toml", "outbox.key"))
    assert "not supported" in sqlite_program.fails(4, "init", "--database", "mysql://h/d")
