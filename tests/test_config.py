"""The configuration: where a value comes from, and what is said about a wrong one."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from outbox.config import anchor_url, find_file, load, shown, write_config
from outbox.config.settings import Config, fields
from outbox.core.settlement import Policy
from outbox.errors import ConfigError

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty directory, and no OUTBOX_ variable of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.upper().startswith("OUTBOX_"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "outbox.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def wrong(text: str, write: Write) -> tuple[str, str]:
    """What is said about a file, and the hint, with the path cut out."""
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(f"{path}: ", ""), caught.value.hint


def test_without_a_file_everything_is_default() -> None:
    config = load()
    assert (config.database, config.key_file, config.file) == ("", None, None)
    assert config.retry.floor == timedelta(minutes=1)
    assert config.run.byte_budget == 64 * 2**20
    assert config.retry.policy() == Policy()
    assert config.origin("retry.floor") == "default"


def test_the_file_is_read_with_units(write: Write) -> None:
    write('database = "postgresql://h/d"\n[retry]\nfloor = "250ms"\nmax_doubts = 0\n[run]\nbyte_budget = "2 GiB"\n')
    config = load()
    assert config.database == "postgresql://h/d"
    assert (config.retry.floor, config.retry.max_doubts) == (timedelta(milliseconds=250), 0)
    assert config.run.byte_budget == 2**31
    assert config.origin("retry.floor") == "outbox.toml"
    assert config.origin("run.grace") == "default"


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write('database = "postgresql://file/d"\nhelo = "file.example"\n[retry]\nfloor = "1s"\nceiling = "1h"\n')
    monkeypatch.setenv("OUTBOX_DATABASE", "postgresql://environment/d")
    monkeypatch.setenv("OUTBOX_RETRY_FLOOR", "2s")
    monkeypatch.setenv("OUTBOX_RUN_RECIPIENTS_PER_TRANSACTION", "7")
    config = load(path)
    assert config.database == "postgresql://environment/d"
    assert (config.retry.floor, config.retry.ceiling) == (timedelta(seconds=2), timedelta(hours=1))
    assert config.run.recipients_per_transaction == 7
    assert config.helo == "file.example"
    assert config.origin("database") == "environment OUTBOX_DATABASE"
    assert config.origin("retry.floor") == "environment OUTBOX_RETRY_FLOOR"
    assert config.origin("retry.ceiling") == str(path)
    assert load(path, database="postgresql://option/d").database == "postgresql://option/d"
    assert load(path, database="postgresql://option/d").origin("database") == "command line"


def test_an_empty_variable_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RETRY_FLOOR", "")
    assert load().retry.floor == timedelta(minutes=1)


def test_other_variables_of_ours_are_not_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_KEYS", "a-key")
    monkeypatch.setenv("OUTBOX_TEST_POSTGRES", "postgresql://h/d")
    assert "a-key" not in repr(load())


def test_relative_paths_in_a_file_mean_its_own_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write('database = "sqlite:///data/mail.db"\nkey_file = "keys/outbox.key"\n')
    home = path.parent
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = load(path)
    assert config.database == anchor_url("sqlite:///data/mail.db", home)
    assert config.key_file == home / "keys" / "outbox.key"
    monkeypatch.setenv("OUTBOX_KEY_FILE", "here.key")
    assert load(path).key_file == elsewhere / "here.key"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX paths")
@pytest.mark.parametrize(
    ("url", "anchored"),
    [
        ("sqlite:///mail.db", "sqlite:////srv/my%20app/mail.db"),
        ("sqlite+pysqlite:///a/b.db", "sqlite+pysqlite:////srv/my%20app/a/b.db"),
        ("sqlite:////abs/mail.db", "sqlite:////abs/mail.db"),
        ("mail.db", "/srv/my app/mail.db"),
        ("/abs/mail.sqlite3", "/abs/mail.sqlite3"),
        ("postgresql:///mail", "postgresql:///mail"),
        ("postgresql://u:p@h/mail.db", "postgresql://u:p@h/mail.db"),
        ("nonsense", "nonsense"),
    ],
)
def test_only_the_path_of_a_sqlite_file_is_anchored(url: str, anchored: str) -> None:
    assert anchor_url(url, Path("/srv/my app")) == anchored


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        ('databse = "x"', "there is no setting databse", "did you mean database?"),
        ('[retry]\nflor = "1m"', "there is no setting flor in [retry]", "did you mean floor in [retry]?"),
        ('floor = "1m"', "there is no setting floor", "did you mean floor in [retry]?"),
        ('[run]\nfloor = "1m"', "there is no setting floor in [run]", "did you mean floor in [retry]?"),
        ('[delivery]\nmode = "live"', "there is no setting mode in [delivery]", "did you mean mode in [deliver]?"),
        ('retry = "1m"', "retry is a section, not a value", "write [retry] above its keys"),
        ('_env_file = "x"', "there is no setting _env_file", "did you mean key_file?"),
    ],
)
def test_an_unknown_key_is_an_error_that_guesses_what_was_meant(
    text: str, complaint: str, hint: str, write: Write
) -> None:
    assert wrong(text, write) == (complaint, hint)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[retry]\nfloor = 60", 'retry.floor: 60 has no unit; write a duration such as "30s", "15m" or "2d"'),
        ('[retry]\nfloor = "0s"', "retry.floor: must be at least 1ms"),
        ('[retry]\nmax_age = "91d"', "retry.max_age: must be at most 90d"),
        ('[retry]\nfloor = "5h"', "retry: ceiling is shorter than floor"),
        (
            '[run]\nlease = "20s"',
            "run: renew is more than half of lease: one late renewal would cost the runner its lease",
        ),
        ("[run]\nrecipients_per_transaction = 0", "run.recipients_per_transaction: must be at least 1"),
        (
            '[run]\nbyte_budget = "lots"',
            'run.byte_budget: \'lots\' is not a size; write one such as "512 KiB" or "64 MiB"',
        ),
        ("database = 5", "database: Input should be a valid string"),
        ('database_uuid = "x"', "database_uuid: badly formed hexadecimal UUID string"),
        (
            'helo = "not a name"',
            "helo: 'not a name' is not a domain name: 'not a name' may only have letters, digits and",
        ),
        ('[retry]\nfloor = "1x"\nmax_doubts = 101', "; "),
    ],
)
def test_a_wrong_value_is_named_with_file_key_and_bounds(text: str, complaint: str, write: Write) -> None:
    assert complaint in wrong(text, write)[0]


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RETRY_FLOOR", "soon")
    with pytest.raises(ConfigError, match=r"^OUTBOX_RETRY_FLOOR: 'soon' is not a duration"):
        load()
    monkeypatch.delenv("OUTBOX_RETRY_FLOOR")
    monkeypatch.setenv("OUTBOX_RETRY_FLOOOR", "1m")
    with pytest.raises(ConfigError, match="OUTBOX_RETRY_FLOOOR") as caught:
        load()
    assert caught.value.hint == "did you mean OUTBOX_RETRY_FLOOR?"


def test_a_section_that_is_not_a_table_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RETRY", "soon")
    with pytest.raises(ConfigError, match="retry"):
        load()


def test_what_cannot_be_read_is_a_config_error_that_names_the_file(tmp_path: Path, write: Write) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file") as caught:
        load(tmp_path / "none.toml")
    assert caught.value.exit_code == 3
    with pytest.raises(ConfigError, match="cannot read"):
        load(tmp_path)
    assert "line 1, column" in wrong("floor = 1m", write)[0]
    path = write("")
    path.write_bytes(b'database = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(path)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_file_that_everybody_may_change_is_refused(write: Write) -> None:
    path = write("")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="can be changed by every user") as caught:
        load(path)
    assert caught.value.hint == f"chmod o-w {path}"


def test_the_named_file_must_exist_and_the_others_are_looked_for(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_file() is None or find_file() != Path("outbox.toml")
    here = write("")
    assert find_file() == Path("outbox.toml")
    other = tmp_path / "other.toml"
    monkeypatch.setenv("OUTBOX_CONFIG", str(other))
    with pytest.raises(ConfigError, match=r"other\.toml"):
        find_file()
    other.write_text("", encoding="utf-8")
    assert find_file() == other
    assert find_file(here) == here


def test_it_is_frozen_and_its_repr_has_no_password() -> None:
    config = load(database="postgresql://u:canary@h/d")
    with pytest.raises(ValidationError):
        config.helo = "other.example"
    with pytest.raises(ValidationError):
        config.retry.max_doubts = 5
    assert "canary" not in f"{config!r} {config}"


def test_a_written_file_is_private_reads_back_and_documents_every_setting(tmp_path: Path) -> None:
    path = tmp_path / "new" / "outbox.toml"
    url = 'postgresql://u:p"\\\x7fü@h/d'
    write_config(path, database=url, key_file="outbox.key", database_uuid="57d2f07b-55ec-4e8a-aff8-5c307b1b3245")
    config = load(path)
    assert (config.database, config.key_file) == (url, path.parent / "outbox.key")
    assert config.database_uuid == "57d2f07b-55ec-4e8a-aff8-5c307b1b3245"
    text = path.read_text(encoding="utf-8")
    for key, field in fields():
        assert f"{key.rpartition('.')[2]} = " in text
        assert field.description
        assert field.description in text
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="cannot make"):
        write_config(path, database=url)


def test_the_defaults_that_a_written_file_shows_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "outbox.toml"
    write_config(path, database="")
    text = re.sub(r"^# (?=\w+ = )", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    path.write_text(text.replace('key_file = ""\n', ""), encoding="utf-8")
    config, default = load(path), Config()
    assert {key: shown(key, config) for key, _ in fields()} == {key: shown(key, default) for key, _ in fields()}


def test_the_default_name_for_relays_is_one_that_they_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"web1": "[127.0.0.1]", "web1.local": "[127.0.0.1]", "localhost.localdomain": "[127.0.0.1]"}
    names |= {"web1.example.com": "web1.example.com", "bad_name.example.com": "[127.0.0.1]"}
    for host, helo in names.items():
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        assert load().helo == helo
