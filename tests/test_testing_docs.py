"""docs/testing.md, docs/templates.md and docs/logging.md do what they show."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from outbox import Mail, enqueue
from outbox.testing import assert_enqueued
from tests.pages import ROOT, blocks


@pytest.fixture
def shop(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a database shop.db, where we are."""
    Path(sqlite_url.removeprefix("sqlite:///")).rename(tmp_path / "shop.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(page: str) -> None:
    """Do what its Python blocks for everybody say, one after the other."""
    ran = 0
    for block in blocks(ROOT / "docs" / page):
        if block.language == "python" and not block.words:
            exec(compile(block.text, block.place, "exec"), {"__name__": "example"})
            ran += 1
    assert ran


def test_captured_and_drain_as_shown(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect("shop.db")) as connection, connection:
        for name in ("ann", "bo"):
            enqueue(connection, Mail(sender="shop@example.com", to=f"{name}@example.net", subject=name, text="Hi"))
    follow("testing.md")
    assert capsys.readouterr().out == "shop@example.com ('ann@example.net',) ann Hi\n\n"


@pytest.mark.parametrize("own", [False, True])
def test_the_tests_with_pytest_pass(tmp_path: Path, own: bool) -> None:
    for block in blocks(ROOT / "docs" / "testing.md"):
        if "pytest" in block.words:
            (tmp_path / "test_shop.py").write_text(block.text, encoding="utf-8")
        elif "conftest" in block.words and own:
            (tmp_path / "conftest.py").write_text(block.text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "outbox.testing.plugin", "-p", "no:cacheprovider", "."]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_mixin_for_django_passes(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "testing.md") if "django" in block.words)
    drains = """

from django.test import TransactionTestCase


class Drained(OutboxTestMixin, TransactionTestCase):
    def test_it_is_sent(self):
        send_mail("Order 8", "Thanks", "shop@example.com", ["ann@example.net"])
        assert [each.subject for each in self.drain().received] == ["Order 8"]
"""
    (tmp_path / "test_shop.py").write_text(block.text + drains, encoding="utf-8")
    project = ROOT / "tests" / "doors" / "django_project"
    command = [sys.executable, str(project / "manage.py"), "test", "--noinput", "-t", str(tmp_path), str(tmp_path)]
    environment = {"SHOP_DATABASE": str(tmp_path / "shop.db"), "SHOP_FOLDER": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "Ran 2 tests" in done.stderr, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


def test_templates_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "templates").mkdir()
    for block in blocks(ROOT / "docs" / "templates.md"):
        if block.language == "jinja":
            (tmp_path / block.words[0]).write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    follow("templates.md")


def test_logging_as_shown(shop: Path) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        follow("logging.md")
    finally:
        for each in [each for each in root.handlers if each not in before]:
            root.removeHandler(each)
            each.close()
    with closing(sqlite3.connect("shop.db")) as connection:
        (mail,) = assert_enqueued(connection, source="logging")
    assert mail.subject == "[shop] order 7: the printer is on fire"
