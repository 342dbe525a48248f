"""Mail addresses: one strict parser, linear in its input, for everything that becomes an envelope or a header.

    parse_address         "Ann Ö. <ann@example.net>"                 one address, with or without a name
    parse_address_list    "ann@example.net, Bo <bo@example.net>"     what the columns recipients, cc, bcc, reply_to hold
    parse_header          the same, as other people's headers write it: comments, groups and empty places too

Nothing is repaired and nothing is dropped in silence: an address either is what it says or is refused with a sentence.
The standard library's parser guesses (it took ``alice@example.org)bob@example.com`` for Alice, CVE-2023-27043, and
recurses into comments), and a guess in an envelope is mail to a stranger.

Standards: RFC 5322 §3.4 with RFC 6532 (UTF-8) and the dots of obs-phrase, ``J. Doe <j@example.net>``; RFC 5321 §4.1.2
and §4.5.3.1 (lengths). Not accepted, though some RFC allows it: white space or comments inside an address, source
routes, and ``<`` or ``>`` within a quoted local part, which too many relays misread.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from unicodedata import bidirectional, category, normalize

from outbox.core.record import record

MAX_NAME = 1000
"""Characters of a display name."""

MAX_LOCAL = 64
MAX_DOMAIN = 255
MAX_ADDRESS = 254
"""Octets: RFC 5321 §4.5.3.1.1, .2, and .3 less the angle brackets."""

# What is not atext; control characters are gone before any of these patterns is used. Said this way round because a
# class up to U+10FFFF takes milliseconds to compile, at every import.
_ATEXT = r"[^ \t()<>\[\]:;@\\,.\"]"
_RUN = r"[^ \t()<>\[\]:;@\\,\"]++"
_QUOTED = r'"[^"\\]*+(?>(?:\\.[^"\\]*+)*)"'
_WORD = rf"(?:{_RUN}|{_QUOTED})"
_SPEC = rf"({_WORD})@({_RUN}|\[[^\[\]\\ \t]*+\])"
# Quantifiers are possessive, repeated groups atomic: no character is looked at more than twice, whatever the text.
_MAILBOX = re.compile(rf"[ \t]*+(?:((?>(?:{_WORD}|[ \t]++)*))<[ \t]*+{_SPEC}[ \t]*+>|{_SPEC})[ \t]*+", re.DOTALL)
# What nearly every column holds: one bare address, of which only the lengths and the domain are left to look at.
_ONE = re.compile(r"([A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]++(?>(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]++)*))@([A-Za-z0-9.\-]++)")
_GROUP = re.compile(rf"[ \t]*+(?>(?:{_WORD}|[ \t]++)+):")
_WORDS = re.compile(_WORD, re.DOTALL)
_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DOT_ATOM = re.compile(rf"{_ATEXT}++(?>(?:\.{_ATEXT}++)*)")
_ATOMS = re.compile(rf"{_ATEXT}++(?>(?: {_ATEXT}++)*)")
_OUTSIDE = re.compile(rf"{_QUOTED}|[(\"]", re.DOTALL)
_IN_COMMENT = re.compile(r"\\.|[()]", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?")
_UNQUOTE = re.compile(r"\\(.)", re.DOTALL)
# Characters that old and new rules map differently; found by trying all of Unicode against UTS #46.
_DEVIATIONS = re.compile("[ßẞς\u115f\u1160\u17b4\u17b5\u180f\u200c\u200d\u3164\uffa0\U000e0100-\U000e01ef]")
_IDNA_CATEGORIES = frozenset(("Ll", "Lo", "Lm", "Mn", "Mc", "Nd"))
_IDNA_EXCEPTIONS = "·・͵׳״〇"  # RFC 5892 §2.6 and appendix A, without the joiners


@record
class Address:
    """A mailbox. `name` is the display name, decoded, or ``""``; `local` the part before the ``@``, quoted where it has
    to be; `domain` as given, possibly in its own script.
    """

    name: str
    local: str
    domain: str

    @property
    def email(self) -> str:
        """The bare address as written."""
        return f"{self.local}@{self.domain}"

    @property
    def wire(self) -> str:
        """The bare address as SMTP says it: the domain in ASCII (IDNA); only a non-ASCII local part needs SMTPUTF8."""
        return f"{self.local}@{ascii_domain(self.domain)}"

    def __str__(self) -> str:
        """As a column holds it: readable, and `parse_address` gives the same address back."""
        if not self.name:
            return self.email
        plain = _ATOMS.fullmatch(self.name)
        return f"{self.name if plain else quoted(self.name)} <{self.email}>"


def parse_address(text: str) -> Address:
    """One address, ``local@domain`` or ``Name <local@domain>``. Raises ValueError with a sentence."""
    addresses = parse_address_list(text)
    if len(addresses) != 1:
        raise ValueError(f"one address was expected, not {len(addresses)}: {excerpt(text)}")
    return addresses[0]


def parse_address_list(text: str) -> tuple[Address, ...]:
    """One or more addresses, separated by commas. Raises ValueError with a sentence that shows the first bad one."""
    return _parse_short(text) if len(text) <= 200 else _parse(text)


def parse_header(text: str) -> tuple[Address, ...]:
    """The addresses of an unfolded header field of somebody else's making: comments are skipped, groups flattened,
    empty places ignored. May be empty. Raises ValueError with a sentence.
    """
    return _parse_header(_without_comments(text))


def lane(email: str) -> str:
    """A bare address as the database compares it: ASCII letters in lower case, all others as they are.

    `str.lower` would also fold 'Ü', which SQLite's ``lower()`` and Postgres's ``lower(x COLLATE "C")`` leave alone.
    """
    if email.isascii():
        return email.lower()
    # Bytes that are not UTF-8, which a SQLite column may hold, stay what they are, too.
    return email.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def fold(address: str) -> str:
    """An address as it is registered and compared: a lane with the domain in its ASCII form (IDNA), so that
    ``Ann@Bücher.example`` and ``ann@xn--bcher-kva.example`` are one.
    """
    local, at, domain = address.rpartition("@")
    with suppress(ValueError):  # not a domain: it stays as it is, and equals only itself
        domain = ascii_domain(domain)
    return lane(local + at + domain)


def domain_of(email: str) -> str:
    """What follows the last ``@``, as `lane` writes it."""
    return lane(email.rpartition("@")[2])


def wildcard(email: str) -> str:
    """The registration that covers every address of the same domain: ``*@example.com``."""
    return f"*@{domain_of(email)}"


def quoted(text: str) -> str:
    """An RFC 5322 quoted-string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def excerpt(text: str) -> str:
    """A short printable piece of bad input, for an error message."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


@lru_cache(maxsize=4096)
def ascii_domain(domain: str) -> str:
    """A domain in its ASCII form (RFC 5891 A-labels), checked. Raises ValueError with a sentence.

    The standard library knows IDNA2003 only. Wherever today's rules could name another domain, the domain is refused:
    a wrong mapping sends mail to strangers. That is ß, ς, the zero-width joiners and a few more invisible
    ones, characters that Unicode 3.2 did not know how to fold, and symbols.
    """
    if len(domain) > MAX_DOMAIN:
        raise ValueError(f"the domain {excerpt(domain)} is longer than {MAX_DOMAIN} characters")
    if domain.startswith("["):
        return _literal(domain)
    labels = [label if label.isascii() else _ascii_label(label, domain) for label in domain.split(".")]
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{excerpt(domain)} is not a domain name: {_label_fault(label)}")
    return ".".join(labels)


def _ascii_label(label: str, domain: str) -> str:
    if _DEVIATIONS.search(label):
        raise ValueError(f"the domain {excerpt(domain)} is not the same domain to all software: write it as xn--…")
    today = normalize("NFKC", normalize("NFKC", label).casefold())
    try:
        # Table-driven nameprep costs 30 µs a label; a list of domains in lower-case letters should not pay it.
        prepared = label if label == today and all(map(_settled, label)) else _nameprep(label)
    except UnicodeError:
        raise ValueError(f"{excerpt(domain)} is not a domain name in any script") from None
    if prepared != today or prepared.startswith("xn--") or not all(map(_may_be_in_label, prepared)):
        raise ValueError(f"the domain {excerpt(domain)} has characters with no agreed ASCII form: write it as xn--…")
    # Folding may have made ASCII of it, even an @ or a dot: `ascii_domain` checks what comes out.
    return prepared if prepared.isascii() else "xn--" + prepared.encode("punycode").decode("ascii")


def _may_be_in_label(character: str) -> bool:
    """RFC 5892: letters, marks and digits; above all not the full stops of other scripts, which some read as a dot."""
    return character.isascii() or category(character) in _IDNA_CATEGORIES or character in _IDNA_EXCEPTIONS


@lru_cache(maxsize=2048)
def _settled(character: str) -> bool:
    """Whether a letter or digit is left alone by nameprep wherever it stands in a label, so none written leftwards."""
    letter = category(character) in ("Ll", "Lo", "Nd") and bidirectional(character) in ("L", "EN")
    return (character.isascii() or letter) and _nameprep(character) == character


def _nameprep(label: str) -> str:
    from encodings import idna  # builds large tables: only for those who need it

    return idna.nameprep(label)


def _label_fault(label: str) -> str:
    if not label:
        return "it has an empty part"
    if len(label) > 63:
        return "a part of it is longer than 63 characters"
    return f"{excerpt(label)} may only have letters, digits and inner hyphens"


def _literal(domain: str) -> str:
    """An address literal, ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` (RFC 5321 §4.1.3)."""
    import ipaddress  # rare

    inside = domain[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":
            ipaddress.IPv6Address(inside[5:])
            if "%" in inside:
                raise ValueError
        else:
            ipaddress.IPv4Address(inside)
    except ValueError:
        raise ValueError(f"{excerpt(domain)} is not an address literal") from None
    return domain


@lru_cache(maxsize=4096)
def _parse_short(text: str) -> tuple[Address, ...]:
    """The same recipients are read for the envelope and for the header: once is enough."""
    return _parse(text)


def _parse(text: str) -> tuple[Address, ...]:
    one = _ONE.fullmatch(text)
    if one is not None:
        local, domain = one.groups()
        if len(local) <= MAX_LOCAL and len(local) + 1 + len(ascii_domain(domain)) <= MAX_ADDRESS:
            return (Address("", local, domain),)
    _check_characters(text)
    found: list[Address] = []
    position = 0
    while True:
        match = _MAILBOX.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            raise ValueError(_fault(text, position, match))
        found.append(_from_match(match))
        if match.end() == len(text):
            return tuple(found)
        position = match.end() + 1


def _parse_header(text: str) -> tuple[Address, ...]:
    _check_characters(text)
    found: list[Address] = []
    position, in_group = 0, False
    while True:
        while position < len(text) and text[position] in " \t,":
            position += 1
        if position == len(text):
            if in_group:
                raise ValueError(f"a group is not closed: {excerpt(text)}")
            return tuple(found)
        if in_group and text[position] == ";":
            in_group, position = False, position + 1
        elif not in_group and (group := _GROUP.match(text, position)):
            in_group, position = True, group.end()
        else:
            match = _MAILBOX.match(text, position)
            if match is None or text[match.end() : match.end() + 1] not in ("", ",", ";" if in_group else ","):
                raise ValueError(_fault(text, position, match))
            found.append(_from_match(match))
            position = match.end()


def _from_match(match: re.Match[str]) -> Address:
    phrase, local, domain, bare_local, bare_domain = match.groups()
    if local is None:
        return _address("", bare_local, bare_domain, match[0])
    return _address(_display_name(phrase), local, domain, match[0])


def _address(name: str, local: str, domain: str, text: str) -> Address:
    if local[0] == '"':
        local = _canonical(local, text)
    elif not _DOT_ATOM.fullmatch(local):
        raise ValueError(f"the part before the @ has a dot too many: {excerpt(text.strip())}")
    octets = len(local) if local.isascii() else _octets(local, text)
    if octets > MAX_LOCAL:
        raise ValueError(f"the part before the @ is longer than {MAX_LOCAL} octets: {excerpt(text.strip())}")
    if octets + 1 + len(ascii_domain(domain)) > MAX_ADDRESS:
        raise ValueError(f"the address is longer than {MAX_ADDRESS} octets: {excerpt(text.strip())}")
    return Address(name, local, domain)


def _canonical(local: str, text: str) -> str:
    """A quoted local part without the quotes where it can do without (RFC 5321 §4.1.2 calls the two equivalent)."""
    content = _UNQUOTE.sub(r"\1", local[1:-1])
    if not content or any(character in "<>\t" for character in content):
        raise ValueError(f"the part before the @ is empty, or has < or > in it: {excerpt(text.strip())}")
    return content if _DOT_ATOM.fullmatch(content) else quoted(content)


def _octets(local: str, text: str) -> int:
    """White space and invisible characters of other scripts come from copying and pasting, never from a mailbox."""
    if any(character == "\ufffd" or category(character) in ("Zs", "Cf", "Co") for character in local):
        raise ValueError(f"there is an invisible character in the part before the @: {text.strip()[:60]!a}")
    return len(local.encode())


def _display_name(phrase: str) -> str:
    words = _WORDS.findall(phrase)
    name = single_spaced(" ".join(_UNQUOTE.sub(r"\1", word[1:-1]) if word[0] == '"' else word for word in words))
    if len(name) > MAX_NAME:
        raise ValueError(f"a name is longer than {MAX_NAME} characters: {excerpt(name)}")
    return name


def single_spaced(text: str) -> str:
    """A display name without the white space that no reader shows: at the ends, and more than one space in a row."""
    return " ".join(filter(None, text.replace("\t", " ").split(" ")))


def _check_characters(text: str) -> None:
    bad = _FORBIDDEN.search(text)
    if bad is not None:
        around = text[max(0, bad.start() - 20) : bad.start() + 20]
        raise ValueError(f"there is a control character or a broken one in it: {around!a}")


def _without_comments(text: str) -> str:
    """Comments, however deep, become a space (RFC 5322 §3.2.2). A quote in a comment, or a parenthesis in a quoted
    string, is only text: taking one for the other would hide an address.
    """
    if "(" not in text:
        return text
    kept, start, depth, position = [], 0, 0, 0
    while mark := (_IN_COMMENT if depth else _OUTSIDE).search(text, position):
        position = mark.end()
        if mark[0] == "(":
            if depth == 0:
                kept.append(text[start : mark.start()])
            depth += 1
        elif mark[0] == ")":
            depth -= 1
            start = position
        elif mark[0] == '"':
            raise ValueError(f"a quoted string is not closed: {excerpt(text)}")
    if depth:
        raise ValueError(f"a comment is not closed: {excerpt(text)}")
    kept.append(text[start:])
    return " ".join(kept)


def _fault(text: str, position: int, match: re.Match[str] | None) -> str:
    """Why `text` cannot be read from `position` on, or from the end of `match` on, as a sentence."""
    rest = text[position:]
    piece = rest[: (match.end() - position if match else 0) + 60].strip()
    if not rest.strip() or rest.lstrip().startswith(","):
        return "it is empty" if not text.strip() else f"there is an empty place in the list: {excerpt(text)}"
    if ";" in piece:
        return f"addresses are separated by commas, and groups are not accepted: {excerpt(piece)}"
    if "(" in piece:
        return f"comments are not accepted (put the name in double quotes): {excerpt(piece)}"
    if "@" not in rest:
        return f"there is no @ in {excerpt(piece)}"
    fault = f"this is not an address: {excerpt(piece)}"
    if unquoted := _UNQUOTED.match(rest[:300]):
        fault += f"; put the name in double quotes: {excerpt(quoted(unquoted[1]) + ' ' + unquoted[2])}"
    return fault


_UNQUOTED = re.compile(r'\s*([^"<>@\s][^"<>@]*?)\s*(<[^<>\s]+@[^<>\s]+>)')
"""A name that would do in quotes: ``Müller, Ann <ann@example.net>``."""
