"""Which addresses a relay may have.

A relay is named by an operator, but what its name leads to is up to whoever runs its DNS; and where an account can be
changed by somebody else, so is the name. An SMTP client that connects anywhere and reports what it hears is a probe
into its own network. So the address is judged, not the name, after it was resolved, and that address is connected to.

    never           where no relay is: unspecified, link-local (169.254.169.254 is where clouds keep credentials; so are
                    the others of METADATA), multicast, broadcast, reserved
    else            everywhere, unless the operator says which networks: on this machine and in private networks is
                    where most relays are

An IPv4 address within an IPv6 one (mapped, NAT64, 6to4, Teredo) is judged as what it leads to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PUBLIC, PRIVATE, LOOPBACK = "public", "private", "loopback"
WORDS = (PUBLIC, PRIVATE, LOOPBACK)

METADATA = frozenset(map(ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254")))
"""Where Alibaba, Azure, Amazon and Google serve a machine's own secrets, besides 169.254.169.254."""

_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
_SITE_LOCAL = ip_network("fec0::/10")
_NAT64 = tuple(IPv6Network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/96"))
_COMPATIBLE = IPv6Network("::/96")
_THIS_NETWORK = IPv4Network("0.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Networks:
    """Where relays may be: networks, and some of WORDS. Neither: anywhere but where none is."""

    words: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, items: Iterable[str]) -> Networks:
        """Of ``public``, ``10.1.0.0/16``, ``192.0.2.7`` … Raises ValueError with a sentence."""
        words, networks = set(), []
        for item in items:
            if item in WORDS:
                words.add(item)
                continue
            try:
                networks.append(ip_network(item))
            except ValueError:
                raise ValueError(f"{item!r} is not a network as 10.1.0.0/16, nor {', '.join(WORDS)}") from None
        return cls(frozenset(words), tuple(networks))

    def refusal(self, text: str) -> str:
        """Why nothing is sent to this address, in words; ``""`` where it may be."""
        try:
            address = _innermost(ip_address(text.partition("%")[0]))
        except ValueError:
            return "it is not an address"
        if nature := _never(address):
            return f"{nature}, and no relay is there"
        if (self.words or self.networks) and not self._allows(address):
            return "it is in none of the networks of relay_networks"
        return ""

    def _allows(self, address: Address) -> bool:
        return _kind(address) in self.words or any(address in each for each in self.networks)


ANYWHERE = Networks()


def _innermost(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
    if inner is None and any(address in each for each in _NAT64):
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address


def _never(address: Address) -> str:
    if address in METADATA:
        return "it is where a cloud keeps the secrets of its machines"
    if address.is_link_local:
        return "it is link-local"
    if address.is_multicast:
        return "it is a multicast address"
    if address.is_unspecified or address in _THIS_NETWORK:
        return "it is the unspecified address"
    if address.is_loopback:
        return ""
    if address in _COMPATIBLE or address in _SITE_LOCAL or address.is_reserved:
        return "it is reserved"
    return ""


def _kind(address: Address) -> str:
    if address.is_loopback:
        return LOOPBACK
    if any(address in each for each in _PRIVATE):
        return PRIVATE
    return PUBLIC if address.is_global else ""
