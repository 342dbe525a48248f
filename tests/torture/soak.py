"""Everything at once, at random: kills, freezes, restarts, rollbacks, relays that break off; then the reconciliation.

Three runners and two applications work on one database while they are killed and stopped, PostgreSQL is restarted
without a word, and the relay drops, refuses and dawdles in every phase. When enough has been sent, all that is left is
sent in peace, and the relay's journal, the applications' journals and the database are held against each other.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from outbox.store import operate
from outbox.store.database import connect
from outbox.store.migrate import apply
from tests.bench.figures import Figure, Unmeasurable, at_least
from tests.postgres_server import Server
from tests.reconcile import Journal, broken
from tests.relay import DROP, EXTENSIONS, RST, Accept, Answer, Drip, Received, Relay, Session
from tests.running import Site
from tests.torture.cruelty import Cruelty, none_of
from tests.torture.lives import Life, Zygote

TOPIC = "soak"
RUNNERS = 3
WRITERS = 2
RESTART_EVERY = 10
"""Kills between two restarts of the server."""
BACKLOG = 1500
MANY = 500
TOLD_EVERY = 15.0
"""Seconds."""
SETTINGS = {
    "run_lease": "1s",
    "run_renew": "300ms",
    "retry_floor": "20ms",
    "retry_ceiling": "1s",
    "retry_doubt_delay": "50ms",
    "retry_max_doubts": "100",
    "retry_brake_after": "0",
}
EVERYWHERE: dict[Answer, float] = {DROP: 0.004, RST: 0.002, "421 4.3.2 closing": 0.002}
LATER: dict[Answer, float] = {"451 4.3.0 later": 0.008, Drip("451 4.3.0 slowly", 0.005): 0.001}
FAULTS: dict[str, dict[Answer, float]] = {
    "banner": EVERYWHERE,
    "ehlo": EVERYWHERE,
    "mail": {**EVERYWHERE, **LATER},
    "rcpt": {**EVERYWHERE, **LATER, "550 5.1.1 no such user": 0.01},
    "data": {**EVERYWHERE, **LATER},
    "body": {DROP: 0.003, RST: 0.002, "451 4.3.0 too much": 0.002},
    "dot": {**EVERYWHERE, **LATER, Accept(DROP): 0.006, Accept(RST): 0.003, "554 5.6.0 no": 0.005},
}


class JournalRelay(Relay):
    """Keeps a journal, and no bodies; wrong in every phase, by chance, while it is `wild`."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__({stage: self._fault(faults) for stage, faults in FAULTS.items()}, extensions=EXTENSIONS)
        self.journal = Journal()
        self.wild = True
        self._dice = dice

    def __enter__(self) -> JournalRelay:
        super().__enter__()
        return self

    def accept(self, message: Received) -> None:
        self.journal.take(message)
        if len(self.sessions) > MANY:
            self.sessions = [each for each in self.sessions if each.thread.is_alive()]

    def _fault(self, faults: dict[Answer, float]) -> Callable[[Session, str], Answer]:
        choices, weights = [*faults, None], [*faults.values(), 1 - sum(faults.values())]

        def answer(session: Session, line: str) -> Answer:
            session.commands.clear()  # a session may last for as long as the soak
            session.clear.clear()
            return self._dice.choices(choices, weights)[0] if self.wild else None

        return answer


class Soak:
    """One database under torture. `goal`: how many messages and kills; `server`, where it can be restarted."""

    def __init__(self, site: Site, relay: JournalRelay, zygote: Zygote, policy: str, goal: Cruelty) -> None:
        self.site, self.relay, self.zygote, self.policy, self.goal = site, relay, zygote, policy, goal
        self.server: Server | None = None
        self.dice = random.Random(goal.seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.until, self.rest = site.folder / "enough", site.folder / "rest"
        self.runners: list[Life] = []
        self.writers: list[Life] = []
        self.frozen: dict[Life, float] = {}
        self.journals: list[Path] = []
        self.began = self.told_at = time.monotonic()
        self.counted_to = 0

    # -- the players

    def runner(self) -> Life:
        return self.zygote.runner(self.site.url, folder=self.site.folder, settings=SETTINGS)

    def writer(self) -> Life:
        number = len(self.journals)
        self.journals.append(self.site.folder / f"writer-{number}")
        argument = {
            "url": self.site.url,
            "journal": str(self.journals[-1]),
            "seed": self.goal.seed * 1000 + number,
            "policy": self.policy,
            "until": str(self.until),
            "rest": str(self.rest),
            "pause": 0.04,
        }
        return self.zygote.ask("tests.torture.writer:write", argument, self.site.folder)

    # -- what is done to them

    def run(self) -> None:
        self.runners = [self.runner() for _ in range(RUNNERS)]
        self.writers = [self.writer() for _ in range(WRITERS)]
        self.began = self.told_at = time.monotonic()
        while not self.is_enough():
            self.disturb()
            time.sleep(self.dice.uniform(0.01, 0.12))
            if time.monotonic() > self.told_at + TOLD_EVERY:
                self.tell()
        self.calm()

    def tell(self) -> None:
        """How far it is, how fast it goes, and when it will be done at that."""
        self.told_at = time.monotonic()
        took, share = self.told_at - self.began, max(1e-9, min(self.shares()))
        self.goal.say(
            f"{self.policy}: {took:.0f} s, {self.relay.journal.count:,} accepted, {dict(self.done)};"
            f" {self.done['messages'] / took:.0f} messages/s, {60 * self.done['kill -9'] / took:.0f} kills/min,"
            f" {max(0.0, took / share - took) / 60:.0f} min to go"
        )

    def shares(self) -> tuple[float, float]:
        """Of the messages, and of the kills, that are wanted."""
        return self.done["messages"] / self.goal.messages, self.done["kill -9"] / max(1, self.goal.kills)

    def is_enough(self) -> bool:
        """Enough mails and enough kills. The applications rest while there is too much to do."""
        self.count()
        waiting = self.ask("SELECT count(*) FROM outbox_delivery WHERE state = 'queued'")
        if not waiting:
            return False
        messages, kills = self.shares()
        if waiting[0][0] > BACKLOG or messages > kills + 0.1:
            self.rest.touch()
        else:
            self.rest.unlink(missing_ok=True)
        return messages >= 1 and kills >= 1

    def count(self) -> None:
        """The messages there are. Only what came since, while that is not enough: there may be 200,000."""
        for row in self.ask("SELECT count(*), max(id) FROM outbox WHERE id > ?", self.counted_to):
            self.done["messages"] += row[0]
            self.counted_to = row[1] or self.counted_to
        if self.done["messages"] >= self.goal.messages:
            for row in self.ask("SELECT count(*) FROM outbox"):
                self.done["messages"] = row[0]

    def ask(self, sql: str, *parameters: object) -> list[Any]:
        """Nothing while the server is away, or the file is locked."""
        try:
            if self.site.db.is_closed():
                self.site.db.connect()
            return self.site.query(sql, *parameters)
        except Exception:  # noqa: BLE001  # it comes back
            with suppress(Exception):
                self.site.db.close()
            return []

    def disturb(self) -> None:
        chance = self.dice.random()
        life = self.dice.choice(self.runners)
        messages, kills = self.shares()
        if life in self.frozen or not life.lives or kills > messages + 0.1:
            pass
        elif chance < 0.85:
            life.kill()
            self.done["kill -9"] += 1
            self.restart_now_and_then()
        elif chance < 0.93:
            with suppress(TimeoutError):
                life.freeze()
                self.frozen[life] = time.monotonic() + self.dice.uniform(0.3, 2)
                self.done["SIGSTOP"] += 1
        elif chance < 0.97:
            place = self.dice.randrange(WRITERS)
            self.writers[place].kill()
            self.writers[place] = self.writer()
            self.done["application killed"] += 1
        self.thaw()
        self.replace()
        self.relieve()

    def restart_now_and_then(self) -> None:
        if self.server is not None and self.done["kill -9"] % RESTART_EVERY == 0:
            self.server.restart(self.dice.uniform(0, 0.3))
            self.done["restart"] += 1

    def thaw(self, *, all_of_them: bool = False) -> None:
        for life, until in list(self.frozen.items()):
            if all_of_them or time.monotonic() > until:
                life.resume()
                del self.frozen[life]

    def replace(self) -> None:
        """The dead. One that was born while the server was away may have ended by itself; any other may not."""
        for place, life in enumerate(self.runners):
            if life.lives:
                continue
            if life.status != -9 and ("Traceback" in life.output or (" serves " in life.output)):
                self.wrong.append(f"a runner ended with status {life.status}: {life.output[-1500:]}")
            life.log.unlink(missing_ok=True)
            self.runners[place] = self.runner()

    def relieve(self) -> None:
        """Relays that rest for half a minute, and messages that were three times there when a runner was killed, would
        be the end of it.
        """
        self.ask("UPDATE outbox_account SET breaker_until = NULL, breaker_failures = 0 WHERE breaker_failures > 0")
        unlucky = "its last three attempts were lost%"
        rows = self.ask("SELECT message_id FROM outbox_delivery WHERE state = 'held' AND hold_reason LIKE ?", unlucky)
        if rows:
            with suppress(Exception):
                self.done["released"] += len(operate.release(self.site.db, [row[0] for row in rows], who="soak"))

    # -- the end

    def calm(self) -> None:
        """No faults any more, until there is nothing left to do."""
        self.until.touch()
        self.rest.unlink(missing_ok=True)
        self.thaw(all_of_them=True)
        self.relay.wild = False
        for writer in self.writers:
            writer.wait()
        deadline = time.monotonic() + 60 + self.goal.messages / 500
        while self.site.states().keys() & {"queued", "sending"}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"it does not come to rest: {self.site.states()}")
            self.replace()
            self.relieve()
            time.sleep(0.3)
        for runner in self.runners:
            runner.stop()
        for runner in self.runners:
            if runner.wait() not in (0, -15) or "Traceback" in runner.output:
                self.wrong.append(f"at the end, a runner ended with status {runner.status}: {runner.output[-1500:]}")

    def tokens(self) -> dict[str, set[str]]:
        """What the applications say of each mail: ``+`` committed, ``-`` rolled back, ``?`` nobody knows."""
        said: dict[str, str] = {}
        for path in self.journals:
            for line in path.read_text().splitlines() if path.exists() else ():
                mark, *tokens = line.split()
                said.update(dict.fromkeys(tokens, mark))
        return {mark: {token for token, each in said.items() if each == mark} for mark in "+-?"}

    def reconciled(self) -> dict[str, int]:
        """What must not be, and how often it is."""
        tokens, journal, kind = self.tokens(), self.relay.journal, self.site.url.partition(":")[0]
        ids = {token: number for number, token in self.site.query("SELECT id, token FROM outbox")}
        known = [number for token, number in ids.items() if token not in tokens["-"]]
        found = broken(
            self.site.query, journal, "sqlite" if kind == "sqlite" else "postgres", committed=known, at_rest=True
        )
        accepted = {name.partition(".")[2] for name in journal.contents}
        counts = {name: len(each) for name, each in found.items()}
        return {
            "lost": len(tokens["+"] - ids.keys()) + counts.pop("I1", 0),
            "rolled back, and sent": len(tokens["-"] & accepted) + counts.pop("I2", 0),
            "`sent` without acceptance": counts.pop("I4", 0),
            "copies beyond 1 + doubts": counts.pop("I3", 0),
            "duplicates with `hold`": counts.pop("I6", 0),
            "copies with other bytes": counts.pop("I10", 0),
            "other invariants broken": sum(counts.values()) + len(self.wrong),
        }


@contextmanager
def tortured(kind: str, policy: str, goal: Cruelty) -> Iterator[Soak]:
    """A soak that has come to its end. Raises Unmeasurable without PostgreSQL, TimeoutError."""
    folder = Path(tempfile.mkdtemp(prefix=f"soak-{kind}-", dir=goal.folder))
    folder.chmod(0o755)
    with ExitStack() as stack:
        server = stack.enter_context(Server(folder)) if kind == "postgres" else None
        url = server.fresh() if server is not None else f"sqlite:///{folder.as_posix()}/outbox.db"
        if server is None:
            with closing(connect(url)) as database:
                apply(database)
        site = stack.enter_context(closing(Site(url, folder)))
        relay = stack.enter_context(JournalRelay(random.Random(goal.seed)))
        zygote = stack.enter_context(Zygote(folder))
        site.register(relay.port, connections=4)
        soak = Soak(site, relay, zygote, policy, goal)
        soak.server = server
        soak.run()
        yield soak


def measure(cruelty: Cruelty) -> Iterator[Figure]:
    for kind in cruelty.databases:
        for policy in cruelty.policies:
            try:
                yield from _measured(cruelty, kind, policy)
            except Unmeasurable as why:
                cruelty.say(f"{kind} IS LEFT OUT: {why}")


def _measured(cruelty: Cruelty, kind: str, policy: str) -> Iterator[Figure]:
    began = time.monotonic()
    with tortured(kind, policy, cruelty) as soak:
        done, journal, place = soak.done, soak.relay.journal, f"{kind}, {policy}"
        for each in soak.wrong:
            cruelty.say(each)
        [(doubts,)] = soak.site.query("SELECT coalesce(sum(doubts), 0) FROM outbox_delivery")
        copies = sum(journal.copies.values()) - len(journal.copies)
        told = ", ".join(f"{count:,} {what}" for what, count in done.items() if what != "messages")
        note = f"{told}; {doubts} doubts, {copies} second copies; {time.monotonic() - began:.0f} s"
        yield at_least(TOPIC, f"messages, {place}", done["messages"], "", cruelty.messages, note)
        for what, count in soak.reconciled().items():
            yield none_of(TOPIC, f"{what}, {place}", count)
