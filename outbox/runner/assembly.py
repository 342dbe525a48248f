"""Puts the parts of a runner together. What each of them is for is said where it is defined.

clerk ─ registrar ─┬─ gate ◄─ quota, staging            what may be claimed
                   └─ delivery ◄─ signing, screen, quota, conversation ◄─ login, pool
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outbox.clock import Clock
from outbox.config import Config
from outbox.runner.claiming.gate import Gate
from outbox.runner.claiming.quota import Quota
from outbox.runner.registrar import Registrar
from outbox.runner.sending.conversation import Conversation
from outbox.runner.sending.delivery import Delivery
from outbox.runner.sending.login import Login
from outbox.runner.sending.screen import Screen
from outbox.runner.sending.signing import Signing
from outbox.runner.snapshot import Snapshot
from outbox.runner.steady import Steadiness
from outbox.runner.telling.feedback import Feedback, recording_of
from outbox.runner.writing.clerk import Clerk
from outbox.smtp.pool import Pool
from outbox.smtp.relay import Deadlines
from outbox.store import open_store
from outbox.vault import Vault


@dataclass(frozen=True, slots=True)
class Assembly:
    """What a service drives."""

    clerk: Clerk
    registrar: Registrar
    gate: Gate
    login: Login
    pool: Pool
    delivery: Delivery
    feedback: Feedback
    steady: Steadiness


def assemble(
    config: Config,
    open_vault: Callable[[], Vault],
    clock: Clock,
    deadlines: Deadlines,
    *,
    runner: Callable[[], str],
    draining: Callable[[], bool],
    on_change: Callable[[], None],
    log_in: Callable[..., Login] = Login,
) -> Assembly:
    """On the event loop; nothing is connected yet. `runner()` is our id; `log_in` makes what knows the way to the
    relays. Raises ConfigError when a setting cannot work.
    """
    store = open_store(config.database, clock)
    store.who = f"runner {runner()[:8]}"
    store.recording = recording_of(config)
    clerk = Clerk(store, clock, byte_budget=config.run.byte_budget, on_change=on_change)
    registrar = Registrar(clerk, clock, open_vault, runner=runner, who=store.who)
    staging = config.deliver.staging()
    steady = Steadiness(clock, clerk.now)
    quota, screen = Quota(clerk, clock), Screen(clerk, staging)
    signing = Signing(registrar.open_vault, registrar.load_again)

    def learn(snapshot: Snapshot) -> None:
        quota.load(snapshot.limits)
        screen.load(snapshot.suppressing)
        signing.load(snapshot.keys)

    registrar.on_snapshot.append(learn)
    pool = Pool(deadlines)
    login = log_in(clerk, registrar, clock, helo=config.helo, runner=runner(), networks=config.networks())
    conversation = Conversation(
        clerk,
        pool,
        registrar,
        login,
        staging,
        recipients_per_transaction=config.run.recipients_per_transaction,
        draining=draining,
    )
    delivery = Delivery(
        clerk,
        pool,
        registrar,
        config.retry.policy(),
        clock,
        conversation=conversation,
        quota=quota,
        screen=screen,
        signing=signing,
        staging=staging,
        steady=steady,
        draining=draining,
    )
    gate = Gate(registrar, quota, staging)
    feedback = Feedback(clerk, clock, config, owner=runner)
    return Assembly(clerk, registrar, gate, login, pool, delivery, feedback, steady)
