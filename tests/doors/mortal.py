"""A scanner of pickup folders that dies as it is told: `python -m tests.doors.mortal URL FOLDER… POINT:NTH…`.

Each POINT:NTH is one life, a process of its own: when it comes to that point for the Nth time, it kills itself (kill
-9). The last life has no such point, and goes on until nothing is left to do. Prints a line for each life.

    taken     the file has been renamed into .work      moving   it is about to be moved to sentmail or badmail
    read      its content is in memory                  moved    it has been, and the database does not know
    entered   its rows are inserted, before the COMMIT  copied   on another volume: the copy is complete
    committed                                           removed  … and the file is gone, and the copy has no name yet
    told      its reason is written                     done     the database knows
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import peewee

from outbox.clock import Clock
from outbox.core.pickup import Folder
from outbox.doors.pickup import archive, intake, ledger
from outbox.doors.pickup.ledger import Ledger, Verb
from outbox.store.database import connect

POINTS = ("taken", "read", "entered", "committed", "told", "moving", "moved", "copied", "removed", "done")


class Direct:
    def __init__(self, db: peewee.Database) -> None:
        self.db = db

    def write(self, verb: Verb[Any]) -> Any:
        with self.db.atomic():
            return verb(self.db, Clock().now())

    def read(self, verb: Callable[[peewee.Database], Any]) -> Any:
        return verb(self.db)


class Fate:
    """Counts how often a point is reached, and kills at the one that was agreed on."""

    def __init__(self, point: str, left: int) -> None:
        self.point, self.left = point, left

    def reached(self, point: str) -> None:
        if point == self.point:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: Any, name: str, *, before: str = "", after: str = "") -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            if before != "removed" or str(args[0]).endswith(".part"):
                self.reached(before)
            result = real(*args, **options)
            self.reached(after)
            return result

        setattr(owner, name, wrapped)

    def wrap(self) -> None:
        self.around(intake, "take", after="taken")
        self.around(intake, "read", after="read")
        self.around(ledger, "_enter", after="entered")
        self.around(Ledger, "enter", after="committed")
        self.around(intake, "explain", after="told")
        self.around(intake, "place", before="moving", after="moved")
        self.around(archive, "_copy_over", after="copied")
        self.around(archive, "_renamed", before="removed")
        self.around(Ledger, "done", after="done")


def scan_all(url: str, folder: Folder) -> int:
    """Until nothing is left to do. How many files were taken."""
    with closing(connect(url)) as db:
        scanner = intake.Intake(folder, Ledger(Direct(db)), Clock())
        taken = 0
        while True:
            tally = scanner.scan()
            if tally.trouble is not None:
                raise tally.trouble
            taken += tally.taken
            if not (tally.taken or tally.refused or tally.archived):
                return taken


def live(url: str, folder: Folder, point: str, nth: int) -> int:
    """One life, in a process of its own. Its exit status, as `waitpid` has it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        Fate(point, nth).wrap()
        scan_all(url, folder)
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)


def main() -> None:
    url, names, *plan = sys.argv[1:]
    paths = json.loads(names)
    folder = Folder("in", paths["drop"], paths["bad"], paths["sent"], settle=timedelta(0))
    for each in [*plan, "never:1"]:
        point, _, nth = each.partition(":")
        status = live(url, folder, point, int(nth))
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(each, "killed" if killed else f"ended {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    if not Path(json.loads(sys.argv[2])["drop"]).is_dir():
        raise SystemExit("no such folder")
    main()
