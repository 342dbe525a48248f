"""The body of a composed message as MIME parts (RFC 2045–2047, 2183, 2387), always 7-bit.

    text alone, html alone     text/plain, text/html
    both                       multipart/alternative(text, html)
    html with inline images    multipart/related(html, image…) in the html's place
    other attachments          multipart/mixed(the above, attachment…)

7-bit whatever the relay offers, so that the bytes, their sha256 and a signature do not depend on the relay: ASCII with
lines within 998 goes as it is, text that is mostly ASCII as quoted-printable, everything else as base64.
"""

from __future__ import annotations

import re
from binascii import b2a_qp
from collections.abc import Iterator, Sequence
from itertools import count, starmap
from typing import NamedTuple

from outbox.core.address import excerpt
from outbox.core.header import check_text, verify_block
from outbox.core.lines import has_long_line, with_crlf
from outbox.core.message import Attachment
from outbox.core.pieces import LARGE, Piece, Stream, at_line_ends, base64, base64_lines, in_pieces
from outbox.core.words import parameter, pieces_field

MAX_FILENAME = 1000
MAX_CONTENT_TYPE = 255

_ASCII = bytes(range(128))
_MARK = r"[A-Za-z0-9!#$%&'*+.^_`{|}~\-]"  # of a token, RFC 2045 §5.1
_PAIR = rf'{_MARK}++=(?:{_MARK}++|"(?>(?:[ -!#-\[\]-~]|\\[ -~])*)")'
_CONTENT_TYPE = re.compile(rf"([A-Za-z0-9]{_MARK}*+)/[A-Za-z0-9]{_MARK}*+((?>(?:[ \t]*+;[ \t]*+{_PAIR})*))")
_PARAMETER = re.compile(_PAIR)
_CONTENT_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@\-]{1,255}")


class Part(NamedTuple):
    """A body part: its fields as (name, folded field), and its body in pieces, to be joined once.

    Text ends with a line end of its own; the one before a boundary belongs to the boundary.
    """

    fields: tuple[tuple[str, str], ...]
    body: tuple[Piece, ...]


_MIME_7BIT = ("Content-Transfer-Encoding", "Content-Transfer-Encoding: 7bit")
_MIME_QP = ("Content-Transfer-Encoding", "Content-Transfer-Encoding: quoted-printable")
_MIME_BASE64 = ("Content-Transfer-Encoding", "Content-Transfer-Encoding: base64")
PLAIN = ("Content-Type", "Content-Type: text/plain; charset=utf-8")
_HTML = ("Content-Type", "Content-Type: text/html; charset=utf-8")


def compose_body(text: str | None, html: str | None, attachments: Sequence[Attachment], seed: str) -> Part:
    """The whole body. `seed` makes its boundaries: the same seed and content give the same bytes.

    Raises ValueError with a sentence for what cannot be composed.
    """
    places = [*enumerate(attachments, 1)]
    inline = [each for each in places if each[1].content_id] if html else []
    names = [each.content_id for _, each in inline]
    if len(set(names)) != len(names):
        twice = max(names, key=names.count)
        raise ValueError(f"two attachments have the same content_id, {excerpt(twice)}")
    if html:
        body = text_part(html, _HTML)
        if inline:
            body = multipart("related", [body, *starmap(_attachment_part, inline)], seed, ' type="text/html";')
        if text:
            body = multipart("alternative", [text_part(text, PLAIN), body], seed)
    else:
        body = text_part(text or "", PLAIN)
    others = [each for each in places if not each[1].content_id] if inline else places
    if others:
        body = multipart("mixed", [body, *starmap(_attachment_part, others)], seed)
    return body


def compose_block(fields: Sequence[tuple[str, str]]) -> bytes:
    """A header block with the empty line that ends it, verified. Raises ValueError if it is not what was meant."""
    block = ("\r\n".join([field for _, field in fields]) + "\r\n\r\n").encode()
    verify_block(block, [name for name, _ in fields])
    return block


def check_attachment(attachment: Attachment) -> None:
    """Whether an attachment can be composed. Raises ValueError with a sentence."""
    _attachment_fields(attachment)
    if _is_message(attachment):
        for piece in at_line_ends(attachment.content):
            _message_body(piece)


def text_part(text: str, content_type: tuple[str, str] = PLAIN) -> Part:
    """A text in the plainest encoding that carries it."""
    if len(text) > LARGE:
        return _large_text_part(text, content_type)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text and text[-1] != "\n":
        text += "\n"
    data = text.encode().replace(b"\n", b"\r\n")
    if data.isascii() and not has_long_line(data) and b"\0" not in data:
        return Part((content_type, _MIME_7BIT), (data,))
    # Quoted-printable spends three octets on each that is not ASCII, base64 four on every three of them all.
    if 6 * len(data.translate(None, _ASCII)) <= len(data):
        return Part((content_type, _MIME_QP), (b2a_qp(data, istext=True),))
    return Part((content_type, _MIME_BASE64), (base64(data) + b"\r\n",))


def _large_text_part(text: str, content_type: tuple[str, str]) -> Part:
    """The same, read several times and in pieces."""
    if text.isascii() and "\0" not in text and not any(map(has_long_line, _lines(text))):
        return Part((content_type, _MIME_7BIT), (Stream(lambda: _lines(text), text),))
    octets = others = 0
    for piece in _lines(text):
        octets += len(piece)
        others += len(piece.translate(None, _ASCII))
    if 6 * others <= octets:
        encoded = Stream(lambda: (b2a_qp(piece, istext=True) for piece in _lines(text)))
        return Part((content_type, _MIME_QP), (encoded,))
    return Part((content_type, _MIME_BASE64), (Stream(lambda: base64_lines(_lines(text))), b"\r\n"))


def _lines(text: str) -> Iterator[bytes]:
    """Whole lines of a text that is not empty, as octets with CRLF."""
    for piece in at_line_ends(text):
        if "\r" in piece:
            piece = piece.replace("\r\n", "\n").replace("\r", "\n")
        yield (piece if piece[-1] == "\n" else piece + "\n").encode().replace(b"\n", b"\r\n")


def _attachment_part(place: int, attachment: Attachment) -> Part:
    """The `place` counts from 1, for people."""
    content = attachment.content
    try:
        fields = _attachment_fields(attachment)
    except ValueError as fault:
        raise ValueError(f"attachment {place}: {fault}") from None
    if _is_message(attachment):
        message = Stream(lambda: map(_message_body, at_line_ends(content)), content)
        return Part((*fields, _MIME_7BIT), (message if len(content) > LARGE else _message_body(content),))
    encoded = Stream(lambda: base64_lines(in_pieces(content))) if len(content) > LARGE else base64(content)
    return Part((*fields, _MIME_BASE64), (encoded,))


def _attachment_fields(attachment: Attachment) -> tuple[tuple[str, str], ...]:
    filename, content_id = attachment.filename, attachment.content_id
    for column in ("filename", "content_type", "content_id"):
        if not isinstance(getattr(attachment, column), str):  # SQLite keeps what is put in
            raise ValueError(f"column {column} holds bytes, and no text")
    if len(filename) > MAX_FILENAME:
        raise ValueError(f"the filename {excerpt(filename)} is longer than {MAX_FILENAME} characters")
    if "\t" in filename:
        raise ValueError(f"the filename {excerpt(filename)} has a tab in it")
    check_text(filename, "the filename")
    if content_id and not _CONTENT_ID.fullmatch(content_id):
        raise ValueError(f"the content_id {excerpt(content_id)} must be like logo@shop.example")
    disposition = " inline" if content_id else " attachment"
    pieces = [f"{disposition};", *parameter("filename", filename)] if filename else [disposition]
    fields = [
        _content_type_field(attachment.content_type),
        ("Content-Disposition", pieces_field("Content-Disposition", pieces)),
    ]
    if content_id:
        fields.append(("Content-ID", f"Content-ID: <{content_id}>"))
    return tuple(fields)


def _content_type_field(content_type: str) -> tuple[str, str]:
    match = _CONTENT_TYPE.fullmatch(content_type)
    if match is None or len(content_type) > MAX_CONTENT_TYPE or "=?" in content_type:
        raise ValueError(f"{excerpt(content_type)} is not a content type such as image/png or text/csv; charset=utf-8")
    if match[1].lower() == "multipart":
        raise ValueError(f"an attachment cannot be {excerpt(content_type)}: attach each part of it")
    essence = content_type[: match.start(2)]
    pieces = [f" {essence}", *(f" {parameter}" for parameter in _PARAMETER.findall(match[2]))]
    return "Content-Type", pieces_field("Content-Type", [f"{piece};" for piece in pieces[:-1]] + pieces[-1:])


def _is_message(attachment: Attachment) -> bool:
    return attachment.content_type[:8].lower() == "message/"


def _message_body(content: bytes) -> bytes:
    """Whole lines of it. RFC 2046 §5.2 forbids to encode message/rfc822 and its like: they go as they are, or not at
    all.
    """
    content = with_crlf(content)
    if not content.isascii() or b"\0" in content or has_long_line(content):
        raise ValueError("an attached message must be ASCII with lines of at most 998 characters: attach it as a file")
    return content


def multipart(subtype: str, parts: Sequence[Part], seed: str, parameters: str = "") -> Part:
    """Parts as one; `parameters` are more of its Content-Type, as `` name=value;``."""
    boundary = _boundary(subtype, parts, seed)
    delimiter = f"--{boundary}\r\n".encode()
    body: list[Piece] = []
    for part in parts:
        body += [delimiter, compose_block(part.fields), *part.body]
        delimiter = f"\r\n--{boundary}\r\n".encode()
    body.append(f"\r\n--{boundary}--\r\n".encode())
    pieces = [f" multipart/{subtype};", *filter(None, [parameters]), f' boundary="{boundary}"']
    return Part((("Content-Type", pieces_field("Content-Type", pieces)),), tuple(body))


def _boundary(subtype: str, parts: Sequence[Part], seed: str) -> str:
    """``=_`` occurs in no quoted-printable and no base64 (RFC 2045 §6.7), so only plain text can hold a boundary."""
    for number in count():
        boundary = f"=_{subtype[0]}{number or ''}.{seed}"
        if not any(boundary.encode() in piece for part in parts for piece in part.body):
            return boundary
    raise AssertionError("unreachable: a text is finite")
