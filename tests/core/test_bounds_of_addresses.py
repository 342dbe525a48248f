"""Each bound of addresses from both its sides, and each way in which a text is none."""

from __future__ import annotations

import pytest

from outbox.core.address import (
    MAX_ADDRESS,
    MAX_DOMAIN,
    MAX_LOCAL,
    MAX_NAME,
    Address,
    ascii_domain,
    excerpt,
    parse_address,
    parse_address_list,
    parse_header,
)


def test_what_an_address_may_have_at_most() -> None:
    assert (MAX_NAME, MAX_LOCAL, MAX_DOMAIN, MAX_ADDRESS) == (1000, 64, 255, 254)
    assert parse_address(f'"{"n" * 1000}" <a@b.example>').name == "n" * 1000
    with pytest.raises(ValueError, match="longer than 1000"):
        parse_address(f'"{"n" * 1001}" <a@b.example>')
    umlauts = "ü" * 32  # 64 octets
    assert parse_address(f"{umlauts}@b.example").local == umlauts
    with pytest.raises(ValueError, match="longer than 64 octets"):
        parse_address(f"{umlauts}x@b.example")
    domain = ".".join(["d" * 60] * 3) + ".example"  # 190
    assert len(parse_address(f"{'x' * 63}@{domain}").email) == 254
    with pytest.raises(ValueError, match="longer than 254 octets"):
        parse_address(f"{'x' * 64}@{domain}")
    with pytest.raises(ValueError, match="longer than 254 octets"):
        parse_address(f"Ann <{'x' * 64}@{domain}>")


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", []),
        (" , ,", []),
        ("a@b.example (Ann)", ["a@b.example"]),
        ("(one (two) \\) three) a@b.example", ["a@b.example"]),
        ('(a " quote) a@b.example', ["a@b.example"]),
        ('"a (no comment)" <a@b.example>', ["a@b.example"]),
        ("friends: a@b.example, c@d.example; e@f.example", ["a@b.example", "c@d.example", "e@f.example"]),
        ("nobody:;", []),
        (",a@b.example,,c@d.example,", ["a@b.example", "c@d.example"]),
    ],
)
def test_other_peoples_headers_are_read(text: str, addresses: list[str]) -> None:
    assert [each.email for each in parse_header(text)] == addresses


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(a@b.example", "a comment is not closed"),
        ('"a@b.example (x)', "a quoted string is not closed"),
        ("friends: a@b.example", "a group is not closed"),
        ("a@b.example; c@d.example", "separated by commas"),
        ("a@b.example c@d.example", "this is not an address"),
    ],
)
def test_what_cannot_be_read_for_certain_is_not(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_header(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        (" ", "it is empty"),
        ("a@b.example,", "an empty place in the list"),
        (",a@b.example", "an empty place in the list"),
        ("a@b.example;c@d.example", "separated by commas, and groups are not accepted"),
        ("Ann (home) <a@b.example>", "comments are not accepted"),
        ("ann", "there is no @ in 'ann'"),
        ("a@@b.example", "this is not an address"),
        ("Müller, Ann <a@b.example>", "put the name in double quotes: '\"Müller, Ann\" <a@b.example>'"),
        ("Ann @ home <a@b.example>", "this is not an address"),
        ("Dr. [x] <a@b.example>", "put the name in double quotes: '\"Dr. \\[x\\]\" <a@b.example>'"),
        ("a..b@c.example", "a dot too many"),
        ('""@c.example', "the part before the @ is empty"),
        ('"a<b"@c.example', "has < or > in it"),
        ("a\u200bb@c.example", "an invisible character"),
        ("a\x00b@c.example", "a control character"),
        ("a@[1.2.3]", "is not an address literal"),
        ("a@[IPv6:::1%eth0]", "is not an address literal"),
        ("a@b..example", "it has an empty part"),
        (f"a@{'x' * 64}.example", "a part of it is longer than 63 characters"),
        ("a@-b.example", "may only have letters, digits and inner hyphens"),
        ("a@fußball.example", "not the same domain to all software"),
        ("a@☃.example", "no agreed ASCII form"),
        ("a@b\u3002example", "no agreed ASCII form"),
    ],
)
def test_why_an_address_is_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_address_list(text)


@pytest.mark.parametrize(
    ("domain", "ascii_form"),
    [
        ("Bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("例え.example", "xn--r8jz45g.example"),
        ("ｅxample.com", "example.com"),
        ("שלום.example", "xn--9dbne9b.example"),
        ("l·l.example", "xn--ll-0ea.example"),
        ("x" * 63 + ".example", "x" * 63 + ".example"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("[ipv6:2001:db8::1]", "[ipv6:2001:db8::1]"),
    ],
)
def test_a_domain_has_one_ascii_form(domain: str, ascii_form: str) -> None:
    assert ascii_domain(domain) == ascii_form


def test_an_excerpt_has_sixty_characters() -> None:
    assert excerpt("x" * 60) == repr("x" * 60)
    assert excerpt("x" * 61) == repr("x" * 60 + "…")


def test_an_address_is_written_so_that_it_is_read_again() -> None:
    for name in ("", "Ann", "Ann B", "Müller, Ann", 'a "b" \\c', "Dr. Ann"):
        address = Address(name, "ann", "example.net")
        assert parse_address(str(address)) == address
    assert str(Address("Ann B", "ann", "example.net")) == "Ann B <ann@example.net>"
    assert str(Address("Dr. Ann", "ann", "example.net")) == '"Dr. Ann" <ann@example.net>'
