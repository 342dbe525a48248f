"""The protocol with one precaution left out, each a fault that somebody could make one day. All of them must be found.

Nothing of the production code is changed: a variant edits the text of a statement on its way to SQLite, or is another
runner.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from outbox.store.sqlite import SqliteStore
from tests.model.protocol import NOW, Protocol, Step, World
from tests.model.reading import Database

_FENCE = re.compile(r"AND claim_no = \?")


class _Editing:
    """A cursor that edits what it executes. Everything else is the cursor's."""

    def __init__(self, cursor: Any, edit: Callable[[str], str]) -> None:
        self._cursor, self._edit = cursor, edit

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return self._cursor.execute(self._edit(sql), parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class _Edited(SqliteStore):
    """A store whose statements are edited."""

    def edit(self, sql: str) -> str:
        raise NotImplementedError

    def _cursor(self) -> Any:
        return _Editing(super()._cursor(), self.edit)


def _is_update_of_a_delivery(sql: str) -> bool:
    return sql.lstrip().startswith("UPDATE outbox_delivery")


class UnfencedMark(_Edited):
    """The dot mark is granted to whoever asks, if only the message is being sent."""

    def edit(self, sql: str) -> str:
        mark = _is_update_of_a_delivery(sql) and "SET dot_at = ?" in sql
        return _FENCE.sub("AND (claim_no = ? OR TRUE)", sql) if mark else sql


class UnfencedSettlement(_Edited):
    """A settlement is written by whoever comes, if only the message is being sent."""

    def edit(self, sql: str) -> str:
        settling = _is_update_of_a_delivery(sql) and "AND state = 'sending'" in sql and "SET dot_at" not in sql
        return _FENCE.sub("AND (claim_no = ? OR TRUE)", sql) if settling else sql


class UnfencedLateAcceptance(_Edited):
    """A late acceptance settles the message whoever has claimed it since."""

    def edit(self, sql: str) -> str:
        late = _is_update_of_a_delivery(sql) and "claim_no = claim_no + 1, state = COALESCE" in sql
        return (
            sql.replace("AND state IN ('queued', 'held')", "").replace("claim_no = ?", "claim_no >= ?") if late else sql
        )


class BlindReclaim(_Edited):
    """The reclaim does not look whether a dot may have been written."""

    def edit(self, sql: str) -> str:
        reclaiming = _is_update_of_a_delivery(sql) and "crashes = crashes + 1" in sql
        return sql.replace("dot_at IS NOT NULL", "FALSE") if reclaiming else sql


class ForgetfulClaim(_Edited):
    """The claim does not count: the number that fences stays what it was."""

    def edit(self, sql: str) -> str:
        return sql.replace("claim_no = claim_no + 1, lease_owner = ?", "lease_owner = ?")


class HeedlessRunner(Protocol):
    """It writes its dot although the mark was refused."""

    heeds_marks = False


class HastyRunner(Protocol):
    """It writes its dot first, and then the mark: as good as none for whoever dies in between."""

    dots_without_mark = True


class ReadThenWrite(Protocol):
    """The reclaim reads what the dead had in one transaction, and writes what is to become of it in another."""

    def _reclaims_of(self, world: World, database: Database, which: int, who: str) -> Iterator[Step]:
        if seen := world.processes[which].seen:
            yield Step(f"{who} reclaims what it has read", lambda: self._write(world, which, seen))
        elif any(each.owner in database.dead for each in database.deliveries):
            yield Step(f"{who} reads what the dead have", lambda: self._read(world, database, which), writes=False)

    def _read(self, world: World, database: Database, which: int) -> World:
        seen = tuple(
            (each.message_id, each.claim_no, each.dotted) for each in database.deliveries if each.owner in database.dead
        )
        return self._remember(world, which, seen)

    def _write(self, world: World, which: int, seen: tuple[Any, ...]) -> World:
        at = NOW.isoformat(timespec="milliseconds")[:23] + "Z"
        run = self.store.db.connection().execute
        for message_id, claim_no, dotted in seen:
            run(
                "UPDATE outbox_delivery SET state = CASE WHEN ? AND on_doubt = 'hold' THEN 'held' ELSE 'queued' END,"
                " hold_reason = CASE WHEN ? AND on_doubt = 'hold' THEN 'in doubt' END, doubts = doubts + ?,"
                " crashes = crashes + 1, lease_owner = NULL WHERE message_id = ?",
                (dotted, dotted, dotted, message_id),
            )
            run(
                "UPDATE outbox_attempt SET ended_at = ?, outcome = ? WHERE message_id = ? AND claim_no = ?",
                (at, "doubt" if dotted else "lost", message_id, claim_no),
            )
            if dotted:
                run(
                    "INSERT INTO outbox_event (at, kind, message_id, claim_no) VALUES (?, 'doubt', ?, ?)",
                    (at, message_id, claim_no),
                )
        return self._remember(world, which, ())

    @staticmethod
    def _remember(world: World, which: int, seen: tuple[Any, ...]) -> World:
        processes = list(world.processes)
        processes[which] = processes[which]._replace(seen=seen)
        return world._replace(processes=(processes[0], processes[1]))


VARIANTS: dict[str, tuple[type[SqliteStore], type[Protocol]]] = {
    "no fence at the dot mark": (UnfencedMark, Protocol),
    "no fence at the settlement": (UnfencedSettlement, Protocol),
    "no fence at a late acceptance": (UnfencedLateAcceptance, Protocol),
    "the claim number is not counted": (ForgetfulClaim, Protocol),
    "the reclaim does not look at the dot mark": (BlindReclaim, Protocol),
    "the dot is written although its mark was refused": (SqliteStore, HeedlessRunner),
    "the dot is written without its mark": (SqliteStore, HastyRunner),
    "the reclaim reads, and then writes": (SqliteStore, ReadThenWrite),
}
"""What is left out, and how."""
