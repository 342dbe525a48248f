"""A virtual environment for each peer, made once and kept beside the bench's other folders."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.figures import Bench, Unmeasurable


def environment(bench: Bench, packages: Sequence[str]) -> Path:
    """The folder of programs of one that has these packages. Raises Unmeasurable where pip cannot install them."""
    folder = bench.folder.parent / packages[0].partition("=")[0]
    programs, stamp = folder / ("Scripts" if sys.platform == "win32" else "bin"), folder / "packages"
    wanted = "\n".join([sys.version, *packages])
    if stamp.exists() and stamp.read_text() == wanted:
        return programs
    bench.say(f"installing {', '.join(packages)} into {folder} …")
    shutil.rmtree(folder, ignore_errors=True)
    make: list[str | Path] = [sys.executable, "-m", "venv", folder]
    pip: list[str | Path] = [
        programs / "python",
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        *packages,
    ]
    for command in (make, pip):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unmeasurable(f"{packages[0]} could not be installed: {done.stderr.strip()[-500:]}")
    stamp.write_text(wanted)
    return programs
