"""The wheel: what is in it, and that it works in an empty venv, far from any checkout."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import sysconfig
import venv
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What `command` says. Fails the test with all of it when the exit status is not 0."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OUTBOX_", "PYTHONPATH"))}
    done = subprocess.run(
        command, cwd=cwd, env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{output}"
    return output


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("mail_outbox-*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a venv that has the wheel. Its dependencies are borrowed from this Python, which
    spares the test a network; a .pth file puts them behind what is installed in the venv itself.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    paths = sysconfig.get_paths("venv", vars={"base": str(home), "platbase": str(home)})
    python = Path(paths["scripts"]) / ("python.exe" if os.name == "nt" else "python")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    borrowed = "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (Path(paths["purelib"]) / "borrowed.pth").write_text(borrowed, encoding="utf-8")
    return Path(paths["scripts"])


def test_the_wheel_holds_the_schema_and_the_types_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    schema = {path.relative_to(ROOT / "schema").as_posix() for path in (ROOT / "schema").rglob("*.sql")}

    assert schema
    assert {name.removeprefix("outbox/_schema/") for name in names if name.endswith(".sql")} == schema
    assert "outbox/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"outbox", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert [name for name in names if "tests" in name.split("/") or name.endswith(".pyc")] == []


def test_the_installed_program_works_outside_the_checkout(scripts: Path, tmp_path: Path) -> None:
    outbox = scripts / ("outbox.exe" if os.name == "nt" else "outbox")
    url = f"sqlite:///{(tmp_path / 'shop.db').as_posix()}"

    assert run(outbox, "--version", cwd=tmp_path).startswith("outbox 0.")
    assert "CREATE TABLE outbox (" in run(outbox, "schema", "show", "--dialect", "sqlite", cwd=tmp_path)
    assert "CREATE TABLE outbox (" in run(outbox, "schema", "show", "--dialect", "postgres", cwd=tmp_path)
    run(outbox, "schema", "apply", cwd=tmp_path, OUTBOX_DATABASE=url)
    run(outbox, "schema", "check", cwd=tmp_path, OUTBOX_DATABASE=url)


def test_the_installed_package_is_the_one_from_the_wheel_and_can_enqueue(scripts: Path, tmp_path: Path) -> None:
    outbox = scripts / ("outbox.exe" if os.name == "nt" else "outbox")
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    database = tmp_path / "shop.db"
    run(outbox, "schema", "apply", cwd=tmp_path, OUTBOX_DATABASE=f"sqlite:///{database.as_posix()}")
    code = """
import sqlite3, outbox
print(outbox.__file__)
with sqlite3.connect("shop.db") as connection:
    outbox.enqueue(connection, outbox.Mail(sender="a@example.com", to="b@example.com", subject="c", text="d"))
"""
    where = run(python, "-W", "error", "-c", code, cwd=tmp_path).strip()

    assert Path(where).is_relative_to(scripts.parent)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT subject, source FROM outbox").fetchall() == [("c", "python")]
