"""Each bound from both its sides, and each way round: found where a mutant lived."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from outbox.core.account import Account, Route, Sender, Tls, is_half_open, may_log_in, tripped
from outbox.core.brake import Telling, signature_of, tells
from outbox.core.fate import RecipientFate, Trial, fates_of
from outbox.core.lines import has_long_line, with_crlf
from outbox.core.message import Attachment, Recipient
from outbox.core.mime import MAX_CONTENT_TYPE, MAX_FILENAME, check_attachment, compose_body, text_part
from outbox.core.networks import ANYWHERE, Networks
from outbox.core.outcome import Report, Scope, Stage
from outbox.core.pause import Probe, Subject
from outbox.core.pieces import LARGE, join
from outbox.core.reply import Reply
from outbox.core.secret import Secret
from outbox.core.suppression import MAX_REASON, Suppression, read_list, withheld
from outbox.core.units import parse_duration, parse_size
from outbox.core.user import User, hashed, is_password
from outbox.core.words import MAX_WORD, WIDTH, address_field, encoded_words, parameter, pieces_field, text_field
from outbox.smtp.session import ours

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(milliseconds=1)

# -- accounts and routes

SHOP = Account("main", "smtp.example.com", 587, Tls.STARTTLS)
SENDER = Sender("shop@example.com", "main")


def test_a_half_open_account_admits_its_probe_and_nobody_else() -> None:
    over = replace(SHOP, pause_reason="auth: 535 no", paused_until=NOW)
    route, subject = Route(over, SENDER), Subject(Scope.ACCOUNT, "main")
    assert Route(SHOP, SENDER).admits(None, NOW)
    assert not route.admits(None, NOW)
    assert route.admits(Probe((subject,), NOW), NOW)
    assert not route.admits(Probe((Subject(Scope.ACCOUNT, "other"),), NOW), NOW)
    assert not route.admits(Probe((subject,), NOW), NOW - TICK)  # it is still closed
    person = Route(replace(over, pause_reason="operator: the bill"), SENDER)
    assert person.admits(None, NOW)  # a person's pause that is over is no more
    assert not person.admits(None, NOW - TICK)


def test_the_relay_of_a_lane_is_tried_before_its_account_sender_and_domain() -> None:
    reason = {"pause_reason": "auth: 535 no", "paused_until": NOW}
    account = replace(SHOP, **reason, breaker_failures=5, breaker_until=NOW, breaker_reason="refused")  # type: ignore[arg-type]
    domain = Sender("*@example.com", "main", **reason)  # type: ignore[arg-type]
    route = Route(account, replace(SENDER, **reason), domain)  # type: ignore[arg-type]
    assert [each.scope for each in route.half_open(NOW)] == [Scope.RELAY, Scope.ACCOUNT, Scope.SENDER, Scope.SENDER]
    assert [each.name for each in route.half_open(NOW)][-2:] == ["shop@example.com", "*@example.com"]
    assert [each.scope for each in replace(account, breaker_failures=4).half_open(NOW)] == [Scope.ACCOUNT]
    assert route.is_closed(NOW - TICK)
    assert not route.is_closed(NOW)
    assert route.half_open(NOW - TICK) == ()


@pytest.mark.parametrize("which", ["account", "sender", "domain"])
def test_somebody_tries_any_part_of_a_lane(which: str) -> None:
    tried = {"probe_until": NOW}
    account, sender, domain = SHOP, SENDER, Sender("*@example.com", "main")
    route = Route(
        replace(account, **tried) if which == "account" else account,  # type: ignore[arg-type]
        replace(sender, **tried) if which == "sender" else sender,  # type: ignore[arg-type]
        replace(domain, **tried) if which == "domain" else domain,  # type: ignore[arg-type]
    )
    assert (route.is_probed(NOW - TICK), route.is_probed(NOW)) == (True, False)
    assert not Route(account, sender).is_probed(NOW)


@pytest.mark.parametrize(
    ("reason", "until", "expected"),
    [
        ("auth: 535 no", NOW, True),
        ("auth: 535 no", NOW + TICK, False),
        ("auth: 535 no", None, False),
        ("operator: x", NOW, False),
        ("", NOW, False),
        (None, NOW, False),
    ],
)
def test_what_is_half_open(reason: str | None, until: datetime | None, expected: bool) -> None:
    assert is_half_open(reason, until, NOW) is expected


def test_a_relay_is_left_alone_twice_as_long_each_time_and_a_quarter_of_an_hour_at_most() -> None:
    seconds = [None if (until := tripped(count, NOW)[1]) is None else (until - NOW).seconds for count in range(12)]
    assert seconds == [None] * 4 + [30, 60, 120, 240, 480, 900, 900, 900]
    assert tripped(4, NOW)[0] == 5
    assert tripped(10**6, NOW) == (10**6 + 1, NOW + timedelta(minutes=15))


def test_a_password_leaves_the_machine_under_tls_only() -> None:
    assert [may_log_in(tls, "smtp.example.com") for tls in Tls] == [True, True, True, False]
    assert may_log_in(Tls.NONE, "127.9.9.9")


# -- lines, MIME and words


def test_a_line_of_998_octets_is_the_longest() -> None:
    for end in (b"\r\n", b"\n", b""):
        assert not has_long_line(b"x" * 998 + end)
        assert has_long_line(b"x" * (1001 - len(end)) + end)
        assert not has_long_line(b"a\r\n" + b"x" * 998 + end)
        assert has_long_line(b"a\r\n" + b"x" * (1001 - len(end)) + end)
        assert has_long_line(b"x" * 2000 + b"\r\ny" + end)
    assert not has_long_line(b"")
    assert not has_long_line((b"x" * 998 + b"\r\n") * 3)


def test_every_line_end_becomes_crlf() -> None:
    assert with_crlf(b"a\nb\rc\r\nd\n\n\r\r\n") == b"a\r\nb\r\nc\r\nd\r\n\r\n\r\n\r\n"
    assert with_crlf(b"a\r\n") == b"a\r\n"
    assert with_crlf(b"") == b""


def test_how_a_text_is_encoded() -> None:
    def encoding(text: str) -> str:
        return text_part(text).fields[1][1].rpartition(" ")[2]

    assert encoding("") == encoding("plain") == encoding("x" * 998) == "7bit"
    assert encoding("x" * 999) == encoding("a\0b") == "quoted-printable"
    assert encoding("é" + "x" * 10) == "quoted-printable"  # 2 of 12 octets and the line end
    assert encoding("é" + "x" * 8) == "quoted-printable"  # 2 of 12, with the line end
    assert encoding("é" + "x" * 7) == "base64"
    large = "x" * 70 + "\r\n"
    assert encoding(large * (LARGE // 70)) == "7bit"
    assert encoding(large * (LARGE // 70) + "a\0b") == encoding(large * (LARGE // 70) + "y" * 999) == "quoted-printable"
    assert encoding("é" * LARGE) == "base64"


def test_a_text_ends_with_a_line_end_whatever_it_had() -> None:
    for text, octets in (
        ("a", b"a\r\n"),
        ("a\n", b"a\r\n"),
        ("a\r", b"a\r\n"),
        ("a\r\nb\rc", b"a\r\nb\r\nc\r\n"),
        ("", b""),
    ):
        assert join(text_part(text).body) == octets


@pytest.mark.parametrize(
    ("attachment", "words"),
    [
        (Attachment("x" * MAX_FILENAME, b""), ""),
        (Attachment("x" * (MAX_FILENAME + 1), b""), "is longer than 1000 characters"),
        (Attachment("a\tb", b""), "has a tab in it"),
        (Attachment("a\nb", b""), "the filename"),
        (Attachment("a", b"", "text/plain", "logo@shop.example"), ""),
        (Attachment("a", b"", "text/plain", "x" * 255), ""),
        (Attachment("a", b"", "text/plain", "x" * 256), "the content_id"),
        (Attachment("a", b"", "text/plain", "a b"), "the content_id"),
        (Attachment("a", b"", "text/" + "x" * (MAX_CONTENT_TYPE - 5)), ""),
        (Attachment("a", b"", "text/" + "x" * (MAX_CONTENT_TYPE - 4)), "is not a content type"),
        (Attachment("a", b"", 'text/csv; charset="utf-8"; header=present'), ""),
        (Attachment("a", b"", "text"), "is not a content type"),
        (Attachment("a", b"", "text/=?utf-8?q?x?="), "is not a content type"),
        (Attachment("a", b"", "Multipart/mixed"), "attach each part of it"),
        (Attachment("a", b"Subject: x\r\n\r\nx\r\n", "message/rfc822"), ""),
        (Attachment("a", b"Subject: x\n\nx", "Message/RFC822"), ""),
        (Attachment("a", b"Subject: x\n\na\0b", "message/rfc822"), "must be ASCII"),
        (Attachment("a", "Subject: ü\n\n".encode(), "message/rfc822"), "must be ASCII"),
        (Attachment("a", b"x" * 999, "message/rfc822"), "must be ASCII"),
        (Attachment("a", b"x" * 998, "message/rfc822"), ""),
    ],
)
def test_which_attachments_can_be_composed(attachment: Attachment, words: str) -> None:
    if not words:
        check_attachment(attachment)
        compose_body("x", None, [attachment], "seed")
        return
    with pytest.raises(ValueError, match=words):
        check_attachment(attachment)


def test_two_images_of_one_name_are_refused_where_there_is_html_to_show_them() -> None:
    twice = [Attachment(name, b"", "image/png", "logo@shop.example") for name in ("a", "b")]
    with pytest.raises(ValueError, match="the same content_id"):
        compose_body(None, "<p>", twice, "seed")
    compose_body("x", None, twice, "seed")


def test_fields_are_folded_at_76_characters() -> None:
    assert (WIDTH, MAX_WORD) == (76, 75)
    assert pieces_field("X", [" " + "a" * 36, " " + "b" * 36]) == f"X: {'a' * 36} {'b' * 36}"  # 76
    assert pieces_field("X", [" " + "a" * 36, " " + "b" * 37]) == f"X: {'a' * 36}\r\n {'b' * 37}"
    assert pieces_field("X", [" " + "a" * 90, " b"]) == f"X: {'a' * 90}\r\n b"
    assert address_field("To", []) == "To:"
    assert text_field("Subject", "") == "Subject:"
    assert text_field("Subject", "x" * 67) == "Subject: " + "x" * 67
    assert parameter("filename", "x" * 60) == [f' filename="{"x" * 60}"']
    assert parameter("filename", "x" * 61) == [f" filename*0*=utf-8''{'x' * 55};", f" filename*1*={'x' * 6}"]
    assert max(map(len, encoded_words("ü" * 200))) <= 75
    assert len(encoded_words("x" * 63)) == 1
    assert len(encoded_words("x" * 64)) == 2


# -- what an attempt tells of a brake

ANN = Recipient(0, "ann@example.net", "to")


def at_rcpt(reply: Reply) -> tuple[RecipientFate, ...]:
    return fates_of(Trial((ANN,), Report(Stage.RCPT, reply, recipients=(reply,))))


@pytest.mark.parametrize(
    ("reply", "telling"),
    [
        (Reply(550, "5.7.1", "service refused"), Telling.SAME),
        (Reply(550, "5.7.2", "service refused"), Telling.OTHER),
        (Reply(550, "5.1.1", "no such user"), Telling.NOTHING),
        (Reply(550, "", "no such user here"), Telling.NOTHING),
        (Reply(450, "4.7.1", "come back"), Telling.OTHER),
        (Reply(450, "4.2.0", "mailbox busy"), Telling.NOTHING),
        (ours(553, "5.1.3", "the address cannot be said"), Telling.NOTHING),
    ],
)
def test_what_an_answer_at_rcpt_tells(reply: Reply, telling: Telling) -> None:
    assert tells("rcpt 550 5.7.1", at_rcpt(reply)) is telling


def test_a_refusal_of_our_own_is_nobodys_signature() -> None:
    fates = fates_of(Trial((ANN,), Report(Stage.MAIL, ours(554, "5.3.4", "it is too large"))))
    assert signature_of(fates) == ""
    assert tells("mail 554 5.3.4", fates) is Telling.NOTHING


# -- the rest


def test_units_in_any_case() -> None:
    sizes = {"1 b": 1, "1kB": 1000, "1 MB": 10**6, "1gb": 10**9, "1 KiB": 1024, "1mib": 2**20, "1 GIB": 2**30}
    assert {text: parse_size(text) for text in sizes} == sizes
    lengths = {"1D": 86400, "1H": 3600, "1M": 60, "1S": 1, "1000MS": 1}
    assert {text: parse_duration(text).total_seconds() for text in lengths} == lengths


def test_a_network_that_is_no_address_is_refused() -> None:
    assert ANYWHERE.refusal("smtp.example.com") == "it is not an address"
    assert ANYWHERE.refusal("192.0.2.1") == ""
    assert Networks.parse(["public"]).refusal("10.0.0.1") != ""


def test_a_user_may_send_as_whom_it_was_given() -> None:
    assert User("ann", "x").may_send("anybody@example.com")
    ann = User("ann", "x", ("ann@example.com", "*@shop.example"))
    assert [ann.may_send(each) for each in ("Ann@Example.com", "any@SHOP.example", "bob@example.com")] == [
        True,
        True,
        False,
    ]
    assert "x" not in repr(User("ann", "secret-x"))


def test_a_password_is_known_by_its_hash_and_anything_else_is_not() -> None:
    stored = hashed(Secret("pencil"), "00" * 16)
    assert stored.startswith("scrypt$")
    assert is_password(Secret("pencil"), stored) is True
    assert is_password(Secret("pencils"), stored) is False
    for other in ("", "scrypt$1", stored.replace("scrypt$", "scrypt$x"), stored + "$", "a$b$c$d$e$f"):
        assert is_password(Secret("pencil"), other) is False


def test_a_suppression_says_how_to_lift_it() -> None:
    fate = withheld(ANN, Suppression("*@example.net", "complaint"))
    assert fate.reply is not None
    assert (fate.reply.code, fate.reply.status, fate.stage) == (0, "5.7.1", Stage.POLICY)
    assert fate.reply.text == "suppressed: complaint; `outbox suppress remove '*@example.net'`, then retry"
    assert [Suppression("a", "b", until).is_over(NOW) for until in (None, NOW, NOW + TICK)] == [False, True, False]


def test_a_list_of_addresses_is_read_with_its_faults() -> None:
    found = read_list(
        [
            "\ufeff# exported",
            "Email,other,Reason,UNTIL",
            "",
            f"Ann@Example.net,x,{'r' * 400},2026-03-01T13:00:00.5+01:00",
            "b@example.net,,,2026-03-01",
            "nobody,,,",
            '"c@example.net',
            "d@example.net,,,soon",
            "ann@example.net,,again,",
        ]
    )
    assert [(each.address, each.reason, each.until) for each in found.entries] == [
        ("ann@example.net", "again", None),
        ("b@example.net", "", datetime(2026, 3, 1, tzinfo=UTC)),
    ]
    assert [line for line, _ in found.bad] == [6, 7, 8]
    (first,) = read_list(["address,reason,until", f"a@b.example,{'r' * 400},2026-03-01T13:00:00.5+01:00"]).entries
    assert (first.reason, first.until) == ("r" * MAX_REASON, NOW)
    assert MAX_REASON == 300
