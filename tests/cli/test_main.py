"""The program itself: help, errors, exit codes, and what it does not import."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

import outbox.cli
from outbox.cli import output
from outbox.cli.main import CONTENTS, app
from outbox.core.secret import Secret
from tests.cli.program import Program

HEAVY = ("peewee", "pydantic", "cryptography", "apscheduler", "rich", "psycopg", "asyncio", "ssl", "tomllib")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['outbox', '--help']\n"
        "from outbox.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: outbox")
    assert [name for name in HEAVY if name in done.stderr.split()] == []


def test_python_dash_m_is_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "outbox", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("outbox 0.")


@pytest.mark.parametrize("args", [(), ("account",), ("key",)])
def test_no_command_shows_the_help(sqlite_program: Program, args: tuple[str, ...]) -> None:
    assert "Usage: outbox" in sqlite_program.run(*args, code=2).stdout


def test_a_mistyped_command_or_option_is_a_usage_error_with_a_hint(sqlite_program: Program) -> None:
    said = sqlite_program.fails(2, "account", "lst")
    assert "Did you mean 'list'?" in said
    assert "hint: outbox account --help" in said
    assert "--relay" in sqlite_program.fails(2, "account", "add", "x")
    assert "error: --tls: 'maybe'" in sqlite_program.fails(2, "account", "add", "x", "--relay", "h", "--tls", "maybe")


def test_an_error_is_two_lines_and_its_place_is_shown_at_vv(sqlite_program: Program) -> None:
    sqlite_program.init()
    said = sqlite_program.fails(1, "account", "show", "x")
    assert said == "error: there is no account x\nhint: `outbox account list` shows them\n"
    said = sqlite_program.run("-vv", "account", "show", "x", code=1).stderr
    assert said.startswith("Traceback")
    assert "error: there is no account x" in said


def test_each_kind_of_trouble_has_its_exit_code(sqlite_program: Program) -> None:
    assert "no database is configured" in sqlite_program.fails(3, "account", "list")
    assert "there is no configuration file" in sqlite_program.fails(3, "--config", "none.toml", "account", "list")
    assert "there is no database" in sqlite_program.fails(4, "--database", "sqlite:///none.db", "account", "list")
    Path("empty.db").touch()
    said = sqlite_program.fails(4, "--database", "sqlite:///empty.db", "account", "list")
    assert "/empty.db (from --database) has no tables of Outbox\n" in said
    assert "hint: outbox init --database sqlite:///empty.db; or is it another file?" in said
    Path("text.db").write_text("this is not a database, however long it is looked at " * 40, encoding="utf-8")
    sqlite_program.fails(4, "--database", "sqlite:///text.db", "account", "list")
    assert not Path("none.db").exists()


def test_a_value_from_the_environment_is_said_to_be(sqlite_program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_DATABASE", "gone.db")
    said = sqlite_program.fails(4, "list")
    assert "(from the environment variable OUTBOX_DATABASE)\nhint: unset OUTBOX_DATABASE" in said
    monkeypatch.setenv("OUTBOX_DATABASE", "gone/shop.db")
    assert "mkdir" not in sqlite_program.fails(4, "list")


@pytest.mark.parametrize(
    ("args", "moved"),
    [
        ("run --database shop.db", "--database shop.db run"),
        ("list --state failed --no-color", "--no-color list --state failed"),
        ("account list --config=x", "--config=x account list"),
        ("run -v", "-v run"),
    ],
)
def test_a_global_option_behind_its_command_is_shown_where_it_goes(
    sqlite_program: Program, args: str, moved: str
) -> None:
    said = sqlite_program.fails(2, *args.split())
    assert said.endswith(f" goes before the command: outbox {moved}\n")


def test_no_help_text_speaks_of_python_or_breaks_off(sqlite_program: Program) -> None:
    texts = [sqlite_program.run("--help").stdout]
    commands = [line.split()[0] for line in texts[0].partition("Commands:")[2].splitlines() if line[2:3].strip()]
    texts += [sqlite_program.run(each, "--help").stdout for each in commands]
    assert len(texts) > 15
    for text in texts:
        assert "<" not in text.replace("<shop@example.com>", "")
        assert not re.search(r"(?<![]}])\.\.\.", text)  # typer's own mark of what may be repeated


def test_what_cannot_be_read_is_said_in_plain_words(sqlite_program: Program) -> None:
    sqlite_program.init()
    assert "error: 'abc' is not a message id\n" in sqlite_program.fails(2, "show", "abc")
    assert "error: -n or --limit must be a whole number\n" in sqlite_program.fails(2, "list", "--limit", "x")
    said = sqlite_program.fails(2, "enqueue", "--from", "a@b.example", "--priority", "11")
    assert "error: --priority must be at most 9\n" in said


def test_config_show_says_where_each_value_came_from_without_a_password(sqlite_program: Program) -> None:
    program = sqlite_program.init()
    rows = {row["setting"]: row for row in program.json("config", "show")}
    assert rows["database"]["source"] == "outbox.toml"
    assert (rows["retry.floor"]["value"], rows["retry.floor"]["source"]) == ("1m", "default")
    assert all(row["meaning"] for row in rows.values())
    table = program.run("--database", "postgresql://u:canary@h/d", "config", "show").stdout
    assert "command line" in table
    assert "canary" not in "".join(program.printed)


def test_a_secret_has_no_json_form(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TypeError):
        output.show_json({"password": Secret("canary")})
    assert "canary" not in capsys.readouterr().out


def test_a_table_in_a_pipe_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_table(("a", "b"), [("x" * 300, None), ("y", True)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["A" + " " * 299 + "  B", "x" * 300 + "  -", "y" + " " * 299 + "  yes"]


def test_a_narrow_terminal_folds_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    output.show_table(
        ("name", "relay", "state"), [("main", "smtp.example.com:587", "paused by operator: the relay moves away")]
    )
    output.note("hint: the command that you want is outbox account set-password main")
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "NAME  RELAY                 STATE",
        "main  smtp.example.com:587  paused by operator: the relay",
        "                            moves away",
    ]
    assert printed.err.splitlines() == ["hint: the command that you want is outbox account", "      set-password main"]


def test_a_table_too_wide_for_its_last_column_has_it_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "48")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    relay = "email-smtp.eu-central-1.amazonaws.com:587"
    output.show_table(
        ("name", "relay", "login", "state"), [("main", relay, "shop", "paused by operator"), ("b", "c", "d", None)]
    )
    assert capsys.readouterr().out.splitlines() == [
        "NAME  RELAY                                LOGIN",
        "    STATE",
        "main  email-smtp.eu-central-1.amazonaws.c  shop",
        "      om:587",
        "    paused by operator",
        "b     c                                    d",
    ]


def test_a_complaint_of_the_command_line_is_in_one_line(program: Program) -> None:
    done = program.run("rule", "add", "greylisted", "--verdict", "defer", code=2)
    assert "Missing option '--scope'. Choose from: relay, account, sender" in done.stderr


@pytest.mark.parametrize("name", CONTENTS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[name]

    assert command.hidden == (not CONTENTS[name][1])
    assert command.hidden or command.short_help == CONTENTS[name][1]


def test_no_command_is_missing_from_the_list() -> None:
    alone = {module for module, _ in CONTENTS.values()}
    for path in Path(outbox.cli.__file__).parent.glob("*.py"):
        made = getattr(importlib.import_module(f"outbox.cli.{path.stem}"), "app", None)
        if path.stem not in alone or made is None or made.info.help is not None:
            continue
        names = {each.name or each.callback.__name__ for each in made.registered_commands}
        assert {CONTENTS[each][0] for each in names} == {path.stem}


def test_a_command_imports_no_other() -> None:
    script = (
        "import sys; sys.argv = ['outbox', 'list', '--help']\n"
        "from outbox.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = {module for module, _ in CONTENTS.values()}
    assert {name.removeprefix("outbox.cli.") for name in done.stderr.split()} & modules == {"queue"}
