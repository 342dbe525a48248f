"""The mistakes that would break the promise itself, by name, and who must notice each.

Most are written down here. Those that leave the fence (`claim_no`) out of a condition are derived from the source: a
new statement is among them by itself, and if none of FENCED notices that its fence is gone, a test is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.mutations import mutations
from tests.mutants.workshop import ROOT

_SETTLING = "tests/contract/test_store_settling.py"
_CLAIMING = "tests/contract/test_store_claiming.py"
_RECLAIMING = "tests/contract/test_store_reclaiming.py"
_FENCES = "tests/contract/test_fences.py"
_DECIDING = "tests/core/test_settlement.py"
_CONNECTION = "tests/smtp/test_connection.py"
_CONTENT = "tests/smtp/test_content.py"
_POOL = "tests/smtp/test_pool.py"
_DIALOGUE = "tests/smtp/test_dialogue.py"
_DELIVERY = "tests/runner/test_delivery.py"

_ORDER = "tests/runner/test_order.py"

FENCED = (f"{_FENCES}::test_a_stale_mark", _FENCES, _SETTLING, _RECLAIMING, _CLAIMING)


@dataclass(frozen=True)
class Critical:
    """In `module`, `old` becomes `new`, and one of `tests` (tests, functions or files, in this order) fails."""

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...]
    place: int = -1

    def applied(self, source: bytes) -> bytes:
        old = self.old.encode()
        place = self.place
        if place < 0:
            assert source.count(old) == 1, f"{self.name}: {self.module} has {source.count(old)} × {self.old!r}"
            place = source.index(old)
        return source[:place] + self.new.encode() + source[place + len(old) :]


def without_a_fence() -> list[Critical]:
    """The program with `claim_no` left out of one condition, for each of them."""
    found = []
    for path in sorted((ROOT / "outbox").rglob("*.py")):
        source, module = path.read_bytes(), str(path.relative_to(ROOT))
        for each in mutations(module, source) if b"claim_no" in source else ():
            if each.what.startswith("SQL") and "claim_no" in each.what and "(always)" in each.what:
                name = f"no fence: {module}:{each.line}"
                old = source[each.start : each.stop].decode()
                found.append(Critical(name, module, old, each.text, FENCED, each.start))
    return found


NAMED = (
    Critical(
        "the dot before its mark",
        "outbox/smtp/connection.py",
        "        if not self._marked:\n            self._deadline = math.inf  # it is ourselves we wait for\n"
        "            return\n",
        "",
        (f"{_CONNECTION}::test_a_small_message_is_not_begun_before_its_mark_is_committed",),
    ),
    Critical(
        "a mark that was refused is taken for given",
        "outbox/smtp/connection.py",
        "self._marked = await mark() is True",
        "self._marked = await mark() is not None",
        (
            f"{_CONNECTION}::test_without_its_mark_a_message_gets_no_dot",
            f"{_ORDER}::test_without_its_mark_no_dot_is_written",
        ),
    ),
    Critical(
        "the runner does not wait for its mark",
        "outbox/runner/sending/conversation.py",
        "marked_at = await self._clerk.mark(Mark(claim.message_id, claim.claim_no, through, fates))",
        "marked_at = self._clerk.mark(Mark(claim.message_id, claim.claim_no, through, fates))"
        " and datetime.now().astimezone()",
        (f"{_ORDER}::test_without_its_mark_no_dot_is_written",),
    ),
    Critical(
        "the runner does not look whether its mark was given",
        "outbox/runner/sending/conversation.py",
        "            if marked_at is None:\n                return False\n",
        "",
        (f"{_ORDER}::test_without_its_mark_no_dot_is_written",),
    ),
    Critical(
        "settled after QUIT",
        "outbox/runner/sending/conversation.py",
        "            if connection is not None:\n                await self._give(connection, letter)",
        "            if connection is not None:\n                await connection.close()",
        (f"{_ORDER}::test_a_settlement_does_not_wait_for_the_goodbye",),
    ),
    Critical(
        "giving back waits for QUIT",
        "outbox/smtp/pool.py",
        "        if self._is_spent(connection, connection.idle_since):\n            self._close_aside(connection)",
        "        if self._is_spent(connection, connection.idle_since):\n            await connection.close()",
        (f"{_POOL}::test_giving_back_does_not_wait_for_a_slow_goodbye",),
    ),
    Critical(
        "rows that did not match count: a set, on SQLite",
        "outbox/store/sqlite.py",
        "if matched == len(rows):",
        "if matched is not None:",
        (f"{_SETTLING}::test_a_batch_is_settled_each_by_its_own_fence",),
    ),
    Critical(
        "rows that did not match count: one, on SQLite",
        "outbox/store/statements.py",
        "return [cursor.execute(statement, row).fetchone() is not None for row in rows]",
        "return [cursor.execute(statement, row).fetchone() is not cursor for row in rows]",
        (f"{_SETTLING}::test_a_settlement_is_fenced_by_the_claim_number",),
    ),
    Critical(
        "rows that did not match count: a settlement, on PostgreSQL",
        "outbox/store/postgres.py",
        "matched = [False] * len(rows)",
        "matched = [True] * len(rows)",
        (f"{_SETTLING}::test_a_settlement_is_fenced_by_the_claim_number[postgres]",),
    ),
    Critical(
        "rows that did not match count: a mark, on PostgreSQL",
        "outbox/store/postgres.py",
        "return [each.message_id in marked for each in marks]",
        "return [True for each in marks]",
        (f"{_RECLAIMING}::test_after_the_claim_is_lost_a_mark_is_refused[postgres]",),
    ),
    Critical(
        "what was not written is recorded as if it were",
        "outbox/store/queue.py",
        "written = [each for each, ok in zip(settlements, matched, strict=True) if ok]",
        "written = list(settlements)",
        (f"{_FENCES}::test_a_stale_settlement",),
    ),
    Critical(
        "what was not written is called written",
        "outbox/store/queue.py",
        "return [Settled.WRITTEN if ok else self._settle_late(each, now) for each, ok in pairs]",
        "return [Settled.WRITTEN for each, ok in pairs]",
        (f"{_SETTLING}::test_a_settlement_is_fenced_by_the_claim_number", _RECLAIMING),
    ),
    Critical(
        "an operator's verb does not count its rows",
        "outbox/store/changes.py",
        "if changed != len(rows):",
        "if changed > len(rows):",
        (f"{_FENCES}::test_an_operator_changes_all_of_the_rows_or_none",),
    ),
    Critical(
        "a claim takes what is being sent, on SQLite",
        "outbox/store/sqlite.py",
        "WHERE state = 'queued' AND message_id IN (SELECT message_id FROM outbox_delivery\n"
        "  WHERE state = 'queued' AND sender",
        "WHERE state IN ('queued', 'sending') AND message_id IN (SELECT message_id FROM outbox_delivery\n"
        "  WHERE state IN ('queued', 'sending') AND sender",
        (f"{_CLAIMING}::test_a_claim_is_exclusive[sqlite]",),
    ),
    Critical(
        "a runner that was declared dead claims, on SQLite",
        "outbox/store/queue.py",
        '        if not self._all("SELECT 1 FROM outbox_runner WHERE id = ? AND dead_at IS NULL", (runner,)):',
        "        if not runner:",
        (f"{_CLAIMING}::test_a_runner_that_was_declared_dead_claims_nothing[sqlite]",),
    ),
    Critical(
        "a runner that was declared dead claims, on PostgreSQL",
        "outbox/store/postgres.py",
        "WHERE EXISTS (SELECT FROM outbox_runner WHERE id = %s AND dead_at IS NULL)\n)",
        "WHERE EXISTS (SELECT FROM outbox_runner WHERE id = %s)\n)",
        (f"{_CLAIMING}::test_a_runner_that_was_declared_dead_claims_nothing[postgres]",),
    ),
    Critical(
        "a dead runner renews its lease",
        "outbox/store/runners.py",
        "query = Runner.update(lease_until=now + lease).where(Runner.id == runner, Runner.dead_at.is_null())",
        "query = Runner.update(lease_until=now + lease).where(Runner.id == runner)",
        (f"{_SETTLING}::test_a_lease_is_renewed_until_somebody_declares_the_runner_dead",),
    ),
    Critical(
        "a claim is taken from a runner that lives",
        "outbox/store/reclaim.py",
        "lease_owner IN (SELECT id FROM outbox_runner WHERE dead_at IS NOT NULL)\n"
        "AND message_id IN (SELECT d.message_id FROM outbox_delivery d JOIN outbox_runner r ON r.id = d.lease_owner\n"
        "  WHERE d.state = 'sending' AND r.dead_at IS NOT NULL LIMIT ? {skip})",
        "message_id IN (SELECT d.message_id FROM outbox_delivery d WHERE d.state = 'sending' LIMIT ? {skip})",
        (f"{_RECLAIMING}::test_what_a_living_runner_sends_is_left_to_it",),
    ),
    Critical(
        "a claim that reached its dot is sent again without a doubt",
        "outbox/store/reclaim.py",
        "doubts = doubts + CASE WHEN dot_at IS NOT NULL THEN 1 ELSE 0 END",
        "doubts = doubts",
        (_RECLAIMING,),
    ),
    Critical(
        "a lost claim that reached its dot is not held",
        "outbox/store/reclaim.py",
        "state = CASE WHEN dot_at IS NOT NULL AND (on_doubt = 'hold' OR doubts >= ?) THEN 'held'",
        "state = CASE WHEN dot_at IS NULL AND (on_doubt = 'hold' OR doubts >= ?) THEN 'held'",
        (f"{_RECLAIMING}::test_a_doubt_holds_a_message_that_says_so",),
    ),
    Critical(
        "a doubt is not held",
        "outbox/core/settlement.py",
        'return on_doubt == "hold" or doubts >= max_doubts',
        "return doubts >= max_doubts",
        (f"{_DECIDING}::test_a_doubt_holds_a_message_that_says_so",),
    ),
    Critical(
        "silence after the dot is no doubt",
        "outbox/smtp/transaction.py",
        "        self.dotted = True\n",
        "",
        (_DIALOGUE, "tests/runner/test_doubt.py"),
    ),
    Critical(
        "a late acceptance is forgotten",
        "outbox/store/queue.py",
        "        if accepted:\n",
        "        if not settlement:\n",
        (f"{_RECLAIMING}::test_a_late_acceptance_settles_a_message_that_nobody_has_claimed_since",),
    ),
    Critical(
        "who has it gets it again",
        "outbox/runner/sending/delivery.py",
        "not in SETTLED_FATES)",
        "is not Fate.BOUNCED)",
        (f"{_DELIVERY}::test_only_what_is_pending_is_tried_again[sqlite]",),
    ),
    Critical(
        "dots are not doubled",
        "outbox/smtp/transaction.py",
        r'piece = content[:stop].replace(b"\r\n.", b"\r\n..")',
        "piece = content[:stop]",
        (_CONTENT,),
    ),
    Critical(
        "a bare LF is sent",
        "outbox/smtp/transaction.py",
        "        if flaw:\n",
        "        if not flaw and flaw:\n",
        (_CONTENT, _DIALOGUE),
    ),
    Critical(
        "a COMMIT that rolled back counts, on PostgreSQL",
        "outbox/store/postgres.py",
        'raise TransientError("the transaction was rolled back")',
        "pass",
        (f"{_FENCES}::test_a_commit_that_rolled_back_is_none[postgres]",),
    ),
)


def critical() -> list[Critical]:
    return [*NAMED, *without_a_fence()]
