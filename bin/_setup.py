"""Makes .venv and installs this checkout into it: `python bin/_setup.py all|dev`. Standard library only.

Called by the commands of this folder (`_ready.sh`, `_ready.cmd`). Does nothing when the stamp of that extra still
holds. Says one line when it starts to install, and what pip said only when that fails. Exit status 0: .venv is ready.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOG = VENV / "outbox-install.log"
EXTRAS = ("all", "dev")  # each contains the ones before it


class SetupError(Exception):
    """The installation cannot be made. The text says why and what to do, one line each."""


def say(text: str) -> None:
    """Print `text` on stderr, every line marked as ours."""
    for line in text.splitlines():
        print("outbox:", line, file=sys.stderr, flush=True)


def stamp(extra: str) -> Path:
    """The file that says what `extra` was installed from."""
    return VENV / f"outbox-{extra}.stamp"


def wanted() -> bytes:
    """What a stamp must hold. `_ready.sh` builds the same text."""
    return os.fsencode(ROOT) + b"\n" + (ROOT / "pyproject.toml").read_bytes()


def is_ready(extra: str) -> bool:
    """Whether .venv holds this checkout with `extra`."""
    return PYTHON.exists() and stamp(extra).exists() and stamp(extra).read_bytes() == wanted()


def lock(file: IO[str]) -> None:
    """Wait until no other process installs here. The system drops the lock when its holder dies, however it dies."""
    waiting = "another process is installing into .venv; waiting for it …"
    if sys.platform == "win32":
        import msvcrt

        while True:  # LK_LOCK gives up with an error after ten seconds
            with contextlib.suppress(OSError):
                return msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            say(waiting)
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)


def works(python: Path, imports: str) -> bool:
    """Whether `python` runs, is new enough and can import `imports`."""
    code = f"import sys, {imports}; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-I", "-c", code], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make_venv() -> None:
    """Make .venv, unless the one that is there works; replace one that does not.

    Raises: SetupError where this Python cannot make one.
    """
    if works(PYTHON, "pip"):
        return
    # Below /usr/bin/python3 the version may change with the next upgrade of the system, under the venv's feet.
    # Its full name at least vanishes then, which is noticed.
    base = Path(os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable))
    if not works(base, "ensurepip, venv"):
        version = "{}.{}".format(*sys.version_info)
        raise SetupError(
            f"{base} (Python {version}) has no venv and ensurepip, which make .venv.\n"
            f"On Debian and Ubuntu: sudo apt install python{version}-venv (or python3-venv); elsewhere, install a"
            " complete Python."
        )
    run([base, "-I", "-m", "venv", "--clear", VENV], "Cannot make .venv.")


def run(command: "list[str | Path]", failure: str) -> None:
    """Run one step with its output put into the log.

    Raises: SetupError with `failure` and the last lines of the output.
    """
    environment = dict(os.environ, PIP_USER="0")  # "user = true" in pip's settings is refused inside a venv
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with contextlib.suppress(OSError):
        LOG.write_bytes(done.stdout)
    if done.returncode != 0:
        last = done.stdout.decode(errors="replace").splitlines()[-20:]
        raise SetupError("\n".join([failure, *("  | " + line for line in last), f"All of the output: {LOG}"]))


def install(extra: str) -> None:
    """Bring .venv to the state that `extra` asks for.

    Raises: SetupError, OSError.
    """
    if stamp(extra).exists():
        say("pyproject.toml has changed (or this folder has moved), updating .venv …")
    elif any(stamp(other).exists() for other in EXTRAS):
        say(f"installing what [{extra}] adds into .venv …")
    else:
        say("first run, installing into .venv (about 20 s) …")
    stamp(extra).unlink(missing_ok=True)
    make_venv()
    run(
        [PYTHON, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "-e", f".[{extra}]"],
        f"pip could not install .[{extra}]. It needs a package index, or a proxy to one: pip's own settings apply.",
    )
    for contained in EXTRAS[: EXTRAS.index(extra) + 1]:
        written = stamp(contained).with_suffix(".new")
        written.write_bytes(wanted())
        written.replace(stamp(contained))


def main(extra: str) -> int:
    """Make .venv ready for `extra`; the exit status."""
    if is_ready(extra):
        return 0
    try:
        with open(ROOT / ".venv.lock", "w", encoding="utf-8") as file:
            lock(file)
            if not is_ready(extra):  # whoever held the lock may have done it
                install(extra)
    except SetupError as why:
        say(f"{why}\nThen run the same command again.")
    except OSError as why:
        say(f"cannot install into {VENV}: {why}")
    except KeyboardInterrupt:
        say("interrupted; the same command, run again, finishes the installation")
        return 130
    else:
        return 0
    return 1


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 -- whatever Python a user has is what runs this line
        say("Python 3.11 or newer is needed; this is {}.{}.{}, {}".format(*sys.version_info[:3], sys.executable))
        sys.exit(1)
    sys.exit(main(sys.argv[1]))
