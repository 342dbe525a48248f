"""The manual is true: its code runs, what it shows is what comes out, what it names exists, and nothing is left out.

`python -m tests.test_docs` writes the table of settings into docs/configuration.md, and docs/replies.md.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import peewee
import pytest
import typer
from typer.core import TyperGroup

from outbox.cli.main import app
from outbox.config import Config, shown
from outbox.config.settings import SECTIONS, fields
from outbox.core.lifecycle import State
from outbox.core.settlement import Fate, Result
from outbox.store.database import dialect
from tests.pages import DOCS, PAGES, README, ROOT, anchors, blocks, links, our_commands, prose, spans
from tests.reader import Reader, alone, statements
from tests.relay import Relay
from tests.replies import page as page_of_replies
from tests.stories import Stories

FOLLOWED = ("README.md", "docs/getting-started.md", "docs/enqueue.md", "docs/frameworks.md")
"""Pages whose every block is done, in order."""


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay({"rcpt:bob@example.net": "550 5.1.1 no such user"}) as running:
        yield running


# -- what the pages show


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_page_can_be_followed_word_by_word(
    name: str, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    page = list(blocks(ROOT / name))
    on_postgres = any("postgres" in block.words for block in page)
    postgres_url = request.getfixturevalue("postgres_url") if on_postgres else ""
    reader = Reader(alone(tmp_path / "home", monkeypatch), relay, page, postgres_url=postgres_url)
    (reader.home / "report.txt").write_text("All is well.")
    (reader.home / "report.pdf").write_bytes(b"%PDF-1.7")
    try:
        done = reader.follow()
    finally:
        reader.close()

    left = [block for block in page if block.place not in done and "elsewhere" not in block.words]
    assert [block.place for block in left if block.language != "ini" and block is not page[0]] == []


def test_every_query_of_the_audit_runs_over_both_databases(database_url: str, database: peewee.Database) -> None:
    with Stories(database_url) as stories:
        stories.one_of_each()
    ran = 0
    for block in blocks(ROOT / "docs" / "audit.md"):
        if block.language == "sql" and set(block.words) <= {dialect(database)}:
            for statement in statements(block.text):
                database.execute_sql(statement.rstrip().rstrip(";"))
                ran += 1
    assert ran >= 14


@pytest.mark.parametrize("name", ["operate", "delivery"])
def test_the_sql_for_operators_runs_over_both_databases(
    name: str, database_url: str, database: peewee.Database
) -> None:
    with Stories(database_url) as stories:
        stories.one_of_each()
    for block in blocks(ROOT / "docs" / f"{name}.md"):
        if block.language == "sql" and set(block.words) <= {dialect(database)}:
            for statement in statements(block.text):
                database.execute_sql(statement.rstrip().rstrip(";"))


def test_what_is_deleted_and_erased_as_the_manual_says_is_old_and_finished(sqlite_url: str) -> None:
    with Stories(sqlite_url) as stories:
        told = stories.one_of_each()
        old, mid = stories.mail(), stories.mail()
        for each in (old, mid):
            stories.attempt(each)
        stories.sql("UPDATE outbox_delivery SET final_at = '2020-01-01T00:00:00.000Z' WHERE message_id = ?", old)
        stories.sql("UPDATE outbox_delivery SET final_at = '2025-12-31T00:00:00.000Z' WHERE message_id = ?", mid)
        newest = stories.mail()
        for block in blocks(ROOT / "docs" / "operate.md"):
            if block.language == "sql" and "postgres" not in block.words:
                stories.sql(block.text)
        left = dict(stories.sql("SELECT id, text_body FROM outbox"))

    assert old not in left
    assert {each for each, text in left.items() if text is None} <= {mid}
    assert {*told.values(), newest} <= left.keys()


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## [{version('mail-outbox')}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 700


# -- what the pages name


@cache
def tree() -> TyperGroup:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def verbs(group: TyperGroup, *above: str) -> Iterator[str]:
    """Every command that can be typed, such as "account add"."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from verbs(command, *above, name)
        elif not command.hidden:
            yield " ".join((*above, name))


def unknown(words: list[str]) -> str:
    """The first word of a command line of ours that does not exist, or "". Values are passed over."""
    command: Any = tree()
    options: dict[str, Any] = {}
    left = list(words)
    while left:
        options |= {option: param for param in command.params for option in param.opts}
        word = left.pop(0)
        if word == "--":
            break  # what follows is another program
        if word.startswith("-") and word not in ("-", "--help"):
            if word not in options:
                return word
            param = options[word]
            if not (param.is_flag or param.count):
                left[:1] = []
        elif isinstance(command, TyperGroup) and word not in ("--help", "COMMAND"):
            if word not in command.commands:
                return word
            command = command.commands[word]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_is_named_exists(page: Path) -> None:
    named = [(place, [word for word in words if word != "|"]) for place, words in our_commands(page)]

    assert [(place, wrong) for place, words in named if (wrong := unknown(words))] == []


def test_a_command_or_option_that_does_not_exist_would_be_noticed() -> None:
    assert unknown(["account", "burn", "main"]) == "burn"
    assert unknown(["--database", "burn", "list", "--burn"]) == "--burn"
    assert unknown(["list", "--state", "burn", "-n", "5"]) == ""


def test_every_command_is_documented() -> None:
    named = [words for page in DOCS for _, words in our_commands(page)]
    named += [[*first, span] for first, span in _rows_of_commands()]
    named = [[word for word in words if not word.startswith("-")] for words in named]
    missing = [verb for verb in verbs(tree()) if not any(words[: len(verb.split())] == verb.split() for words in named)]

    assert missing == []


def _rows_of_commands() -> Iterator[tuple[list[str], str]]:
    """The verbs of a group that share a row: ``| `outbox key add`, `list` | …``."""
    for page in DOCS:
        for line in prose(page).splitlines():
            row = re.match(r"\| `outbox (\w+) [\w-]+`((?:, `[\w-]+`)*) \|", line)
            if row:
                yield from (([row[1]], verb) for verb in re.findall(r"`([\w-]+)`", row[2]))


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not link.startswith("https://") and not (target.is_file() and (not anchor or anchor in anchors(target))):
                broken.append(f"{page.name}: {link}")

    assert broken == []


def test_every_page_is_in_the_readme_or_among_the_ways_in() -> None:
    doors = {f"docs/{link}" for link in links(ROOT / "docs" / "doors.md")}
    assert {f"docs/{page.name}" for page in DOCS} <= set(links(README)) | doors


def test_every_state_fate_outcome_view_and_table_is_documented() -> None:
    named = {word for page in DOCS for span in spans(page) for word in re.findall(r"[\w.]+", span)}
    named |= {line.removeprefix("### ") for line in prose(ROOT / "docs" / "audit.md").splitlines()}
    words = {str(word) for kind in (State, Fate, Result) for word in kind}
    schema = "\n".join(
        each.read_text(encoding="utf-8")
        for each in resources.files("schema").joinpath("sqlite").iterdir()
        if each.name.endswith(".sql")
    )
    words |= set(re.findall(r"(?m)^CREATE (?:TABLE|VIEW) (\w+)", schema))
    words -= set(re.findall(r"(?m)^DROP (?:TABLE|VIEW) (\w+_before)", schema))  # copies, while a table is made anew

    assert words - named == set()


def test_every_column_of_the_audit_views_is_documented(sqlite_url: str) -> None:
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    with Stories(sqlite_url) as stories:
        views = [name for (name,) in stories.sql("SELECT name FROM sqlite_master WHERE type = 'view'")]
        columns = {name for view in views for (name,) in stories.sql(f"SELECT name FROM pragma_table_info('{view}')")}

    assert {column for column in columns if not re.search(rf"\b{column}\b", page)} == set()


# -- settings


SETTINGS = re.compile(r"(?s)(<!-- settings: .*? -->\n).*?(<!-- end of settings -->)")


def settings_tables() -> str:
    """docs/configuration.md's tables of the settings, from their definitions."""
    lines: list[str] = []
    section = None
    for key, field in fields():
        into, _, name = key.rpartition(".")
        if into != section:
            title = [f"## [{into}]", "", SECTIONS[into].__doc__ or ""] if into else ["## At the top"]
            lines += ["", *title, "", "| setting | default | |", "|---|---|---|"]
            section = into
        default = f"`{shown(key, Config())}`" if into else ""  # at the top, what there is depends on the machine
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return "\n".join([*lines, ""])


def written(page: str) -> str:
    return SETTINGS.sub(lambda found: f"{found[1]}{settings_tables()}\n{found[2]}", page)


def test_every_setting_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")

    assert page == written(page), "python -m tests.test_docs writes it anew"


def test_the_example_of_a_configuration_is_one() -> None:
    (example,) = [block for block in blocks(ROOT / "docs" / "configuration.md") if block.language == "toml"]
    given: dict[str, Any] = tomllib.loads(example.text)

    assert Config(**given).retry.max_age.days == 3


def test_every_named_setting_exists() -> None:
    known = {key for key, _ in fields()}
    named = {span for page in DOCS for span in spans(page) if re.fullmatch(r"(retry|run)\.\w+", span)}

    assert named - known == set()


# -- replies


def test_what_every_reply_leads_to_is_documented() -> None:
    page = (ROOT / "docs" / "replies.md").read_text(encoding="utf-8")

    assert page == page_of_replies(), "python -m tests.test_docs writes it anew"


if __name__ == "__main__":
    (ROOT / "docs" / "replies.md").write_text(page_of_replies(), encoding="utf-8")
    target = ROOT / "docs" / "configuration.md"
    target.write_text(written(target.read_text(encoding="utf-8")), encoding="utf-8")
