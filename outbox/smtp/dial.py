"""From a host name to a connected socket, and the rules of TLS.

All addresses are tried, the next one as soon as one has failed or has been silent for a quarter of a second, whichever
answers first wins (RFC 8305): a host whose IPv6 leads nowhere costs a quarter of a second and not the whole deadline.
A name is resolved once, and what it was resolved to is judged (`outbox.core.networks`) and connected to.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import cast

from outbox.core.outcome import Report, Stage
from outbox.core.reply import sanitise
from outbox.smtp.relay import Relay

HEAD_START = 0.25
"""Seconds an address has for itself before the next one is tried beside it."""

MAX_ADDRESSES = 8

_STRICT = range(80, 94)
"""OpenSSL's X509_V_ERR_… that only strict verification has, which is Python's default since 3.13."""
_AGAINST_RFC_5280 = "; that is against RFC 5280: have it, or its authority's, made anew, or pin it"

Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]


async def dial(relay: Relay, seconds: float) -> socket.socket | Report:
    """A connected, non-blocking socket, or a report of stage DNS or CONNECT. `seconds` is the deadline for both."""
    stage = Stage.DNS
    try:
        async with asyncio.timeout(seconds):
            found = await _resolve(relay.host, relay.port)
            addresses = [each for each in found if not relay.networks.refusal(str(each[1][0]))]
            if not addresses:
                return Report(Stage.CONNECT, fault=_refused(relay, str(found[0][1][0])))
            stage = Stage.CONNECT
            return await _race(addresses)
    except TimeoutError:
        return Report(stage, fault=f"no answer from {relay.host} port {relay.port} within {seconds:g} s")
    except socket.gaierror as error:
        return Report(Stage.DNS, fault=f"cannot resolve {relay.host}: {error.strerror}")
    except OSError as error:
        return Report(stage, fault=f"cannot connect to {relay.host} port {relay.port}: {_words(error)}")


def _refused(relay: Relay, address: str) -> str:
    found = f"{relay.host} is {address}" if relay.host != address else address
    return f"will not connect to {found}: {relay.networks.refusal(address)}"


async def _resolve(host: str, port: int) -> list[Address]:
    """Each address once, the families taking turns, in the system's order of preference (RFC 6724)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[socket.AddressFamily, list[Address]] = {}
    for family, _, _, _, address in found:
        if (family, address) not in families.setdefault(family, []):
            families[family].append((family, address))
    turns = max(map(len, families.values()))
    mixed = [each[turn] for turn in range(turns) for each in families.values() if turn < len(each)]
    return mixed[:MAX_ADDRESSES]


async def _race(addresses: Sequence[Address]) -> socket.socket:
    """The first connection that is made. Raises the OSErrors of all, as one, when there is none."""
    waiting = list(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_connect(*waiting.pop(0))))
            timeout = HEAD_START if waiting else None
            done, running = await asyncio.wait(running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            winners = [each for each in done if each.exception() is None]
            if winners:
                running |= set(winners[1:])
                return winners[0].result()
            errors += [error for each in done if isinstance(error := each.exception(), OSError)]
    finally:
        await _call_off(running)
    raise OSError("; ".join(dict.fromkeys(_words(error) for error in errors)))


async def _connect(family: socket.AddressFamily, address: object) -> socket.socket:
    # With the protocol named, asyncio turns Nagle off: else the dot, a segment of its own, waits 40 ms for an ACK.
    connecting = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        connecting.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connecting, address)  # type: ignore[arg-type]
    except BaseException:
        connecting.close()
        raise
    return connecting


async def _call_off(running: set[asyncio.Task[socket.socket]]) -> None:
    for each in running:
        each.cancel()
    for late in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(late, socket.socket):
            late.close()


def _words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):  # asyncio has only "Connect call failed" to say of it
        return "connection refused"
    if isinstance(error, ssl.SSLError):
        return sanitise(error.reason or str(error))
    return sanitise(os.strerror(error.errno) if error.errno else str(error))


def is_loopback(address: str) -> bool:
    """Whether the peer is this machine: the address, not the name, because a name can be made to point anywhere."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def tls_context(ca_file: str, *, pinned: bool = False) -> ssl.SSLContext:
    """TLS 1.2 or later, chain and name verified, against `ca_file` alone or the system's authorities. There is no way
    to switch verification off: with `pinned`, neither is asked, and `pin_fault` must be. Raises OSError (ssl.SSLError
    is one) when `ca_file` cannot be read.
    """
    return _pinned() if pinned else _context(ca_file, os.stat(ca_file).st_mtime_ns if ca_file else 0)


@lru_cache(maxsize=32)
def _context(ca_file: str, changed: int) -> ssl.SSLContext:
    """Loading the system's authorities takes tens of milliseconds; a changed file is read again."""
    context = ssl.create_default_context(cafile=ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


@lru_cache(maxsize=1)
def _pinned() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def pin_fault(relay: Relay, certificate: bytes | None) -> str:
    """Why this certificate (DER) is not the one that the account pins, in words; ``""`` where it is, or none is."""
    if not relay.tls_pins:
        return ""
    seen = hashlib.sha256(certificate or b"").hexdigest()
    if seen in map(str.lower, relay.tls_pins):
        return ""
    return f"the relay's certificate is not the pinned one: its SHA-256 is {seen}"


def tls_name(peer: ssl.SSLObject) -> str:
    """``"TLSv1.3 TLS_AES_256_GCM_SHA384"``."""
    cipher = peer.cipher()
    return f"{peer.version()} {cipher[0] if cipher else ''}"  # the cipher names the oldest version that has it


def tls_fault(error: Exception) -> str:
    """A failed handshake in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _AGAINST_RFC_5280 if error.verify_code in _STRICT else ""
        return sanitise(f"the relay's certificate is not to be trusted: {error.verify_message}{hint}")
    if isinstance(error, ssl.SSLError):
        return sanitise(f"TLS failed: {error.reason or error}")
    return sanitise(f"TLS failed: {error}")


def settings_flaw(relay: Relay) -> str:
    """What makes an account's settings unusable, before anything is tried; ``""`` when nothing does."""
    flaw = relay.flaw()
    if flaw or relay.tls == "none":
        return flaw
    try:
        tls_context(relay.ca_file, pinned=bool(relay.tls_pins))
    except OSError as error:
        return f"CA file {relay.ca_file}: {_words(error)}"
    return ""


def unread(transport: asyncio.BaseTransport) -> bytes:
    """What a plain socket has received and nobody has read, when writing to it has failed."""
    try:
        with transport.get_extra_info("socket").dup() as receiving:
            receiving.setblocking(False)
            return cast(bytes, receiving.recv(64 * 1024))
    except OSError:
        return b""
