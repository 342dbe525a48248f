"""sendmail's command line, word by word."""

from __future__ import annotations

import pytest

from outbox.doors.sendmail.options import Options, Task, Usage, parse

TAKEN: list[tuple[list[str], Options]] = [
    (["ann@example.net"], Options(recipients=["ann@example.net"])),
    (["-t"], Options(from_header=True)),
    (["-ti"], Options(from_header=True, dot_ends=False)),
    (["-t", "-i", "-fshop@example.com"], Options(from_header=True, dot_ends=False, sender="shop@example.com")),
    (["-tif", "shop@example.com"], Options(from_header=True, dot_ends=False, sender="shop@example.com")),
    (["-f", "<shop@example.com>", "ann"], Options(sender="shop@example.com", recipients=["ann"])),
    (["-r", "shop", "ann"], Options(sender="shop", recipients=["ann"])),
    (["-f", "", "ann"], Options(sender="", recipients=["ann"])),
    (["-f<>", "ann"], Options(sender="", recipients=["ann"])),
    (["-F", "The Shop", "ann"], Options(full_name="The Shop", recipients=["ann"])),
    (["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"],  # Debian's cron
     Options(full_name="CronDaemon", dot_ends=False, recipients=["root"])),
    (["-oi", "-t"], Options(from_header=True, dot_ends=False)),
    (["-o", "i", "ann"], Options(dot_ends=False, recipients=["ann"])),
    (["-odb", "-oem", "-om", "-o7", "-o8", "ann"], Options(recipients=["ann"])),
    (["-em", "-e", "q", "-m", "-n", "-G", "-U", "ann"], Options(recipients=["ann"])),
    (["-Am", "-A", "c", "-h", "3", "-L", "tag", "-p", "smtp", "-d0-99.1", "-d", "ann"], Options(recipients=["ann"])),
    (["-N", "never", "ann"], Options(dsn_notify="never", recipients=["ann"])),
    (["-NSUCCESS,failure,success", "ann"], Options(dsn_notify="success,failure", recipients=["ann"])),
    (["-R", "HDRS", "-V", "order-7", "ann"], Options(dsn_ret="hdrs", dsn_envid="order-7", recipients=["ann"])),
    (["-O", "smtputf8=yes", "-O", "requiretls=no", "ann"], Options(recipients=["ann"])),
    (["-v", "-bm", "ann"], Options(verbose=True, recipients=["ann"])),
    (["-t", "--", "-f@example.net", "-v"], Options(from_header=True, recipients=["-f@example.net", "-v"])),
    (["ann", "-i", "bo"], Options(dot_ends=False, recipients=["ann", "bo"])),
    (["-bp"], Options(task=Task.QUEUE)),
    (["-bs"], Options(task=Task.SERVE)),
    (["-b", "s"], Options(task=Task.SERVE)),
    (["-bi"], Options(task=Task.NOTHING)),
    (["-I"], Options(task=Task.NOTHING)),
    (["-q"], Options(task=Task.FLUSH)),
    (["-qI7"], Options(task=Task.FLUSH, flush=("I", "7"))),
    (["-qR", "example.net"], Options(task=Task.FLUSH, flush=("R", "example.net"))),
    (["-qSshop"], Options(task=Task.FLUSH, flush=("S", "shop"))),
    (["-q30m", "-t"], Options(from_header=True)),
]  # fmt: skip

REFUSED = [
    ["-bd"], ["-bl"], ["-bv"], ["-bh"], ["-bH"], ["-be"], ["-b"], ["-Z"], ["-tZ"], ["--help"],
    ["-f"], ["-f", "a b@example.com"], ["-f", "a@example.com\nBcc: b@example.net"], ["-F", "A\nBcc: b@example.net"],
    ["-N", ""], ["-N", "never,delay"], ["-N", "always"], ["-R", "some"], ["-V", "x" * 101], ["-V", "a b"],
    ["-B", "BINARYMIME"], ["-X", "/tmp/log"], ["-X/tmp/log"], ["-C", "/tmp/sendmail.cf"], ["-tC/tmp/sendmail.cf"],
    ["-oQ/tmp"], ["-o", "Q/tmp"], ["-OQueueDirectory=/tmp"], ["-O", "aliasfile=/tmp/a"], ["-O", "PidFile=/tmp/p"],
    ["-qX"], ["-qI", "seven"], ["-qI"], ["-qIé"], ["", "-t"],
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "meant"), TAKEN, ids=lambda each: " ".join(each) if type(each) is list else "")
def test_a_command_line_is_read_as_other_sendmails_read_it(arguments: list[str], meant: Options) -> None:
    assert parse("sendmail", arguments) == meant


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda each: " ".join(each)[:30])
def test_what_is_unknown_or_names_a_file_is_refused(arguments: list[str]) -> None:
    with pytest.raises(Usage):
        parse("sendmail", [*arguments, "ann@example.net"] if arguments != ["-f"] and len(arguments) > 1 else arguments)


@pytest.mark.parametrize(
    ("program", "task"), [("mailq", Task.QUEUE), ("newaliases", Task.NOTHING), ("outbox-sendmail", Task.SEND)]
)
def test_a_name_it_is_called_by_means_a_task(program: str, task: Task) -> None:
    assert parse(program, []).task is task
