"""The SASL mechanisms without sockets: the RFCs' own examples, what is refused, and what is said on the wire."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox.core.outcome import Report, Stage
from outbox.core.secret import Secret
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.opening import opening
from outbox.smtp.relay import Relay
from outbox.smtp.sasl import ITERATIONS, Unacceptable, choose, exchange, oauth_error, saslprep
from outbox.smtp.session import Derive, Session
from tests.smtp.peer import Peer, singly

TOKEN = "ya29." + "aB3-_~+/" * 20 + "=="
NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = f"r={NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


def relay(mechanism: str = "auto", username: str = "user", password: str = "pencil", nonce: str = NONCE) -> Relay:
    return Relay(
        "mail.example",
        587,
        "none",
        mechanism=mechanism,
        username=username,
        password=Secret(password),
        nonce=lambda: nonce,
    )


def play(mechanism: str, settings: Relay, *challenges: str | bytes | None) -> list[bytes | None]:
    """The responses to these challenges."""
    exchanging = exchange(mechanism, settings)
    said: list[bytes | None] = []
    for challenge in (None, *challenges):
        step = exchanging.send(challenge.encode() if isinstance(challenge, str) else challenge)
        while isinstance(step, Derive):
            step.run()
            step = next(exchanging)
        said.append(step)
    return said


def test_scram_is_the_example_of_rfc_7677() -> None:
    said = play("SCRAM-SHA-256", relay(), SERVER_FIRST, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert said == [
        b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        b"",
    ]


def test_cram_md5_is_the_example_of_rfc_2195() -> None:
    tim = relay(username="tim", password="tanstaaftanstaaf")
    said = play("CRAM-MD5", tim, "<1896.697170952@postoffice.reston.mci.net>")
    assert said == [None, b"tim b913a602c7eda7a495b4e6e7334d3890"]


def test_oauthbearer_is_the_example_of_rfc_7628() -> None:
    settings = Relay(
        "server.example.com",
        143,
        "none",
        username="user@example.com",
        password=Secret("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="),
    )
    expected = (
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI"
        "HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
    )
    assert play("OAUTHBEARER", settings, "{}") == [b64decode(expected), b"\x01"]


def test_xoauth2_names_user_and_token_and_answers_an_error_with_nothing() -> None:
    settings = relay(username="ann@example.com", password="ya29.x")
    assert play("XOAUTH2", settings, "{}") == [b"user=ann@example.com\x01auth=Bearer ya29.x\x01\x01", b""]


BAD_FIRST: dict[str, str | bytes] = {
    "nothing": "",
    "words": "hello",
    "too few iterations": SERVER_FIRST.replace("4096", "4095"),
    "too many iterations": SERVER_FIRST.replace("4096", "600001"),
    "endless iterations": SERVER_FIRST.replace("4096", "9" * 400),
    "iterations of other digits": SERVER_FIRST.replace("4096", "４０９６"),
    "another's nonce": SERVER_FIRST.replace(NONCE, "x" + NONCE[1:]),
    "our nonce alone": f"r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
    "a salt that is none": SERVER_FIRST.replace("W22ZaJ0SNY7soEsUEjb6gQ==", "W22"),
    "an extension that must be understood": f"m=what,{SERVER_FIRST}",
    "an early error": "e=other-error",
    "octets": b"\xff\xfe",
}


@pytest.mark.parametrize("case", BAD_FIRST)
def test_scram_gives_no_proof_to_a_bad_first_message(case: str) -> None:
    with pytest.raises(Unacceptable):
        play("SCRAM-SHA-256", relay(), BAD_FIRST[case])


@pytest.mark.parametrize("final", ["v=", "v=AAAA", "", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", b"\xff", None])
def test_a_relay_that_cannot_prove_that_it_knows_the_password_is_not_believed(final: str | bytes | None) -> None:
    with pytest.raises(Unacceptable, match="password"):
        play("SCRAM-SHA-256", relay(), SERVER_FIRST, final)


def test_iterations_are_bounded_as_the_settings_say() -> None:
    assert (ITERATIONS[0], ITERATIONS[-1]) == (4096, 600_000)
    assert len(play("SCRAM-SHA-256", relay(), SERVER_FIRST.replace("4096", "600000"))) == 2


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("pa😀ss", "pa😀ss"),
        ("", ""),
    ],
)
def test_saslprep_is_that_of_rfc_4013(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u06271", "a\u0627", "\ue000", "\ufffd", "\u200e"])
def test_saslprep_refuses_what_rfc_4013_prohibits(text: str) -> None:
    with pytest.raises(Unacceptable):
        saslprep(text)


@given(st.text())
def test_saslprep_prepares_the_prepared_no_further(text: str) -> None:
    try:
        once = saslprep(text)
    except Unacceptable:
        return
    assert saslprep(once) == once


def test_the_choice_of_a_mechanism() -> None:
    everything = frozenset({"PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER", "NTLM"})
    order = []
    left = everything
    while (chosen := choose("auto", left)) is not None:
        order.append(chosen)
        left -= {chosen}
    assert order == ["PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5"]
    for wanted in ("plain", "login", "cram-md5", "scram-sha-256", "xoauth2", "oauthbearer"):
        assert choose(wanted, everything) == wanted.upper()
        assert choose(wanted, everything - {wanted.upper()}) is None
    assert choose("ntlm", everything) is None


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
@pytest.mark.parametrize(
    ("username", "token"),
    [("ann", ""), ("ann", "two words"), ("ann", "x\x01auth=Bearer y"), ("ann", "töken"), ("ann\x01host=x", "token")],
)
def test_no_field_of_oauth_can_be_smuggled_in(mechanism: str, username: str, token: str) -> None:
    with pytest.raises(Unacceptable):
        play(mechanism.upper(), relay(username=username, password=token))


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        (b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}', "status 401, scope https://mail"),
        (b'{"status":"invalid_token"}', "status invalid_token"),
        (b'{"status":"a\\u0000\\nb"}', "status a b"),
        (b"{}", ""),
        (b"[1]", ""),
        (b"what?", ""),
        (b"\xff", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_an_oauth_error_is_read_with_care(challenge: bytes, words: str) -> None:
    assert oauth_error(challenge).startswith(words)
    assert bool(oauth_error(challenge)) == bool(words)


# ---------------------------------------------------------------- on the wire, without sockets


def sign_in(settings: Relay, *answers: bytes) -> tuple[Report | None, list[bytes]]:
    """Open a session with a relay that offers everything, and answers each line of AUTH with the next answer."""
    session, replies = Session(settings, loopback=True), list(answers)

    class Signing(Peer):
        def _answer(self, verb: bytes) -> bytes:
            return super()._answer(verb) if verb == b"EHLO" or not self.said else replies.pop(0)

    offer = b"250-x\r\n250 AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER\r\n"
    peer = Signing({b"EHLO": offer}, singly)
    return peer.play(Dialogue(session), opening(session)), peer.said[1:]


def challenge(octets: bytes) -> bytes:
    return b"334 " + b64encode(octets) + b"\r\n"


ERROR = json.dumps({"status": "401", "scope": "https://mail.example/"}).encode()
NO = b"535 5.7.8 no\r\n"


@pytest.mark.parametrize(("mechanism", "dismissal"), [("xoauth2", b"\r\n"), ("oauthbearer", b"AQ==\r\n")])
def test_an_error_challenge_is_dismissed_and_its_status_is_reported(mechanism: str, dismissal: bytes) -> None:
    report, said = sign_in(relay(mechanism, password="token"), challenge(ERROR), NO)
    assert report is not None
    assert str(report.reply) == "535 5.7.8 no (status 401, scope https://mail.example/)"
    assert said[1:] == [dismissal]


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_a_long_token_has_a_line_of_its_own(mechanism: str) -> None:
    settings = relay(mechanism, password="t" * 3000)
    report, said = sign_in(settings, challenge(b""), b"235 2.7.0 welcome\r\n")
    assert report is None
    assert said[0] == b"AUTH " + mechanism.upper().encode() + b"\r\n"
    assert b"t" * 3000 in b64decode(said[1])
    assert len(said) == 2
    report, said = sign_in(settings, challenge(b""), challenge(ERROR), NO)
    assert report is not None
    assert len(said) == 3


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_an_initial_response_that_was_not_taken_is_given_again(mechanism: str) -> None:
    report, said = sign_in(relay(mechanism, password="token"), challenge(b""), b"235 2.7.0 welcome\r\n")
    assert report is None
    assert said[1].strip() == said[0].split()[2]


def test_scram_is_broken_off_with_a_star_and_a_refusal_of_our_own() -> None:
    report, said = sign_in(relay("scram-sha-256"), challenge(b"r=x,s=eA==,i=1"), b"501 ok\r\n")
    assert said[1:] == [b"*\r\n"]
    assert report is not None
    assert report.reply is not None
    assert (report.stage, report.reply.code, report.reply.status) == (Stage.AUTH, 554, "5.7.0")
    assert "iterations" in report.reply.text or "nonce" in report.reply.text


def test_scram_that_ends_without_the_relays_proof_is_no_login() -> None:
    report, said = sign_in(relay("scram-sha-256"), challenge(SERVER_FIRST.encode()), b"235 2.7.0 welcome\r\n")
    assert report is not None
    assert "without proving that it knows the password" in str(report.reply)
    assert len(said) == 2


def test_scram_may_be_refused_in_its_own_words() -> None:
    first = challenge(SERVER_FIRST.encode())
    report, said = sign_in(relay("scram-sha-256"), first, challenge(b"e=invalid-proof"), NO)
    assert str(report and report.reply) == "535 5.7.8 no"
    assert said[2] == b"\r\n"
    report, _ = sign_in(relay("scram-sha-256"), first, challenge(b"e=invalid-proof"), b"235 2.7.0 yes\r\n")
    assert "an error and a success" in str(report and report.reply)


@pytest.mark.parametrize("mechanism", ["cram-md5", "scram-sha-256", "xoauth2", "oauthbearer"])
def test_a_challenge_that_is_not_base64_ends_the_connection(mechanism: str) -> None:
    report, said = sign_in(relay(mechanism), b"334 %%%\r\n")
    assert report is not None
    assert (report.stage, report.reply) == (Stage.AUTH, None)
    assert "is not base64" in report.fault
    assert len(said) == 1


def test_success_after_a_login_that_is_called_off_is_not_believed() -> None:
    report, said = sign_in(relay("plain"), challenge(b"more"), b"235 2.7.0 welcome\r\n")
    assert report is not None
    assert "235 is no answer to a login that is called off" in report.fault
    assert said[1:] == [b"*\r\n"]


ECHOING: dict[str, list[bytes]] = {
    "plain": [],
    "login": [challenge(b"Username:"), challenge(b"Password:")],
    "cram-md5": [challenge(b"<1@x>")],
    "scram-sha-256": [challenge(SERVER_FIRST.encode())],
    "xoauth2": [],
    "oauthbearer": [],
}


@pytest.mark.parametrize("mechanism", ECHOING)
@pytest.mark.parametrize("password", ["correct horse battery", TOKEN], ids=["password", "token"])
def test_nothing_secret_that_the_relay_echoes_is_reported(mechanism: str, password: str) -> None:
    if mechanism in ("xoauth2", "oauthbearer"):
        password = password.replace(" ", "-")
    settings, challenges = relay(mechanism, "ann@example.com", password), ECHOING[mechanism]
    _, said = sign_in(settings, *challenges, NO)
    line = said[-1].split()[-1]
    raw = b64decode(line)
    secrets = [line.decode(), line[20:40].decode(), password]
    secrets += [raw.split()[-1].decode()] if mechanism == "cram-md5" else []
    secrets += [raw.partition(b",p=")[2].decode()] if mechanism == "scram-sha-256" else []
    for echo in (line, raw.replace(b"\r\n", b""), line[:30] + b"\r\n535 " + line[30:], password.encode()):
        answer = b"\r\n".join(
            [b"535-5.7.8 bad: " + echo.split(b"\r\n")[0], *echo.split(b"\r\n")[1:], b"535 5.7.8 no\r\n"]
        )
        answer = answer.replace(b"\r\n535 " + line[30:] + b"\r\n535 5.7.8", b"\r\n535-" + line[30:] + b"\r\n535 5.7.8")
        report, _ = sign_in(settings, *challenges, answer)
        assert report is not None
        assert report.reply is not None
        assert report.reply.code == 535
        assert [secret for secret in secrets if secret in f"{report}"] == []
    assert password not in f"{settings!r}"


def test_a_token_in_the_error_challenge_is_not_reported() -> None:
    error = json.dumps({"status": f"bad {TOKEN}"}).encode()
    report, _ = sign_in(relay("xoauth2", password=TOKEN), challenge(b""), challenge(error), NO)
    assert "status bad" in str(report and report.reply)
    assert TOKEN[:40] not in f"{report}"


OCTETS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [SERVER_FIRST.encode(), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4", b"e=no", ERROR, b"<1@x>", b""]
    ),
)
TEXTS = st.one_of(OCTETS.map(b64encode), st.text(st.characters(max_codepoint=0x2FF)).map(str.encode))
REPLIES = st.builds(
    lambda code, text: b"%d %b\r\n" % (code, text.replace(b"\r", b"").replace(b"\n", b"")),
    st.sampled_from([235, 250, 334, 334, 334, 334, 354, 421, 454, 501, 535, 554]),
    TEXTS,
)


@settings(max_examples=300)
@given(st.sampled_from(sorted(ECHOING)), st.lists(REPLIES, max_size=5))
def test_whatever_a_relay_answers_is_one_attempt_and_a_report(mechanism: str, replies: list[bytes]) -> None:
    secret = "correct-horse-battery-staple"
    report, said = sign_in(relay(mechanism, password=secret), *replies, b"")
    assert len(said) <= 5
    assert [line.startswith(b"AUTH ") for line in said] == [True] + [False] * (len(said) - 1)
    if report is None:
        assert replies[len(said) - 1][:1] == b"2"
        assert mechanism != "scram-sha-256", "it does not know the password, and cannot prove that it does"
    else:
        assert report.stage is Stage.AUTH
        assert bool(report.fault) == (report.reply is None)
        assert secret not in f"{report}"
