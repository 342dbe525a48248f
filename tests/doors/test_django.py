"""Django projects as people run them: manage.py, a server that answers requests, and a runner, each a process.

What is inside of Django is tested there, by its own runner: tests/doors/django_project/shop/cases_*.py.
OUTBOX_TEST_DJANGO names another Python, of an environment with another Django and this package; CI's Pythons have each
its newest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from outbox.store.database import Dialect, connect
from outbox.store.migrate import latest, statements
from tests.pages import DOCS, blocks
from tests.relay import Relay
from tests.running import Program, Site

PROJECT = Path(__file__).parent / "django_project"
PYTHON = os.environ.get("OUTBOX_TEST_DJANGO", sys.executable)

pytestmark = pytest.mark.skipif(
    sys.executable == PYTHON and find_spec("django") is None, reason="Django is not installed: the extra `django`"
)


class Shop:
    """A project of its own in `folder`, on the database at `url`."""

    def __init__(self, folder: Path, url: str, **environment: str) -> None:
        self.folder = folder / "project"
        self.url = url
        shutil.copytree(PROJECT, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        where = url if url.startswith("postgres") else unquote(urlsplit(url).path)[1:]
        self.environment = {
            "SHOP_DATABASE": where,
            "SHOP_FOLDER": str(folder),
            # Python 3.12 before .4 calls our ?1 a named parameter (gh-117995).
            "PYTHONWARNINGS": "error,ignore:Binding:DeprecationWarning",
            **environment,
        }

    def manage(self, *arguments: str) -> Program:
        return Program([PYTHON, "manage.py", *arguments], self.folder, **self.environment)

    def managed(self, *arguments: str) -> str:
        """What a command says, which must succeed."""
        with self.manage(*arguments) as program:
            assert program.wait(60) == 0, program.output
            return program.output

    def write(self, place: str, text: str) -> None:
        with (self.folder / place).open("a", encoding="utf-8") as file:
            file.write(f"\n{text}\n")

    def site(self) -> Site:
        return Site(self.url, self.folder)


@pytest.fixture
def shop(empty_url: str, tmp_path: Path) -> Shop:
    """A project on an empty database of each kind."""
    return Shop(tmp_path, empty_url)


def asked(port: int, path: str, **form: str) -> int:
    """The status of the answer to a POST."""
    body = urllib.parse.urlencode(form).encode()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with closing(error):
            return error.code


def test_what_a_request_commits_is_sent_and_what_it_rolls_back_is_not(shop: Shop) -> None:
    shop.managed("migrate")
    with Relay() as relay, closing(shop.site()) as site:
        shop.managed("outbox", "account", "add", "main", "--relay", f"127.0.0.1:{relay.port}", "--tls", "none")
        shop.managed("outbox", "sender", "add", "shop@example.com", "--account", "main")
        with shop.manage("runserver", "--noreload", "127.0.0.1:0") as server, shop.manage("outbox_run") as runner:
            port = int(server.says(r"http://127\.0\.0\.1:(\d+)")[1])
            runner.says("runner [0-9a-f]{8} (?:started|serves)")
            assert asked(port, "/order/1/?fail=1", email="lost@example.net") == 500
            assert asked(port, "/order/2/", email="ann@example.net") == 201
            assert asked(port, "/order/2/", email="twice@example.net") == 500  # the order is there already
            relay.wait(1)
            site.until(sent=1)
            runner.stop()
            assert runner.wait() == 0
        assert site.query("SELECT number FROM shop_order") == [(2,)]
        assert [message.recipients for message in relay.messages] == [("ann@example.net",)]
        assert b"Subject: Order 2\r\n" in relay.messages[0].content
    assert "sent" in shop.managed("outbox", "list")


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "psycopg2"])
def test_inside_of_django(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{(tmp_path / 'shop.db').as_posix()}"
    else:
        url = request.getfixturevalue("postgres_url")
    environment = {}
    if kind == "psycopg2":
        found = subprocess.run([PYTHON, "-c", "import psycopg2"], capture_output=True, check=False)
        if found.returncode:
            pytest.skip("psycopg2 is not installed")
        environment["SHOP_DRIVER"] = "psycopg2"

    said = Shop(tmp_path, url, **environment).managed("test", "--noinput", "--pattern", "cases_*.py")

    assert "\nOK" in said
    assert "no issues" in said  # of the system checks


def test_tables_that_are_there_already_are_left_as_they_are(database_url: str, tmp_path: Path) -> None:
    shop = Shop(tmp_path, database_url)
    with closing(shop.site()) as site:
        site.insert(1)
        shop.managed("migrate")
        assert site.states() == {"queued": 1}
    assert "no issues" in shop.managed("check", "--database", "default")


def test_migrate_brings_older_tables_up_to_date(shop: Shop) -> None:
    with closing(connect(shop.url)) as db:
        which: Dialect = "postgres" if shop.url.startswith("postgres") else "sqlite"
        newest = latest(which)
        for statement in statements(which)[: -len(statements(which, newest - 1))]:
            db.connection().execute(statement)
    said = shop.managed("check", "--database", "default")
    assert f"outbox.W004) The tables of Outbox in 'default' are at version {newest - 1}" in said

    shop.managed("migrate", "--fake", "outbox")  # its migration is done, as it is in a project that upgrades

    assert "no issues" in shop.managed("check", "--database", "default")


def test_a_database_without_the_tables_is_said(tmp_path: Path) -> None:
    shop = Shop(tmp_path, f"sqlite:///{(tmp_path / 'shop.db').as_posix()}")
    assert "outbox.W003" in shop.managed("check", "--database", "default")


def test_a_backend_that_is_not_used_is_said(tmp_path: Path) -> None:
    shop = Shop(tmp_path, f"sqlite:///{(tmp_path / 'shop.db').as_posix()}", PYTHONWARNINGS="ignore")
    unused = 'EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"'
    shop.write("settings.py", f'globals().pop("MAILERS", None)\n{unused}')
    assert "outbox.W001" in shop.managed("check")


def test_doctor_and_help_are_those_of_outbox(tmp_path: Path) -> None:
    shop = Shop(tmp_path, f"sqlite:///{(tmp_path / 'shop.db').as_posix()}")
    shop.managed("migrate")
    said = shop.managed("outbox_doctor")
    assert "ok    schema" in said
    assert "no address is registered" in said
    assert "--until-empty" in shop.managed("outbox_run", "--help")
    with shop.manage("outbox", "show", "7") as program:
        assert program.wait() != 0
        assert "error: " in program.output


def test_the_password_of_a_database_is_in_no_command_line(tmp_path: Path) -> None:
    """`url_of` gives libpq what Django gives its driver."""
    code = (
        "import django; django.setup()\n"
        "from django.db import connection\n"
        "from outbox.doors.django.database import url_of\n"
        "print(url_of(connection))"
    )
    shop = Shop(tmp_path, "postgresql://ann:p%40ss%20w@db.example.net:6432/shop")
    with Program([PYTHON, "-c", code], shop.folder, DJANGO_SETTINGS_MODULE="settings", **shop.environment) as program:
        assert program.wait() == 0
        (url,) = program.output.split()
    given = dict(urllib.parse.parse_qsl(urlsplit(url).query))
    assert given.items() >= {"user": "ann", "password": "p@ss w", "host": "db.example.net", "port": "6432"}.items()


# -- docs/django.md


def _followed(shop: Shop) -> Callable[[str], str]:
    """The blocks of the page, by the word behind `python`."""
    (page,) = [page for page in DOCS if page.name == "django.md"]
    found: dict[str, list[str]] = {}
    for block in blocks(page):
        if block.language == "python" and "elsewhere" not in block.words:
            found.setdefault(block.words[0], []).append(block.text)
    return lambda word: "\n".join(found[word])


def test_the_page_of_the_manual_can_be_followed(shop: Shop) -> None:
    page = _followed(shop)
    shop.write("settings.py", f'INSTALLED_APPS.remove("outbox.doors.django")\n{page("settings")}')
    if subprocess.check_output([PYTHON, "-m", "django", "--version"], text=True) < "6.1":
        shop.write("settings.py", 'globals().pop("MAILERS", None)')
    else:
        shop.write("settings.py", "del EMAIL_BACKEND")
    shop.write("shop/page.py", page("view"))
    shop.write("follow.py", "import django\n\ndjango.setup()\nfrom shop.page import place_order\n")
    shop.write("follow.py", f"place_order(7, 'ann@example.net')\n{page('message')}")
    shop.managed("migrate")
    with Program([PYTHON, "follow.py"], shop.folder, DJANGO_SETTINGS_MODULE="settings", **shop.environment) as program:
        assert program.wait() == 0
        assert program.output == "2"
    with closing(shop.site()) as site:
        found = site.query("SELECT sender, sender_name, recipients, dedup_key, source FROM outbox ORDER BY id")
    assert found == [
        ("shop@example.com", "The Shop", "ann@example.net", None, "django"),
        ("shop@example.com", None, "ann@example.net", "order-7", "django"),
    ]


def test_the_commands_of_the_manual_can_be_typed(shop: Shop) -> None:
    """All but the one that runs until it is stopped; the password comes from a pipe, where there is no terminal."""
    (page,) = [page for page in DOCS if page.name == "django.md"]
    (typed,) = [block.text.splitlines() for block in blocks(page) if block.text.startswith("python manage.py migrate")]
    assert typed.pop() == "python manage.py outbox_run"
    for line in typed:
        words = line.replace("--username shop", "--username shop --password-stdin").split()[1:]
        done = subprocess.run(
            [PYTHON, *words],
            input=b"canary-Pa55w0rd\n",
            cwd=shop.folder,
            env={**os.environ, **shop.environment},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr.decode())
    with closing(shop.site()) as site:
        assert site.query("SELECT name FROM outbox_account") == [("main",)]
        assert site.query("SELECT address, account FROM outbox_sender") == [("shop@example.com", "main")]
