"""Mail with a past: messages that a runner has claimed, tried and settled, by the store's own verbs and `decide`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from outbox.clock import Clock
from outbox.core.account import Account, Sender, Tls
from outbox.core.message import Message, recipients_of
from outbox.core.outcome import Report, Stage
from outbox.core.reply import Reply
from outbox.core.settlement import SETTLED_FATES, Attempt, Claim, Fate, Policy, Trial, decide, fates_of, refuse
from outbox.store import Mark, accounts, operate, runners, senders
from outbox.store.database import dialect_of
from outbox.store.filters import DEFERRED, SCHEDULED, WORDS
from outbox.store.journal import Act
from outbox.store.postgres import PostgresStore
from outbox.store.rows import moment
from outbox.store.sqlite import SqliteStore

OK = Reply(250, "2.0.0", "queued as 4XYZ")
GREYLISTED = Reply(451, "4.7.1", "greylisted, try again later")
NO_SUCH_USER = Reply(550, "5.1.1", "no such user here")
SPAM = Reply(554, "5.7.1", "looks like spam")

RUNNER = "0" * 31 + "1"


class Stories:
    """Tells stories into the database at `url`, over a connection of its own."""

    def __init__(self, url: str) -> None:
        self.store = _store(url)

    def __enter__(self) -> Self:
        self.store.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.store.close()

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement with `?` for its parameters, and return its rows."""
        cursor = self.store.db.execute_sql(self.store.translate(statement), parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def register(self, address: str, account: str = "main") -> None:
        """A sender, with an account of its own."""
        act = Act("olga", self.store.now())
        with self.store.transaction():
            accounts.add_account(self.store.db, Account(account, "mx.example.net", 25, Tls.NONE), act)
            senders.add_sender(self.store.db, Sender(address, account), act)

    def mail(self, **columns: Any) -> int:
        """INSERT a message as an application does. Its id."""
        row = {"sender": "shop@example.com", "recipients": "ann@example.net", "subject": "Order 7", "text_body": "Hi"}
        row = {name: value for name, value in {**row, **columns}.items() if value is not None}
        places = ", ".join("?" for _ in row)
        statement = f"INSERT INTO outbox ({', '.join(row)}) VALUES ({places}) RETURNING id"
        return int(self.sql(statement, *row.values())[0][0])

    def states(self, *ids: int) -> list[str]:
        """The state of each of these messages."""
        sql = "SELECT state FROM outbox_delivery WHERE message_id = ?"
        return [state for message_id in ids for (state,) in self.sql(sql, message_id)]

    def attempt(
        self,
        message_id: int,
        end: Reply | None = OK,
        recipients: Sequence[Reply] = (),
        *,
        stage: Stage = Stage.DOT,
        policy: Policy | None = None,
        relay: str = "mx.example.net[192.0.2.1]:25",
    ) -> None:
        """One attempt, settled as the delivery policy says. `recipients`: the answers to the first RCPTs, the others
        are OK; `end`: the answer to the end of the data, None for silence.
        """
        claim = self.claim(message_id)
        content = self.store.content(claim)
        assert isinstance(content.message, Message)
        left = [
            each for each in recipients_of(content.message) if content.fates.get(each.position) not in SETTLED_FATES
        ]
        answers = (*recipients, *(OK,) * (len(left) - len(recipients)))
        if all(not answer.positive for answer in answers):
            stage, end = Stage.RCPT, answers[0]
        report = Report(
            stage, end, "" if end else "no reply", answers, dotted=stage is Stage.DOT, relay=relay, tls="TLSv1.3"
        )
        bounced = sum(fate is Fate.BOUNCED for fate in content.fates.values())
        attempt = Attempt(claim, fates_of(Trial(tuple(left), report)), bounced_before=bounced)
        now = self.store.now()
        decided = decide(attempt, policy or Policy(), now, 0.0)
        settlement = replace(decided, relay=relay, tls=report.tls, account="main", sha256="e3b0c442")
        with self.store.transaction():
            self.store.settle([settlement], now)

    def refused(self, message_id: int, status: str = "5.7.1", reason: str = "sender not registered") -> None:
        """It failed without having met a relay."""
        claim = self.claim(message_id)
        with self.store.transaction():
            self.store.settle([refuse(claim, Stage.POLICY, status, reason)], self.store.now())

    def crashed(self, message_id: int, *, dotted: bool = True, through: int | None = None, max_doubts: int = 3) -> None:
        """Its runner died: after the dot mark, or before."""
        claim = self.claim(message_id)
        with self.store.transaction():
            if dotted:
                assert self.store.mark([Mark(claim.message_id, claim.claim_no, through)], self.store.now()) == [True]
            self.store.reclaim_stray(claim.message_id, claim.claim_no, max_doubts, self.store.now())

    def claim(self, message_id: int) -> Claim:
        """A runner, whose lease is just over, takes it, whenever it is due, and says no more."""
        now = self.store.now()
        with self.store.transaction():
            if not self.sql("SELECT 1 FROM outbox_runner WHERE id = ?", RUNNER):
                runners.register(self.store, RUNNER, host="web1", pid=7, version="0.1.0", now=now, lease=timedelta(0))
            self.sql("UPDATE outbox_delivery SET due_at = ? WHERE message_id = ?", moment(now), message_id)
            claims = self.store.claim_one(RUNNER, message_id, now)
        assert len(claims) == 1, f"message {message_id} cannot be claimed"
        return claims[0]

    def one_of_each(self) -> dict[str, int]:
        """A message for every word by which people say where one stands."""
        told = {word: self.mail(subject=word) for word in WORDS if word != SCHEDULED}
        told[SCHEDULED] = self.mail(due_at=(self.store.now() + timedelta(hours=1)).isoformat())
        self.attempt(told["sent"], OK)
        self.attempt(told["failed"], SPAM)
        self.attempt(told["expired"], GREYLISTED, policy=Policy(max_age=timedelta(0)))
        self.attempt(told[DEFERRED], GREYLISTED)
        self.claim(told["sending"])
        operate.hold(self.store.db, [told["held"]], who="olga")
        operate.cancel(self.store.db, [told["cancelled"]], who="olga")
        return told


def _store(url: str) -> SqliteStore | PostgresStore:
    return (SqliteStore if dialect_of(url) == "sqlite" else PostgresStore)(url, Clock())
