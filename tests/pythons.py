"""The Pythons of this machine, and the tests that depend on which it is, in the oldest and the newest other one.

    python -m tests.pythons

Each gets an environment of its own in $OUTBOX_PYTHONS, or ~/.cache/outbox-pythons, with this checkout and what its
tests need. Run by .ci/run. 0: all passed, or there is no other Python here that can be set up, which is said.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
DEPENDENT = ("tests/core", "tests/smtp", "tests/contract/test_enqueue*.py", "tests/runner/test_drain.py")
"""What is made of a row, what is said to a relay, the drivers of databases, and that mail arrives."""


def pythons() -> dict[str, str]:
    """By version, on PATH, the system's own, and pyenv's. To the last digit: 3.11.2, Debian 12's, has an `re` of its
    own.
    """
    found = {platform.python_version(): sys.executable}
    for version in SUPPORTED:
        names = (f"python{version}", "python3")
        places = [shutil.which(name, path=path) for name in names for path in (None, os.defpath)]
        for place in (*places, *Path.home().glob(f".pyenv/versions/*/bin/python{version}")):
            exact = _version(str(place)) if place else ""
            if exact.startswith(f"{version}."):
                found.setdefault(exact, str(place))
    return found


def _version(python: str) -> str:
    """Empty where it does not run: pyenv's shims are there for versions that are not switched on, too."""
    asked = [python, "-c", "import platform; print(platform.python_version())"]
    return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout.strip()


def main() -> int:
    others = pythons()
    del others[platform.python_version()]
    if not others:
        print("pythons: WARNING: there is no other supported Python here, so nothing is tested in one", file=sys.stderr)
        return 0
    by_age = sorted(others, key=lambda each: [int(part) for part in each.split(".") if part.isdigit()])
    return max(_tested(version, others[version]) for version in dict.fromkeys((by_age[0], by_age[-1])))


def _tested(version: str, python: str) -> int:
    print(f"pythons: {version}", file=sys.stderr, flush=True)
    try:
        inside = _environment(version, python)
    except subprocess.CalledProcessError as error:
        print(f"pythons: WARNING: nothing is tested in {version}, for it cannot be set up: {error}", file=sys.stderr)
        return 0
    tests = [str(each) for path in DEPENDENT for each in sorted(ROOT.glob(path))]
    command = [inside, "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile", *tests]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        print(f"pythons: FAILED in {version} (exit {status})", file=sys.stderr)
    return status


def _environment(version: str, python: str) -> str:
    """By virtualenv, because Debian's own Python cannot make one without another package."""
    places = Path(os.environ.get("OUTBOX_PYTHONS", Path.home() / ".cache" / "outbox-pythons"))
    tool, place = places / "virtualenv", places / version
    inside = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
    if not tool.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(tool), "virtualenv"], check=True)
    if not place.exists():
        make = [sys.executable, "-m", "virtualenv", "-q", "-p", python, str(place)]
        subprocess.run(make, env={**os.environ, "PYTHONPATH": str(tool)}, check=True)
    subprocess.run([inside, "-m", "pip", "install", "-q", "-e", f"{ROOT}[dev]"], check=True)
    return inside


if __name__ == "__main__":
    sys.exit(main())
