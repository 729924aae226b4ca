"""Which hosts a download may reach: those of the manifest, and public ones on the ports of http and https.

A page, a redirect or a playlist may name any address. Without this rule it could have us ask the machines of a private
network. The rule is applied to each request and, where a name leads, to each connection.
"""

import ipaddress
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from earshot.corpus.ledger import Refusal
from earshot.download.rate_limit import site_of

PORTS = (80, 443)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv6 addresses that stand for IPv4 addresses (RFC 6052)


def check_reachable(address: str, listed: Collection[str]) -> None:
    """Check an address before its request.

    Args:
        address: of the request.
        listed: the hosts of the manifest, with a port where the manifest gives one, as `site_of` returns them.

    Raises:
        Refusal: as unsupported, for a host that is not listed and has a private, loopback or link-local address, or
            another port than 80 and 443; as network for a name that cannot be used.
        ValueError: it is not an address.
    """
    parts = urlsplit(address)
    name, port = (parts.hostname or "").rstrip("."), parts.port
    if _is_listed(name, port, listed):
        return
    if port not in (None, *PORTS):
        problem = "another port than 80 and 443, and the manifest does not list it"
        raise Refusal("unsupported", f"leads to {site_of(address)}, {problem}")
    if name == "localhost" or name.endswith(".localhost") or not _is_public_literal(name):
        raise Refusal("unsupported", f"leads to {name}, {_private()}")


def guard(adapter: requests.adapters.HTTPAdapter, listed: Collection[str]) -> None:
    """Have an adapter check where names lead, before and after it connects; connections to a proxy are not checked."""

    kinds: dict[str, Any] = {
        "http": (HTTPConnectionPool, HTTPConnection),
        "https": (HTTPSConnectionPool, HTTPSConnection),
    }
    adapter.poolmanager.pool_classes_by_scheme = {
        scheme: type("Guarded", (pool,), {"ConnectionCls": _guarded(connection, listed)})
        for scheme, (pool, connection) in kinds.items()
    }


def _guarded(kind: Any, listed: Collection[str]) -> type:
    """A class of connections that checks to which address it connects."""

    def connect(self: Any) -> socket.socket:
        name, port = self.host.rstrip("."), self.port
        if _is_listed(name, port, listed):
            return kind._new_conn(self)
        try:
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)}
        except OSError:
            addresses = set()  # connecting reports it
        _check_public(name, addresses)
        connected = kind._new_conn(self)
        try:
            _check_public(name, {connected.getpeername()[0]})  # the name may have changed in between
        except Refusal:
            connected.close()
            raise
        return connected

    return type("Guarded", (kind,), {"_new_conn": connect})


def is_public(text: str) -> bool:
    """Whether an IP address is one of the public internet, also if it stands for an IPv4 address."""
    address: Any = ipaddress.ip_address(text.partition("%")[0])
    inner = None
    if address.version == 6:
        inner = address.ipv4_mapped or address.sixtofour
        inner = ipaddress.ip_address(int(address) & 0xFFFFFFFF) if address in NAT64 else inner
    return is_public(str(inner)) if inner else address.is_global and not address.is_multicast


def _is_listed(name: str, port: int | None, listed: Collection[str]) -> bool:
    return f"{name}:{port}" in listed or (port in (None, *PORTS) and name in listed)


def _is_public_literal(name: str) -> bool:
    """Whether a host may be public: a name, or an IP address in any form that is."""
    try:
        return is_public(name)
    except ValueError:
        pass
    try:
        return is_public(socket.inet_ntoa(socket.inet_aton(name)))  # forms such as 127.1 and 0x7f000001
    except (OSError, UnicodeError):
        return True


def _check_public(name: str, addresses: set[str]) -> None:
    private = sorted(address for address in addresses if not is_public(address))
    if private:
        # Pending: a network that answers every name with a page of its own must not refuse a list.
        raise Refusal("network", f"{name} is at {private[0]}, {_private()}")


def _private() -> str:
    return "a private address, and the manifest does not list this host"
