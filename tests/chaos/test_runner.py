"""Chaos through the real runner: one `outbox run`, a relay for each way to fail, and what the database says of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from outbox.clock import Clock
from outbox.core.account import Sender
from outbox.store import senders
from outbox.store.journal import Act
from tests.relay import DROP, GARBAGE, RST, Accept, Plus, Relay
from tests.running import Site

ALL = ("ann", "bob", "cyd")


@dataclass(frozen=True)
class Case:
    """A script, and what becomes of a message to three recipients. `blame`: relay, account or sender, where a fault
    reaches beyond it. `copies`: the recipients that the relay has it for.
    """

    name: str
    script: Mapping[str, Any]
    state: str = "queued"
    fates: tuple[str, str, str] = ("deferred",) * 3
    failures: int = 0
    doubts: int = 0
    blame: str = ""
    copies: tuple[str, ...] = field(default=())


ACCEPTED, BOUNCED, DOUBT = ("accepted",) * 3, ("bounced",) * 3, ("doubt",) * 3
CASES = [
    Case("banner-554", {"banner": "554 5.3.2 go away"}, blame="relay"),
    Case("banner-garbage", {"banner": GARBAGE}, blame="relay"),
    Case("ehlo-drop", {"ehlo": DROP}, blame="relay"),
    Case("ehlo-early", {"ehlo": Plus("250 more")}, blame="relay"),
    Case("auth-535", {"auth": "535 5.7.8 no"}, blame="account"),
    Case("auth-454", {"auth": "454 4.7.0 later"}, blame="account"),
    Case("auth-garbage", {"auth": GARBAGE}, blame="relay"),
    Case("mail-421", {"mail": "421 4.3.2 closing"}, blame="relay"),
    Case("mail-530", {"mail": "530 5.7.0 authentication required"}, blame="account"),
    Case("mail-sender", {"mail": "550 5.7.60 not permitted to send as this sender"}, blame="sender"),
    Case("mail-drop", {"mail": DROP}, failures=1),
    Case("mail-early", {"mail": Plus("250 more"), "rcpt:bob@example.net": "550 5.1.1 who?"}, failures=1),
    Case("mail-554", {"mail": "554 5.6.0 no"}, "failed", BOUNCED),
    Case(
        "rcpt-451",
        {"rcpt:bob@example.net": "451 4.3.0 later"},
        fates=("accepted", "deferred", "accepted"),
        failures=1,
        copies=("ann", "cyd"),
    ),
    Case(
        "rcpt-554",
        {"rcpt:bob@example.net": "554 5.6.0 no"},
        "failed",
        ("accepted", "bounced", "accepted"),
        copies=("ann", "cyd"),
    ),
    Case("rcpt-rst", {"rcpt:bob@example.net": RST}, failures=1),
    Case("data-451", {"data": "451 4.3.0 later"}, failures=1),
    Case("data-lie", {"data": "250 ok"}, failures=1),
    Case("data-early", {"data": "354 go on\r\n554 5.6.0 no"}, "failed", BOUNCED),
    Case("dot-421", {"dot": "421 4.3.2 closing"}, blame="relay"),
    Case("dot-451", {"dot": "451 4.3.0 later"}, failures=1),
    Case("dot-554", {"dot": "554 5.6.0 no"}, "failed", BOUNCED),
    Case("dot-vanish", {"dot": Accept(DROP)}, fates=DOUBT, doubts=1, copies=ALL),
    Case("dot-drop", {"dot": DROP}, fates=DOUBT, doubts=1),
    Case("dot-garbage", {"dot": Accept(GARBAGE)}, fates=DOUBT, doubts=1, copies=ALL),
    Case("dot-lie", {"dot": Accept("354 more")}, fates=DOUBT, doubts=1, copies=ALL),
    Case("dot-codes", {"dot": Accept("250-yes\r\n251 or no")}, fates=DOUBT, doubts=1, copies=ALL),
    Case("dot-early", {"dot": Plus("554 or not")}, "sent", ACCEPTED, copies=ALL),
    Case("dot-rst", {"dot": ("250 2.0.0 ok", RST)}, "sent", ACCEPTED, copies=ALL),
    Case("quit-garbage", {"quit": GARBAGE}, "sent", ACCEPTED, copies=ALL),
]


def test_what_the_database_says_after_chaos(site: Site) -> None:
    key = str(site.folder / "key")
    assert site.outbox("key", "generate", key_file=key)[0] == 0
    with ExitStack() as stack:
        relays = {case.name: stack.enter_context(Relay(case.script, credentials=login(case))) for case in CASES}
        numbers = {}
        for name, relay in relays.items():
            register(site, relay, name, key)
            to = ", ".join(f"{each}@example.net" for each in ALL)
            numbers[name] = site.insert_one(sender=f"{name}@example.com", recipients=to)
        with site.run("-q", "--until-empty", key_file=key) as runner:
            assert runner.wait() == 0
        found = {case.name: outcome(site, case, numbers[case.name]) for case in CASES}
        assert found == {case.name: wanted(case) for case in CASES}
        for case in CASES:
            taken = [each for message in relays[case.name].messages for each in message.recipients]
            assert taken == [f"{each}@example.net" for each in case.copies], case.name
            assert len(relays[case.name].sessions) <= 2, f"{case.name}: it was not tried on and on"
        site.audit(message for relay in relays.values() for message in relay.messages)
        assert "Traceback" not in runner.output


def login(case: Case) -> dict[str, str]:
    return {"shop": "correct horse"} if "auth" in case.script else {}


def register(site: Site, relay: Relay, name: str, key: str) -> None:
    """An account of that name at the relay, and the sender NAME@example.com."""
    if not relay.credentials:
        site.register(relay.port, account=name, sender=f"{name}@example.com")
        return
    password = site.folder / "password"
    password.write_text("correct horse")
    way = ("--relay", f"127.0.0.1:{relay.port}", "--tls", "none", "--username", "shop")
    added = site.outbox("account", "add", name, *way, "--password-file", str(password), key_file=key)
    assert added[0] == 0, added
    with site.db.atomic():
        senders.add_sender(site.db, Sender(f"{name}@example.com", name), Act("test", Clock().now()))


def wanted(case: Case) -> dict[str, object]:
    return {
        "state": case.state,
        "failures": case.failures,
        "doubts": case.doubts,
        "fates": list(case.fates),
        "blame": case.blame,
    }


def outcome(site: Site, case: Case, number: int) -> dict[str, object]:
    delivery = site.delivery(number)
    fates = site.query("SELECT fate FROM outbox_fate WHERE message_id = ? ORDER BY position", number)
    account = "SELECT breaker_failures, pause_reason FROM outbox_account WHERE name = ?"
    [(failures, account_pause)] = site.query(account, case.name)
    [(sender_pause,)] = site.query(
        "SELECT pause_reason FROM outbox_sender WHERE address = ?", f"{case.name}@example.com"
    )
    blamed = {"relay": failures, "account": account_pause, "sender": sender_pause}
    return {
        "state": delivery["state"],
        "failures": delivery["failures"],
        "doubts": delivery["doubts"],
        "fates": [fate for (fate,) in fates],
        "blame": " ".join(name for name, said in blamed.items() if said),
    }
