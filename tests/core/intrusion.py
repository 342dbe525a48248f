"""Whether a message or an envelope became more than it was meant to be, by its octets and by this Python's parser.

Standard library alone, like `tests.core.injection`, which makes the cases. Each check returns its faults as sentences.
"""

from __future__ import annotations

import email
import email.message
import email.policy
import json
import re
from collections.abc import Sequence
from typing import Any

from outbox.core.address import parse_address, parse_address_list
from outbox.core.dsn import Dsn
from outbox.core.message import Message, recipients_of
from outbox.core.outcome import Envelope
from outbox.core.render import Rendered, render
from outbox.core.secret import Secret
from outbox.errors import InvalidMessage
from outbox.smtp.dialogue import Dialogue
from outbox.smtp.opening import opening
from outbox.smtp.relay import Relay
from outbox.smtp.session import Session
from tests.smtp.peer import Peer, session, transact

Result = tuple[bool, list[str]]
"""Whether it was composed (else it was refused), and the faults."""

REFUSED: Result = (False, [])
PART_FIELDS = {"content-type", "content-transfer-encoding", "content-disposition", "content-id"}
HELLO = Rendered(b"From: shop@example.com\r\n\r\nHello\r\n", smtputf8=False, eight_bit=False)

_PATH = rb'<(?:"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*"|[^\x00-\x20\x7f<>"])*>'
_XTEXT = rb"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_UTF8_XTEXT = rb"(?:[!-*,-<>-\[\]-~\x80-\xff]|\\x\{[0-9A-F]+\})+"
_NOTIFY = rb"(?:NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2})"
_MAIL = re.compile(
    rb"MAIL FROM:(?P<path>" + _PATH + rb")(?: SIZE=\d+)?(?: RET=(?:FULL|HDRS))?(?: ENVID=" + _XTEXT + rb")?"
    rb"(?: BODY=8BITMIME)?(?P<utf8> SMTPUTF8)?"
)
_RCPT = re.compile(
    rb"RCPT TO:(?P<path>" + _PATH + rb")(?: NOTIFY=" + _NOTIFY + rb")?"
    rb"(?: ORCPT=(?:rfc822;" + _XTEXT + rb"|utf-8;" + _UTF8_XTEXT + rb"))?"
)
_HELLO = re.compile(rb"(?:EHLO|HELO) [!-~]+")
_AUTH = re.compile(rb"AUTH PLAIN(?: [A-Za-z0-9+/]+=*)?")


# -------------------------------------------------------------------- cases


def composed_case(message: Message, recipients: Sequence[str]) -> Result:
    """A message that is for `recipients`, whatever else is in its columns."""
    try:
        rendered = render(message)
        found = [each.address for each in recipients_of(message)]
    except InvalidMessage:
        return REFUSED
    faults = [] if found == list(recipients) else [f"it is for {found}"]
    faults += octet_faults(rendered.data, meant_fields(message))
    faults += parser_faults(rendered, message)
    _, spoken = envelope_case(message.sender, tuple(found), rendered)
    return True, faults + spoken


def address_case(message: Message) -> Result:
    """A message of shop@ or under example.com, to people at example.net: one in each column, or more where there is a
    comma between addresses, which is then the application's own list.
    """
    try:
        rendered = render(message)
        found = [each.address for each in recipients_of(message)]
        path = parse_address(message.return_path or message.sender)
    except (InvalidMessage, ValueError):
        return REFUSED
    columns = [parse_address_list(text) for text in (message.recipients, message.cc, message.bcc) if text]
    given = {address.wire.lower() for column in columns for address in column}
    faults = [] if {each.lower() for each in found} == given else [f"it is for {found}, and not {given}"]
    for text in (message.recipients, message.cc, message.bcc, message.reply_to, message.sender, message.return_path):
        faults += _stranger_faults(text)
    faults += octet_faults(rendered.data, meant_fields(message))
    faults += parser_faults(rendered, message)
    _, spoken = envelope_case(path.wire, tuple(found), rendered)
    return True, faults + spoken


def envelope_case(return_path: str, recipients: tuple[str, ...], message: Rendered = HELLO) -> Result:
    """What is said of an envelope, to a relay that has every extension."""
    return _spoken(Envelope(return_path, recipients), message)


def dsn_case(dsn: Dsn) -> Result:
    """What is said of notifications."""
    return _spoken(Envelope("shop@example.com", ("ann@example.net",), dsn), HELLO)


def hello_case(name: str, username: str) -> Result:
    """How we introduce ourselves, and sign in."""
    relay = Relay("relay.example", 25, "none", helo=name, username=username, password=Secret(name))
    if relay.flaw():
        relay = Relay("relay.example", 25, "none", username=username, password=Secret("a"))
        if relay.flaw():
            return REFUSED
    peer = Peer({b"EHLO": b"250-relay.example\r\n250 AUTH PLAIN\r\n", b"AUTH": b"235 2.7.0 ok\r\n"})
    begun = Session(relay, loopback=True)
    peer.play(Dialogue(begun), opening(begun))
    lines = b"".join(peer.said).split(b"\r\n")
    patterns = [_HELLO, _AUTH]
    good = len(lines) == 3 and all(map(re.Pattern.fullmatch, patterns, lines)) and lines[2] == b""
    return True, [] if good else [f"it said {lines}"]


# -------------------------------------------------------------------- what is said


def _spoken(envelope: Envelope, message: Rendered) -> Result:
    peer = Peer()
    opened = session(size=0, eight_bit=True, smtputf8=True, dsn=True)
    try:
        transact(peer, opened, envelope, message)
    except KeyError as unknown:
        return True, [f"it said the command {unknown}"]
    if not peer.said:
        return REFUSED
    return True, command_faults(b"".join(peer.said), envelope) + _body_faults(peer.body, message)


def command_faults(said: bytes, envelope: Envelope) -> list[str]:
    """One MAIL, a RCPT for each of some of the recipients, in their order, DATA, the dot; and nothing else."""
    lines = said.split(b"\r\n")
    mail = _MAIL.fullmatch(lines[0])
    people = [_RCPT.fullmatch(line) for line in lines[1:-3]]
    if mail is None or None in people or lines[-3:] != [b"DATA", b".", b""]:
        return [f"it said {lines}"]
    faults = []
    if mail["path"] != f"<{envelope.return_path}>".encode():
        faults.append(f"it spoke for {mail['path']!r}")
    if not mail["utf8"] and not said.isascii():
        faults.append("it said what is not ASCII without SMTPUTF8")
    wanted = iter(f"<{address}>".encode("utf-8", "surrogatepass") for address in envelope.recipients)
    if not all(person is not None and person["path"] in wanted for person in people):
        faults.append(f"it said {lines}")
    return faults


def _body_faults(body: bytes | None, message: Rendered) -> list[str]:
    """Between DATA and the dot: the message, its leading dots doubled, and no line that is a dot alone."""
    if body is None:
        return []
    lines = body.split(b"\r\n")
    if lines.pop() != b"" or b"." in lines or any(mark in line for line in lines for mark in (b"\r", b"\n", b"\0")):
        return ["a line of its body ends the message"]
    bare = b"\r\n".join([line[1:] if line[:1] == b"." else line for line in lines]) + b"\r\n"
    return [] if bare == message.data else ["its body is another one"]


# -------------------------------------------------------------------- what is composed


def meant_fields(message: Message) -> list[str]:
    """The fields that the columns name, in order: computed from the row alone."""
    if message.raw:
        return ["From", "To", "Subject", "Date", "Message-ID"]
    names = ["Date", "From", *(["To"] if message.recipients or not message.cc else []), *(["Cc"] if message.cc else [])]
    names += ["Reply-To"] if message.reply_to else []
    names += ["Subject"] if message.subject else []
    names.append("Message-ID")
    for name, value in json.loads(message.headers or "{}").items():
        names += [name] * (len(value) if isinstance(value, list) else 1)
    if "auto-submitted" not in [name.lower() for name in names]:
        names.append("Auto-Submitted")
    single = not message.attachments and not (message.text_body and message.html_body)
    return [*names, "MIME-Version", "Content-Type", *(["Content-Transfer-Encoding"] if single else [])]


def octet_faults(data: bytes, names: Sequence[str]) -> list[str]:
    """By the octets: the fields, and nothing that any relay may take for the end of a line, or of the message."""
    faults = []
    without = data.replace(b"\r\n", b"")
    if b"\r" in without or b"\n" in without or b"\0" in without:
        faults.append("it has a bare CR or LF, or a NUL")
    header = data.partition(b"\r\n\r\n")[0]
    found = [line.partition(b":")[0].decode() for line in header.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    if found != list(names):
        faults.append(f"its fields are {found}")
    if max(map(len, data.split(b"\r\n"))) > 998:
        faults.append("it has a line longer than 998 octets")
    return faults


def parser_faults(rendered: Rendered, message: Message) -> list[str]:
    """By the standard library: the fields, the parts, what the values decode to; and the same once it has written the
    message again.
    """
    names = meant_fields(message)
    faults = []
    for policy in (email.policy.compat32, email.policy.default):
        read: Any = email.message_from_bytes(rendered.data, policy=policy)
        if read.keys() != names:
            faults.append(f"its fields are {read.keys()}")
        faults += _part_faults(read, message)
    faults += [f"the field {name} has a line break in it" for name, value in read.items() if _breaks(value)]
    # An attached message has a header of its own, which the application made and Python 3.13 may not be able to fold.
    if not rendered.smtputf8 and not any(each.content_type.startswith("message/") for each in message.attachments):
        again = email.message_from_bytes(read.as_bytes(), policy=email.policy.compat32)
        faults += [f"written again, it has {name}" for name in again if name not in names]
    return faults


def _part_faults(read: email.message.Message, message: Message) -> list[str]:
    leaves = list(_leaves(read))
    bodies = 1 if message.raw else bool(message.text_body) + bool(message.html_body) or 1
    faults = [] if len(leaves) == bodies + len(message.attachments) else [f"it has {len(leaves)} parts"]
    if not message.raw:
        faults += [f"a part of it is {part.defects}" for part in (read, *leaves) if part.defects]
    for part in leaves if len(leaves) > 1 else []:
        keys = [name.lower() for name in part.keys()]  # noqa: SIM118 - a name may come twice
        if not set(keys) <= PART_FIELDS or len(set(keys)) != len(keys):
            faults.append(f"a part of it has the fields {keys}")
    return faults


def _leaves(part: Any) -> Any:
    """The parts that hold content; an attached message is one, whatever it holds."""
    if part.get_content_maintype() == "multipart":
        for inner in part.get_payload():
            yield from _leaves(inner)
    else:
        yield part


def _breaks(value: str) -> bool:
    return any(mark in value for mark in "\r\n\0")


def _stranger_faults(text: str) -> list[str]:
    """One address is at the domain that stands last in it, whatever comes before."""
    if not text or "," in text:
        return []
    domain, last = parse_address(text).domain, text.rpartition("@")[2].strip(" \t>")
    return [] if domain == last else [f"{text!a} is taken to be at {domain}"]
