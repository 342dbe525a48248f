"""Programs that have called sendmail for decades call ours."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.doors.programs import SHOP, Command
from tests.doors.programs import command as command
from tests.doors.programs import make_command as make_command


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"A REAL CALLER IS NOT TESTED: {name.upper()} IS NOT INSTALLED (apt install {package})")
    return found


def call(command: Command, *words: str, stdin: bytes = b"", **more: str) -> subprocess.CompletedProcess[bytes]:
    home = command.site.folder
    env = {**command.env, "HOME": str(home), "EMAIL": SHOP, **more}
    return subprocess.run(words, input=stdin, capture_output=True, env=env, cwd=home, timeout=60)


def the_row(command: Command) -> tuple[Any, ...]:
    (row,) = command.rows("sender, recipients, raw")
    return row[0], row[1], bytes(row[2])


def test_php_mail(command: Command) -> None:
    headers = r'"From: shop@example.com\r\nBcc: bo@example.net"'
    script = rf'exit(mail("ann@example.net", "Größe", "Thanks\n.\nmore", {headers}) ? 0 : 1);'
    done = call(command, program("php", "php-cli"), "-d", f"sendmail_path={command.path} -t -i", "-r", script)

    assert done.returncode == 0, done
    sender, recipients, raw = the_row(command)
    assert (sender, recipients) == (SHOP, "ann@example.net, bo@example.net")
    assert raw.endswith(b"\r\n\r\nThanks\r\n.\r\nmore\r\n")
    assert b"bo@example.net" not in raw


def test_php_is_told_of_a_refusal(command: Command) -> None:
    script = 'exit(@mail("ann@example.net", "x", "y", "From: eve@example.org") ? 0 : 1);'
    done = call(command, program("php", "php-cli"), "-d", f"sendmail_path={command.path} -t -i", "-r", script)

    assert done.returncode == 1
    assert command.rows() == []


def test_bsd_mailx(command: Command) -> None:
    mailx = program("bsd-mailx", "bsd-mailx")
    done = call(
        command, mailx, "-s", "Order 7", "-r", SHOP, "ann@example.net", stdin=b"Thanks\n",
        MAILRC=_rc(command, f'set sendmail="{command.path}"\n'),
    )  # fmt: skip

    assert done.returncode == 0, done
    sender, recipients, raw = the_row(command)
    assert (sender, recipients) == (SHOP, "ann@example.net")
    assert b"\r\nSubject: Order 7\r\n" in raw


def test_s_nail(command: Command) -> None:
    nail = program("s-nail", "s-nail")
    words = ["-:/", "-Sv15-compat", f"-Smta={command.path}", "-Ssendwait", "-s", "Order 7", "-r", SHOP]
    done = call(command, nail, *words, "ann@example.net", stdin=b"Thanks\n")

    assert done.returncode == 0, done
    assert the_row(command)[:2] == (SHOP, "ann@example.net")


def test_mutt(command: Command) -> None:
    mutt = program("mutt", "mutt")
    rc = f'set sendmail="{command.path} -oem -oi"\nset from={SHOP}\nset use_envelope_from=yes\nset copy=no\n'
    words = ["-F", _rc(command, rc), "-s", "Order 7", "-c", "bo@example.net", "--", "ann@example.net"]
    done = call(command, mutt, *words, stdin=b"Thanks\n")

    assert done.returncode == 0, done
    assert the_row(command)[:2] == (SHOP, "ann@example.net, bo@example.net")


def test_git_send_email(command: Command) -> None:
    git = program("git", "git")
    if not Path(subprocess.check_output([git, "--exec-path"], text=True).strip(), "git-send-email").exists():
        pytest.skip(
            "A REAL CALLER IS NOT TESTED: GIT SEND-EMAIL IS NOT INSTALLED (apt install git-email libmailtools-perl)"
        )
    patch = command.site.folder / "0001-x.patch"
    patch.write_text(f"From 0 Mon Sep 17 00:00:00 2001\nFrom: The Shop <{SHOP}>\nSubject: [PATCH] x\n\ny\n---\n")
    words = ["send-email", f"--sendmail-cmd={command.path}", f"--from={SHOP}", f"--envelope-sender={SHOP}"]
    words += ["--to=ann@example.net", "--cc=bo@example.net", "--suppress-cc=all", "--confirm=never", "--quiet"]
    shop = {f"GIT_{role}_{what}": SHOP for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = call(command, git, *words, str(patch), stdin=b"", GIT_CONFIG_NOSYSTEM="1", **shop)

    assert done.returncode == 0, done
    assert the_row(command)[:2] == (SHOP, "ann@example.net, bo@example.net")


def test_python_speaks_smtp_with_it(command: Command) -> None:
    """As programs do that are set to ``sendmail -bs``."""
    with subprocess.Popen(
        [str(command.path), "-bs"], env=command.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        client = smtplib.SMTP()
        client.file = process.stdout
        client.sock = _Pipe(process.stdin)  # type: ignore[assignment]
        assert client.getreply()[0] == 220
        message = f"From: {SHOP}\r\nTo: ann@example.net\r\nSubject: Order 7\r\n\r\nThanks\r\n.\r\n"
        refused = client.sendmail(SHOP, ["ann@example.net"], message, rcpt_options=["NOTIFY=NEVER"])
        client.quit()
        assert process.wait(20) == 0

    assert refused == {}
    assert the_row(command)[2].endswith(b"\r\n\r\nThanks\r\n.\r\n")


class _Pipe:
    """A pipe as smtplib wants a socket."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def sendall(self, octets: bytes) -> None:
        self._pipe.write(octets)
        self._pipe.flush()

    def close(self) -> None:
        self._pipe.close()


def _rc(command: Command, text: str) -> str:
    path = command.site.folder / "rc"
    path.write_text(text, encoding="utf-8")
    return str(path)
