"""bin/outbox and bin/test: ready in a moment when nothing is to do, and clear when they cannot become ready."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="these are the POSIX commands; Windows has .cmd files")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the commands and nothing to install yet."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "bin", folder / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\noptional-dependencies.all = []\n")
    return folder


def program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def installed(checkout: Path, *extras: str) -> None:
    """Make `checkout` look as if it were installed; its programs say how they were called."""
    program(checkout / ".venv" / "bin" / "outbox", 'echo "outbox in $PWD:"; printf "[%s]" "$@"; exit 7')
    program(checkout / ".venv" / "bin" / "python", 'echo "python in $PWD:"; printf "[%s]" "$@"; exit 7')
    for extra in extras:
        text = f"{checkout}\n{(checkout / 'pyproject.toml').read_text()}"
        (checkout / ".venv" / f"outbox-{extra}.stamp").write_text(text)


def path_with(folder: Path, *programs: Path) -> str:
    """A PATH with the tools of the commands and `programs`, and no Python but theirs."""
    folder.mkdir()
    for tool in ("cat", "dirname", "readlink"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    for path in programs:
        (folder / path.name).symlink_to(path)
    return str(folder)


def call(command: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *arguments], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_when_nothing_is_to_do_the_program_runs_where_you_are(checkout: Path, tmp_path: Path) -> None:
    installed(checkout, "all")
    away = tmp_path / "away"
    away.mkdir()
    (away / "link").symlink_to("../middle")
    (tmp_path / "middle").symlink_to(checkout / "bin" / "outbox")

    for command in (checkout / "bin" / "outbox", away / "link"):
        done = call(command, "list", "a b", "*", cwd=away, PATH=path_with(tmp_path / f"path of {command.name}"))
        assert (done.stdout, done.stderr, done.returncode) == (f"outbox in {away}:\n[list][a b][*]", "", 7)


def test_the_tests_run_at_the_root_of_the_checkout(checkout: Path, tmp_path: Path) -> None:
    installed(checkout, "all", "dev")
    done = call(checkout / "bin" / "test", "-k", "a b", cwd=tmp_path)

    assert (done.stdout, done.stderr, done.returncode) == (f"python in {checkout}:\n[-m][pytest][-k][a b]", "", 7)


@pytest.mark.parametrize("change", ["pyproject.toml", "stamp", "moved"])
def test_a_stamp_that_no_longer_holds_has_the_checkout_installed_again(
    checkout: Path, tmp_path: Path, change: str
) -> None:
    installed(checkout, "all")
    (checkout / ".venv" / "bin" / "python").unlink()  # or it would be the one that is asked
    program(checkout / ".venv" / "bin" / "python", "exit 1")
    if change == "pyproject.toml":
        (checkout / "pyproject.toml").write_text("[project]\nname = 'y'\n")
    elif change == "stamp":
        (checkout / ".venv" / "outbox-all.stamp").unlink()
    else:
        checkout = checkout.rename(tmp_path / "moved")
    python = program(tmp_path / "python3", 'case "$*" in *_setup.py*) printf "[%s]" "$@"; exit 3;; esac')
    done = call(checkout / "bin" / "outbox", cwd=tmp_path, PATH=path_with(tmp_path / "path", python))

    assert (done.stdout, done.stderr, done.returncode) == (f"[-I][{checkout}/bin/_setup.py][all]", "", 3)


def test_a_newer_python_behind_an_old_one_is_found(checkout: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "python3", "exit 1")
    new = program(tmp_path / "python3.12", 'case "$*" in *_setup.py*) echo found; exit 3;; esac')
    done = call(checkout / "bin" / "outbox", cwd=tmp_path, PATH=path_with(tmp_path / "path", old, new))

    assert (done.stdout, done.returncode) == ("found\n", 3)


def test_an_old_python_is_named_in_the_refusal(checkout: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "python3", '[ "$1" = --version ] && echo Python 3.10.13 && exit; exit 1')
    done = call(checkout / "bin" / "outbox", cwd=tmp_path, PATH=path_with(tmp_path / "path", old))

    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "outbox: Python 3.11 or newer is needed; PATH has Python 3.10.13."
    assert not (checkout / ".venv").exists()


def test_an_installation_that_fails_says_what_pip_said_and_is_tried_again(checkout: Path, tmp_path: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(tmp_path)}
    setup: list[str | Path] = [sys.executable, "-I", checkout / "bin" / "_setup.py", "all"]
    (checkout / "pyproject.toml").write_text("[build-system]\nrequires = ['hatchling']\n")
    for _ in range(2):
        done = subprocess.run(setup, env=os.environ | offline, capture_output=True, text=True, check=False)
        lines = done.stderr.splitlines()
        assert done.returncode == 1
        assert done.stdout == ""
        assert lines[0] == "outbox: first run, installing into .venv (about 20 s) …"
        assert lines[1].startswith("outbox: pip could not install .[all]. It needs a package index")
        assert any("No matching distribution found for hatchling" in line for line in lines)
        assert lines[-1] == "outbox: Then run the same command again."
    assert not list((checkout / ".venv").glob("*.stamp"))
