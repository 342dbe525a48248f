"""Whose keys sign a message, and what happens when one does not open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from outbox import keypair, keys
from outbox.core.dkim import Algorithm
from outbox.core.dkim_key import SealedKey, dns_record, signing_domain
from outbox.core.message import Message
from outbox.core.outcome import Envelope
from outbox.core.render import render
from outbox.core.secret import Secret
from outbox.errors import VaultError
from outbox.keys import Keys, Origin
from outbox.runner.sending.signing import MAX_ADDRESSES, Signing
from outbox.vault import DkimBinding, Kind, Vault
from tests.relay import Relay
from tests.signatures import BOTH, Zone, name, private
from tests.smtp.sending import account, run, send

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
KEY = keys.new()
VAULT = Vault(Keys((KEY,), Origin.ENVIRONMENT))
MAIL = Message(7, "0a" * 16, AT, "shop@example.com", recipients="ann@example.net", text_body="Thanks.\n")


def sealed(
    sender: str, algorithm: Algorithm = Algorithm.ED25519, selector: str = "", vault: Vault = VAULT
) -> SealedKey:
    domain, selector = signing_domain(sender), selector or name(algorithm)
    token = vault.seal(private(algorithm), DkimBinding(sender, selector, domain, str(algorithm)), Kind.DKIM)
    return SealedKey(sender, selector, domain, algorithm, token, vault.key_id, AT)


def zone(*some: SealedKey) -> Zone:
    return Zone(*(dns_record(each, keypair.public(private(each.algorithm))) for each in some))


def signing(*some: SealedKey) -> Signing:
    made = Signing(lambda: VAULT)
    made.load(some)
    return made


def signatures(message: Message, by: Signing) -> list[tuple[str, str]]:
    """(domain, selector) of each signature."""
    header = by.sign(message, render(message)).data.partition(b"\r\n\r\n")[0].decode()
    fields = [each for each in header.replace("\r\n ", " ").split("\r\n") if each.startswith("DKIM-Signature:")]
    tags = [dict(tag.strip().split("=", 1) for tag in each.partition(":")[2].split(";")) for each in fields]
    return [(each["d"], each["s"]) for each in tags]


def test_every_key_of_a_sender_signs() -> None:
    some = [sealed("shop@example.com", each) for each in BOTH]
    message = signing(*some).sign(MAIL, render(MAIL))

    assert zone(*some).checks(message.data) == [True, True]
    assert (message.smtputf8, message.eight_bit) == (False, False)


def test_without_keys_for_it_a_message_stays_as_it_is() -> None:
    rendered = render(MAIL)

    assert signing().sign(MAIL, rendered) is rendered
    assert signing(sealed("news@example.com"), sealed("*@example.org")).sign(MAIL, rendered) is rendered


@pytest.mark.parametrize(
    ("sender", "signed"),
    [
        ("shop@example.com", [("example.com", "own")]),
        ("Shop@EXAMPLE.com", [("example.com", "own")]),
        ("news@example.com", [("example.com", "whole")]),
        ("shop@sub.example.com", []),
        ("shop@xn--bcher-kva.example", [("xn--bcher-kva.example", "books")]),
        ("shop@bücher.example", [("xn--bcher-kva.example", "books")]),
    ],
)
def test_an_address_signs_with_its_own_keys_else_with_those_of_its_domain(
    sender: str, signed: list[tuple[str, str]]
) -> None:
    some = (
        sealed("shop@example.com", selector="own"),
        sealed("*@example.com", selector="whole"),
        sealed("*@xn--bcher-kva.example", selector="books"),
    )

    assert signatures(replace(MAIL, sender=sender), signing(*some)) == signed


def test_a_raw_message_is_signed_for_its_from() -> None:
    some = sealed("shop@example.com", selector="shop"), sealed("news@example.org", selector="news")
    raw = b"From: =?utf-8?q?N=C3=A9ws?= <News@example.org>\r\nTo: ann@example.net\r\n\r\nx\r\n"
    message = replace(MAIL, text_body=None, raw=raw)

    assert signatures(message, signing(*some)) == [("example.org", "news")]
    assert signatures(replace(message, raw=b"Subject: no From\r\n\r\nx"), signing(*some)) == [("example.com", "shop")]


def test_keys_that_come_and_go_are_heard() -> None:
    own, whole = sealed("shop@example.com", selector="own"), sealed("*@example.com", selector="whole")
    made = signing(own)
    assert signatures(MAIL, made) == [("example.com", "own")]
    made.load([own, whole])
    made.load([whole])
    assert signatures(MAIL, made) == [("example.com", "whole")]
    made.load([])
    assert signatures(MAIL, made) == []


def test_a_key_is_opened_once() -> None:
    asked: list[Vault] = []

    def open_vault() -> Vault:
        asked.append(VAULT)
        return VAULT

    made = Signing(open_vault)
    some = [sealed("*@example.com", each) for each in BOTH]
    made.load(some)
    for number in range(MAX_ADDRESSES + 10):
        made.sign(replace(MAIL, sender=f"shop{number % 3}@example.com"), render(MAIL))
        made.load(list(some))
    made.load([*some, sealed("x@example.com")])
    made.sign(MAIL, render(MAIL))

    assert len(asked) == 2


@pytest.mark.parametrize(
    "damaged",
    [
        replace(sealed("shop@example.com"), secret="gAAAA-damaged"),
        replace(sealed("shop@example.com"), domain="evil.example"),
        replace(sealed("news@example.com"), sender="shop@example.com"),
        sealed("shop@example.com", vault=Vault(Keys((keys.new(),), Origin.ENVIRONMENT))),
    ],
)
def test_mail_whose_key_does_not_open_is_not_sent_unsigned(damaged: SealedKey) -> None:
    made = signing(damaged, sealed("shop@example.com", selector="good"))

    for _ in range(2):
        with pytest.raises(VaultError, match="DKIM key"):
            made.sign(MAIL, render(MAIL))
    other = replace(MAIL, sender="cyd@example.org")
    assert made.sign(other, render(other)) == render(other)


def test_a_key_that_was_sealed_again_opens_when_the_vault_has_been_loaded_again() -> None:
    new = Vault(Keys((keys.new(), KEY), Origin.ENVIRONMENT))
    loaded: list[Vault] = [VAULT]

    def load_again() -> bool:
        loaded.append(new)
        return True

    made = Signing(lambda: loaded[-1], load_again)
    made.load([sealed("shop@example.com", vault=new)])

    assert signatures(MAIL, made) == [("example.com", "ed25519")]
    assert len(loaded) == 2


def test_a_secret_that_is_no_key_is_not_shown() -> None:
    binding = DkimBinding("shop@example.com", "ed25519", "example.com", "ed25519-sha256")
    token = VAULT.seal(Secret("canary"), binding, Kind.PASSWORD)

    with pytest.raises(VaultError) as caught:
        signing(replace(sealed("shop@example.com"), secret=token)).sign(MAIL, render(MAIL))
    assert "canary" not in f"{caught.value} {caught.value.hint}"


# -- over the wire

BODIES: Sequence[str] = (
    ".\n..\n.hidden\n\n.\n",
    "a\n\n\n\n",
    "Grüße  an\talle \n" + "x" * 3000,
    "\n",
)


@pytest.mark.parametrize("body", BODIES)
def test_what_a_relay_receives_verifies(body: str) -> None:
    some = [sealed("shop@example.com", each) for each in BOTH]
    mail = replace(MAIL, text_body=body)
    message = signing(*some).sign(mail, render(mail))
    with Relay() as relay:
        run(send(account(relay), Envelope("shop@example.com", ("ann@example.net",)), message))

        assert relay.messages[0].content == message.data
    assert zone(*some).checks(relay.messages[0].content) == [True, True]


@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:aiosmtpd\..*")
def test_what_another_implementation_receives_verifies() -> None:
    from outbox.smtp.connection import Relay as Account
    from tests.smtp.test_aiosmtpd import Inbox, serving

    some = [sealed("shop@example.com", each) for each in BOTH]
    inbox = Inbox()

    async def story() -> None:
        async with serving(inbox) as port:
            for body in BODIES:
                mail = replace(MAIL, text_body=body)
                message = signing(*some).sign(mail, render(mail))
                await send(Account("127.0.0.1", port, "none"), Envelope(mail.sender, ("ann@example.net",)), message)

    run(story())
    assert [zone(*some).checks(content) for _, _, content, _ in inbox.received] == [[True, True]] * len(BODIES)
