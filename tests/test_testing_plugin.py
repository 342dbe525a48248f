"""The plugin of pytest, as a project uses it: a pytest of its own, in a folder of its own."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

MAIL = 'Mail(sender="shop@example.com", to="ann@example.net", subject="Order 7", text="Thanks", dedup_key="order-7")'


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, test: str, conftest: str = "") -> pytest.RunResult:
    """By its module's name, whether or not this checkout is installed with its entry points."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    pytester.makeconftest(conftest)
    pytester.makepyfile(test)
    return pytester.runpytest_subprocess("-p", "outbox.testing.plugin", "-W", "error")


def test_there_is_a_database_where_the_project_has_none(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(
        pytester,
        monkeypatch,
        f"""
        import pytest
        from outbox import Mail, enqueue
        from outbox.errors import OutboxError

        def test_order(outbox):
            enqueue(outbox.connection, {MAIL})
            (mail,) = outbox.assert_enqueued(key="order-7")
            assert mail.to == ("ann@example.net",)
            with pytest.raises(OutboxError, match="commit first"):
                outbox.drain()
            outbox.connection.commit()
            drained = outbox.drain({{"rcpt:ann@example.net": "550 5.1.1 no such user"}})
            assert (drained.received, drained.done) == ((), {{"failed": 1}})

        def test_another(outbox):
            assert list(outbox.mails) == []

        def test_that_fails(outbox):
            outbox.assert_enqueued(key="order-8")
        """,
    )
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(["*1 mail with key 'order-8': expected; enqueued: 0. Nothing was enqueued*"])


def test_the_project_has_a_connection(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, sqlite_url: str
) -> None:
    done = run(
        pytester,
        monkeypatch,
        f"""
        from outbox import Mail, enqueue

        def test_order(outbox, outbox_connection):
            with outbox_connection:
                enqueue(outbox_connection, {MAIL})
            outbox.assert_enqueued(subject="Order 7")
            assert outbox.url == {sqlite_url!r}
            assert [mail.subject for mail in outbox.drain().received] == ["Order 7"]
        """,
        f"""
        import contextlib, sqlite3, pytest

        @pytest.fixture
        def outbox_connection():
            with contextlib.closing(sqlite3.connect({sqlite_url.removeprefix("sqlite:///")!r})) as connection:
                yield connection
        """,
    )
    done.assert_outcomes(passed=1)


def test_pytest_finds_it_where_outbox_is_installed() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    plugin = importlib.import_module(project["entry-points"]["pytest11"]["outbox"])
    assert hasattr(plugin, "outbox")
