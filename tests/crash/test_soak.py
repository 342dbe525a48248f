"""Everything at once: runners killed and frozen, relays that break off, applications that roll back.

What happens is chance, what must hold is not. OUTBOX_TEST_SOAK is how many seconds it takes, each time (2), and
OUTBOX_TEST_SEED what the dice begin with.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.relay import DROP, RST, Accept, Answer, Relay, Session
from tests.running import Runner, Site, eventually

SECONDS = float(os.environ.get("OUTBOX_TEST_SOAK", "2"))
SEED = int(os.environ.get("OUTBOX_TEST_SEED", "1"))
SETTINGS = {
    "run_lease": "1s",
    "run_renew": "300ms",
    "retry_floor": "20ms",
    "retry_doubt_delay": "50ms",
    "retry_max_doubts": "100",
}
RUNNERS = 3

BEFORE_THE_DOT: dict[Answer, float] = {DROP: 0.01, RST: 0.01, "451 4.3.0 later": 0.02, "421 4.3.2 closing": 0.005}
AT_THE_DOT: dict[Answer, float] = {DROP: 0.01, Accept(DROP): 0.01, Accept(RST): 0.01, "451 4.3.0 later": 0.01}


class Chaos:
    """Three runners at a relay with faults, and what is done to them."""

    def __init__(self, site: Site, relay: Relay, stack: ExitStack, dice: random.Random, on_doubt: str) -> None:
        self.site, self.relay, self.stack, self.dice, self.on_doubt = site, relay, stack, dice, on_doubt
        self.runners = [self.start() for _ in range(RUNNERS)]
        self.frozen: dict[int, float] = {}
        self.committed: set[int] = set()
        self.done: Counter[str] = Counter()

    def start(self) -> Runner:
        return self.stack.enter_context(self.site.run("-q", **SETTINGS))

    def insert(self) -> None:
        with self.site.db.atomic() as transaction:
            numbers = self.site.insert(self.dice.randrange(1, 10), on_doubt=self.on_doubt)
            if self.dice.random() < 0.25:
                transaction.rollback()
            else:
                self.committed.update(numbers)

    def disturb(self) -> None:
        place, chance = self.dice.randrange(RUNNERS), self.dice.random()
        runner = self.runners[place]
        if place not in self.frozen and runner.process.poll() is None:
            if chance < 0.15:
                runner.kill()
                self.done["kill"] += 1
            elif chance < 0.2:
                self.site.freeze(runner)
                self.frozen[place] = time.monotonic() + self.dice.uniform(0.5, 2)
                self.done["freeze"] += 1
        for place, until in list(self.frozen.items()):
            if time.monotonic() > until:
                self.runners[place].resume()
                del self.frozen[place]
        for place, runner in enumerate(self.runners):
            if runner.process.poll() is not None:
                assert runner.process.returncode == -9, runner.output
                self.runners[place] = self.start()
        # Relays that rest for half a minute would be the end of it.
        self.site.query("UPDATE outbox_account SET breaker_until = NULL, breaker_failures = 0")

    def calm(self) -> None:
        """No faults any more, until there is nothing left to do."""
        for place in self.frozen:
            self.runners[place].resume()
        self.relay.script.clear()
        self.site.query("UPDATE outbox_account SET breaker_until = NULL, breaker_failures = 0")
        unlucky = "UPDATE outbox_delivery SET state = 'queued', hold_reason = NULL, crashes = 0"
        unlucky += " WHERE state = 'held' AND hold_reason LIKE ?"

        def at_rest() -> bool:
            self.site.query(unlucky, "its last three attempts were lost%")
            return not self.site.states().keys() & {"queued", "sending"}

        eventually(at_rest, "nothing is left to do", 30)
        for runner in self.runners:
            runner.stop()
        for runner in self.runners:
            assert runner.wait() in (0, -15)  # one that had just been started may not have heard
            assert "Traceback" not in runner.output


@pytest.mark.parametrize("on_doubt", ["retry", "hold"])
def test_nothing_is_lost_and_every_copy_is_announced_whatever_happens(site: Site, on_doubt: str) -> None:
    dice, faults = random.Random(SEED), random.Random(SEED)

    def fault(choices: dict[Answer, float]) -> object:
        def answer(session: Session, line: str) -> Answer:
            return faults.choices([*choices, None], [*choices.values(), 1 - sum(choices.values())])[0]

        return answer

    script = {stage: fault(BEFORE_THE_DOT) for stage in ("mail", "rcpt", "data")} | {"dot": fault(AT_THE_DOT)}
    with Relay(script) as relay, ExitStack() as stack:
        site.register(relay.port, connections=4)
        chaos = Chaos(site, relay, stack, dice, on_doubt)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            chaos.insert()
            chaos.disturb()
            relay.closing.wait(dice.uniform(0, 0.1))
        chaos.calm()
        attempts = site.attempts()
        print(f"{dict(chaos.done)}, {site.states()}, {dict(attempts)}, {len(relay.messages)} accepted")
        assert {row[0] for row in site.query("SELECT id FROM outbox")} == chaos.committed
        assert site.states().keys() <= {"sent", "held"}
        copies = Counter(message.message_id for message in relay.messages)
        if on_doubt == "hold":
            assert max(copies.values()) == 1
        assert len(relay.messages) - len(chaos.committed) <= attempts["doubt"]
        assert attempts["open"] == 0
        site.audit(relay.messages)
