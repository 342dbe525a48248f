"""The package as an application sees it: its names, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import outbox

# The heavy half of the program, drivers, and what is slow or starts something of itself.
NOT_LOADED = (
    "apscheduler asyncio cryptography email http logging peewee playhouse psycopg pydantic pydantic_settings rich"
    " socket sqlite3 ssl subprocess threading typer urllib"
)


def loaded_by(code: str, tmp_path: Path) -> set[str]:
    """The modules that are loaded after `code` ran in a fresh interpreter."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    # -S would leave out site-packages, so `site` and what its .pth files load are subtracted instead.
    before = subprocess.run(
        [sys.executable, "-c", "import json, sys; print(json.dumps(list(sys.modules)))"],
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    after = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=tmp_path)
    return set(json.loads(after.stdout)) - set(json.loads(before.stdout))


def test_the_public_names_are_these() -> None:
    assert sorted(outbox.__all__) == ["Attachment", "Mail", "aenqueue", "aenqueue_many", "enqueue", "enqueue_many"]
    assert all(getattr(outbox, name) is not None for name in outbox.__all__)


def test_enqueue_is_a_function_even_after_its_module_was_imported() -> None:
    import outbox.enqueue

    assert callable(outbox.enqueue)


def test_importing_outbox_loads_neither_the_runner_nor_a_driver(tmp_path: Path) -> None:
    loaded = loaded_by("from outbox import Mail, Attachment, enqueue, aenqueue, enqueue_many", tmp_path)

    assert "outbox.enqueue" in loaded
    assert sorted({name.partition(".")[0] for name in loaded} & set(NOT_LOADED.split())) == []
    assert sorted(name for name in loaded if name.startswith(("outbox.store", "outbox.runner", "outbox.cli"))) == []


def test_enqueueing_through_sqlite3_loads_no_other_driver(tmp_path: Path) -> None:
    code = """
import sqlite3
from outbox import Mail, enqueue
try:
    enqueue(sqlite3.connect(":memory:"), Mail(sender="a@example.com", to="b@example.com", text="c"))
except sqlite3.OperationalError:  # there are no tables
    pass
"""
    loaded = loaded_by(code, tmp_path)

    assert sorted({name.partition(".")[0] for name in loaded} & {"peewee", "psycopg", "asyncio", "email"}) == []


def test_the_road_map_names_files_that_exist() -> None:
    root = Path(outbox.__file__).parent
    words = (outbox.__doc__ or "").replace("`", " ").split()
    files = {word.strip(".,:;") for word in words if word.strip(".,:;").endswith(".py")}

    assert files >= {"enqueue.py", "runner/claiming/dispatch.py", "core/render.py"}
    assert sorted(name for name in files if not (root / name).is_file()) == []
