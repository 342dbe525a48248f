"""The programs in docs/any-language.md do what the page says: an order with its mail and file, or neither."""

from __future__ import annotations

import os
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from outbox.store.database import connect
from tests.conformance.drivers import Place, jdbc, jdbc_url, modules, node, php, reachable, ruby
from tests.pages import DOCS, Block, blocks
from tests.reader import ORDERS, statements

(PAGE,) = [page for page in DOCS if page.name == "any-language.md"]
PROGRAMS = [block for block in blocks(PAGE) if block.language != "sql" and "elsewhere" not in block.words]
SQL = [block for block in blocks(PAGE) if block.language == "sql"]
RUNS = [
    pytest.param(block, dialect, id=f"{block.language}-{dialect}")
    for block in PROGRAMS
    for dialect in ("sqlite", "postgres")
    if set(block.words) <= {dialect}
]


def execute(block: Block, place: Place, home: Path, changed: tuple[str, str] = ("", "")) -> tuple[int, str]:
    """Run a program of the page beside shop.db, or with the database where the page has shop. Its status and words."""
    on_sqlite = bool(place.path)
    text = block.text.replace("dbname=shop", f"dbname={place.name}").replace('"shop"', f'"{place.name}"')
    text = text.replace(*changed) if changed[0] else text
    if block.language == "php":
        command = [php("pdo_sqlite" if on_sqlite else "pdo_pgsql"), "shop.php"]
        text = text.replace(f"pgsql:dbname={place.name}", "sqlite:shop.db") if on_sqlite else text
    elif block.language == "js":
        command = [node("node:sqlite" if on_sqlite else "node:crypto"), "shop.js"]
        place.environment["NODE_PATH"] = "" if on_sqlite else modules()
    elif block.language == "ruby":
        command = [ruby("sqlite3" if on_sqlite else "pg"), "shop.rb"]
    else:
        command = [*jdbc("sqlite-jdbc.jar" if on_sqlite else "postgresql.jar"), "Shop.java"]
        url = "jdbc:sqlite:shop.db" if on_sqlite else jdbc_url(place)
        assert "jdbc:postgresql:shop?stringtype=unspecified" in text
        text = text.replace("jdbc:postgresql:shop?stringtype=unspecified", url)
    (home / command[-1]).write_text(text, encoding="utf-8")
    environment = {**os.environ, **place.environment, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def place_of(dialect: str, request: pytest.FixtureRequest) -> Place:
    place: Place = request.getfixturevalue(f"{dialect}_place")
    with closing(connect(place.url)) as database:
        database.execute_sql(ORDERS)
    if place.path:
        Path(place.path).rename(Path(place.path).with_name("shop.db"))
        return Place(str(Path(place.path).with_name("shop.db")), place.url.replace("outbox.db", "shop.db"), {})
    return place


def kept(place: Place) -> list[tuple[object, ...]]:
    query = (
        "SELECT r.id, o.recipients, a.filename, a.content FROM orders r LEFT JOIN outbox o ON o.recipients = r.customer"
        " LEFT JOIN outbox_attachment a ON a.message_id = o.id"
    )
    with closing(connect(place.url)) as database:
        return [tuple(row) for row in database.execute_sql(query).fetchall()]


@pytest.mark.parametrize(("block", "dialect"), RUNS)
def test_a_program_of_the_page_writes_the_order_with_its_mail_or_neither(
    block: Block, dialect: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = place_of(dialect, request)
    with reachable(place, tcp=block.language == "java") as there:
        status, words = execute(block, there, tmp_path, ("application/pdf", "pdf"))
        assert "outbox_attachment_content_type" in words
        assert (status != 0, kept(place)) == (True, [])

        status, words = execute(block, there, tmp_path)
        assert (status, words) == (0, "")
        assert kept(place) == [(7, "ann@example.net", "invoice.pdf", b"%PDF-1.7\n\x00\xff")]


def test_the_sql_of_the_page_is_taken(postgres_url: str, sqlite_url: str) -> None:
    for url, word in ((sqlite_url, "sqlite"), (postgres_url, "postgres")):
        asked = [statement for block in SQL if set(block.words) <= {word} for statement in statements(block.text)]
        with closing(connect(url)) as database:
            for statement in asked:
                database.execute_sql(statement)
            assert database.execute_sql("SELECT count(*) FROM outbox").fetchone() == (len(asked),)


def test_postgres_says_what_a_jdbc_text_needs(postgres_place: Place) -> None:
    """Why the page asks for stringtype=unspecified: a parameter of type text is no time."""
    with closing(psycopg.connect(postgres_place.url)) as connection, pytest.raises(psycopg.errors.DatatypeMismatch):
        connection.execute(
            "INSERT INTO outbox (sender, recipients, text_body, due_at) VALUES ('a@b', 'c@d', 'x', %s::text)",
            ["2027-03-01"],
        )
