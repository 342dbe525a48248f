"""A Mail Queue Dispatcher is taken over: its settings, its queue with the kinds of files that are in one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from outbox.core.account import Mechanism, Tls
from outbox.core.pickup import Mode
from outbox.doors.mqd import FILE, Setup, local_path, of_settings
from tests.relay import Relay
from tests.running import Site, eventually

CANARY = "canary-Pa55w0rd-ünïcode"


def connection(**fields: object) -> dict[str, object]:
    given = {
        "server": "smtp.example.com:587",
        "host": "smtp.example.com",
        "authtype": "PLAIN",
        "username": "shop",
        "password": CANARY,
        "sender": "shop@example.com",
    }
    return {**given, **fields}


def settings(**connections: dict[str, object]) -> dict[str, Any]:
    folders = {"mailqueue": "/srv/queue", "badmail": "/srv/bad", "sentmail": "/srv/sent"}
    return {"interval": 10, **folders, "connections": connections}


def read(found: dict[str, Any]) -> Setup:
    return of_settings(found, Path("/etc/mqd"), {})


def test_a_connection_is_a_sender_and_an_account() -> None:
    setup = read({**settings(), "connections": {'"BAZ" <Baz@Foo.com>': connection(sender="baz@foo.com")}})
    (entry,) = setup.entries
    assert (entry.sender.address, entry.sender.display_name, entry.envelope) == ("baz@foo.com", "BAZ", "")
    account = entry.account
    assert (account.relay, account.tls, account.mechanism) == ("smtp.example.com:587", Tls.STARTTLS, Mechanism.PLAIN)
    assert setup.folder is not None
    assert (setup.folder.mode, setup.folder.senders, setup.folder.poll.seconds) == (Mode.MQD, ("baz@foo.com",), 10)
    assert (setup.notes, setup.errors) == ([], [])


@pytest.mark.parametrize(
    ("server", "relay", "tls"),
    [
        ("smtp.example.com:465", "smtp.example.com:465", Tls.IMPLICIT),
        ("smtp.example.com", "smtp.example.com:587", Tls.STARTTLS),
        ("localhost:25", "localhost:25", Tls.OPPORTUNISTIC),
        ("[::1]:2525", "[::1]:2525", Tls.OPPORTUNISTIC),
    ],
)
def test_tls_follows_from_the_server(server: str, relay: str, tls: Tls) -> None:
    (entry,) = read(settings(**{"shop@example.com": connection(server=server, host="")})).entries
    assert (entry.account.relay, entry.account.tls) == (relay, tls)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"authtype": "CRAM-MD5"}, "neither PLAIN nor LOGIN"),
        ({"server": "a b:c"}, "HOST:PORT"),
        ({"password": ""}, "no password"),
        ({"password": 7}, "password is not a text"),
        ({"sender": "nobody"}, "nobody"),
    ],
)
def test_what_cannot_be_taken_over_is_said_and_the_rest_is(changed: dict[str, object], words: str) -> None:
    found = settings(**{"shop@example.com": connection(), "bad@example.com": connection(username="bad", **changed)})
    setup = read(found)
    assert [each.sender.address for each in setup.entries] == ["shop@example.com"]
    (error,) = setup.errors
    assert "bad@example.com" in error
    assert words in error
    assert CANARY not in error


def test_the_same_login_is_one_account_and_two_passwords_for_it_are_none() -> None:
    one, two, three = connection(), connection(authtype="login"), connection(password="another")
    setup = read(settings(**{"a@example.com": one, "b@example.com": two}))
    assert {each.account.mechanism for each in setup.entries} == {Mechanism.AUTO}
    setup = read(settings(**{"a@example.com": one, "b@example.com": three}))
    assert setup.entries == []
    assert setup.folder is None
    assert "'a@example.com' and 'b@example.com': different passwords" in setup.errors[0]


def test_two_keys_for_one_address_merge_or_are_none() -> None:
    keys = {"baz@foo.com": connection(), '"BAZ" <baz@foo.com>': connection()}
    (entry,) = read({**settings(), "connections": keys}).entries
    assert entry.sender.display_name == "BAZ"
    keys['"BAZ" <baz@foo.com>'] = connection(username="another")
    assert read({**settings(), "connections": keys}).entries == []


@pytest.mark.parametrize("interval", [4, 3601, None, "10"])
def test_an_interval_out_of_range_is_half_a_minute_as_it_was(interval: object) -> None:
    setup = read({**settings(**{"shop@example.com": connection()}), "interval": interval})
    assert setup.folder is not None
    assert setup.folder.poll.seconds == 30
    assert any("interval" in each for each in setup.notes)


def test_no_badmail_is_an_error_and_no_sentmail_deletes() -> None:
    found = settings(**{"shop@example.com": connection()})
    setup = read({**found, "badmail": ""})
    assert setup.folder is None
    assert "badmail is empty" in setup.errors[0]
    kept = read({**found, "sentmail": ""}).folder
    assert kept is not None
    assert kept.sentmail == ""


def test_its_names_are_read_without_regard_to_case() -> None:
    found = {name.title(): value for name, value in settings(**{"a@example.com": connection()}).items()}
    assert len(read(found).entries) == 1


@pytest.mark.parametrize(
    ("text", "mapped", "path"),
    [
        (r"C:\Mail\queue", {"C:\\": "/srv"}, "/srv/Mail/queue"),
        (r"c:\mail\queue", {"C:\\": "/srv", r"C:\Mail": "/mail"}, "/mail/queue"),
        (r"C:/Mail/../x", {"C:\\": "/srv"}, "/srv/Mail/../x"),
        (r"\\files\mail\queue", {r"\\files\mail": "/mnt"}, "/mnt/queue"),
        ("queue", {}, "/etc/mqd/queue"),
        ("/srv/queue", {}, "/srv/queue"),
    ],
)
def test_paths_of_windows_are_mapped(text: str, mapped: dict[str, str], path: str) -> None:
    assert local_path(text, Path("/etc/mqd"), mapped) == path


@pytest.mark.parametrize("text", [r"C:\Mail\queue", r"\\files\mail\queue", r"mail\queue", "C:queue"])
def test_a_path_of_windows_that_nothing_is_said_about_is_refused(text: str) -> None:
    assert PureWindowsPath(text).parts
    with pytest.raises(ValueError, match="--map-path"):
        local_path(text, Path("/etc/mqd"), {r"D:\Other": "/srv"})


# -- the whole of it


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay({"rcpt:gone@example.net": "550 5.1.1 no such user"}, credentials={"shop": CANARY}) as running:
        yield running


FILES = {
    "0001": b"From: Shop <shop@example.com>\nTo: ann@example.net\nBcc: bcc@example.net\nSubject: a\n\nThanks\n",
    "0002.msg": b"X-Sender: shop@example.com\nX-Receiver: x@example.net\nFrom: any <shop@example.com>\n"
    b"To: to@example.net\nSubject: b\n\nThanks\n",
    "0003.eml": b"From: shop@example.com\nTo: ann@example.net, gone@example.net\nSubject: c\n\nThanks\n",
    "0004.eml": b"From: shop@example.com\nTo: gone@example.net\nSubject: d\n\nThanks\n",
    "0005.txt": b"not a mail at all\n\nno\n",
    "0006.eml": b"From: ceo@example.com\nTo: ann@example.net\nSubject: e\n\nno\n",
    "0007.eml.tmp": b"From: shop@example.com\n",
}


def test_a_whole_dispatcher_is_taken_over_and_its_queue_is_sent(site: Site, tmp_path: Path, relay: Relay) -> None:
    mail = tmp_path / "Mail"
    for name in ("queue", "sent", "bad", "queue/kept"):
        (mail / name).mkdir(parents=True)
    for name, content in FILES.items():
        (mail / "queue" / name).write_bytes(content)
    here = {"mailqueue": r"C:\Mail\queue", "badmail": r"C:\Mail\bad", "sentmail": r"C:\Mail\sent", "interval": 5}
    own = connection(server=f"127.0.0.1:{relay.port}", host="127.0.0.1", sender="bounces@example.com")
    broken = connection(authtype="NTLM")
    found = {**here, "connections": {'"Shop" <shop@example.com>': own, "old@example.com": broken}}
    (tmp_path / FILE).write_bytes(b"\xef\xbb\xbf" + json.dumps(found).encode())
    key = tmp_path / "outbox.key"
    options = {"key_file": str(key)}
    assert site.outbox("key", "generate", **options)[0] == 0
    said = []

    arguments = ("import-mqd", str(tmp_path), "--map-path", f"C:\\={tmp_path}")
    said.append(site.outbox(*arguments, "--dry-run", **options))
    assert site.query("SELECT count(*) FROM outbox_account") == [(0,)]
    said.append(site.outbox(*arguments, **options))
    said.append(site.outbox(*arguments, **options))
    assert [code for code, _ in said[-3:]] == [1, 1, 1], said
    assert all("old@example.com" in words and CANARY not in words for _, words in said[-3:])
    assert "added" in said[-2][1]
    assert "added" not in said[-1][1]
    assert said[-1][1].count(": unchanged") == 4
    assert site.query("SELECT address, display_name, return_path FROM outbox_sender ORDER BY address") == [
        ("bounces@example.com", None, None),
        ("shop@example.com", "Shop", "bounces@example.com"),
    ]
    (secret,) = site.query("SELECT secret FROM outbox_account")[0]
    assert CANARY not in secret

    with site.run(**options) as runner:
        eventually(
            lambda: site.query("SELECT count(*) FROM outbox_pickup_file WHERE done_at IS NOT NULL") == [(6,)], ""
        )
        runner.stop()
        assert runner.wait() == 0
        assert CANARY not in runner.output

    sent = {str(each.content[each.content.index(b"Subject: ") + 9 :][:1], "ascii"): each for each in relay.messages}
    assert {name: sorted(each.recipients) for name, each in sent.items()} == {
        "a": ["ann@example.net", "bcc@example.net"],
        "b": ["to@example.net", "x@example.net"],
        "c": ["ann@example.net"],
    }
    assert {each.sender for each in sent.values()} == {"bounces@example.com"}
    assert not any(word in each.content for each in sent.values() for word in (b"Bcc", b"X-Receiver", b"X-Sender"))
    assert sorted(each.name for each in (mail / "queue").iterdir() if each.name != ".work") == ["0007.eml.tmp", "kept"]
    assert sorted(each.name[18:] for each in (mail / "sent").iterdir()) == [
        "0001.sent",
        "0002.msg.sent",
        "0003.eml.sent",
    ]
    bad = sorted(each.name for each in (mail / "bad").iterdir())
    whole = ["0004.eml", "0005.txt", "0006.eml"]
    assert bad == sorted(["0003.eml.bad.json", *(f"{each}.bad{end}" for each in whole for end in ("", ".json"))])
    assert "may not send through this folder" in (mail / "bad" / "0006.eml.bad.json").read_text()
