"""Which hosts may be reached: public addresses alone, unless a person listed the host (the guard against SSRF).

What counts is the address of the socket that was opened, looked at before a byte is sent: a name that leads elsewhere
when it is asked a second time (DNS rebinding) gains nothing by it, and so does a redirect."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from speciate.errors import Code, SpeciateError

if TYPE_CHECKING:
    import httpx2


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 behind a NAT64 (RFC 6052)."""
_UNICAST = ipaddress.ip_network("2000::/3")
"""Where IPv6 has public addresses; elsewhere lie those of a site, of one machine, and IPv4 in forms that are no longer
used (`::127.0.0.1`, RFC 4291), of which `is_global` knows nothing."""


def is_public(address: str) -> bool:
    """Whether it is one of the open internet, also inside an IPv6 address. `address` as a socket has it."""
    return all(_is_public(each) for each in _with_embedded(ipaddress.ip_address(address)))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST and address not in _TRANSLATED:
        return False
    return address.is_global and not address.is_multicast


def may_reach(address: str, host: str, port: int, listed: Collection[str]) -> bool:
    """Whether a connection that was asked for as `host` and `port` may have this address as its peer.

    A listed name may lead to private addresses, but to link-local ones (where clouds keep their credentials) never:
    those must be listed themselves.
    """
    if is_public(address):
        return True
    if not is_listed(host, port, listed):
        return False
    return host == address or not any(each.is_link_local for each in _with_embedded(ipaddress.ip_address(address)))


def is_listed(host: str, port: int, listed: Collection[str]) -> bool:
    """An entry without a port stands for all of them."""
    return host.lower() in listed or f"{host.lower()}:{port}" in listed


def check_url(url: str, listed: Collection[str]) -> None:
    """REFUSED where the address names this machine or a private one itself, unlisted. Asks no network."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)
    if host == "localhost" or host.endswith(".localhost"):
        allowed = is_listed(host, port, listed)
    else:
        allowed = not _is_address(host) or may_reach(host, host, port, listed)
    if not allowed:
        raise _refusal(host, port, host)


Client = TypeVar("Client", "httpx2.Client", "httpx2.AsyncClient")


def guard(client: Client, listed: Collection[str]) -> Client:
    """The client, whose connections are checked from now on: they raise REFUSED in place of sending anything.

    Where the environment names a proxy for an address, the proxy is the peer, and what it reaches is its business.
    """
    pool: Any = client._transport._pool  # type: ignore[attr-defined]  # where it moves, this fails and nothing is sent
    kind = _AsyncGuard if hasattr(pool, "aclose") else _Guard
    pool._network_backend = kind(pool._network_backend, frozenset(listed))
    return client


class _Guard:
    """A network backend of httpcore2."""

    def __init__(self, inner: Any, listed: frozenset[str]) -> None:
        self._inner, self._listed = inner, listed
        self.sleep = inner.sleep

    def connect_tcp(self, host: str, port: int, *rest: Any, **options: Any) -> Any:
        _check_all(_addresses(socket.getaddrinfo, host, port), host, port, self._listed)
        stream = self._inner.connect_tcp(host, port, *rest, **options)
        try:
            _check_all([_peer(stream)], host, port, self._listed)
        except SpeciateError:
            stream.close()
            raise
        return stream


class _AsyncGuard:
    """The guard for asynchronous clients."""

    def __init__(self, inner: Any, listed: frozenset[str]) -> None:
        self._inner, self._listed = inner, listed
        self.sleep = inner.sleep

    async def connect_tcp(self, host: str, port: int, *rest: Any, **options: Any) -> Any:
        import anyio.to_thread

        names = await anyio.to_thread.run_sync(_addresses, socket.getaddrinfo, host, port, abandon_on_cancel=True)
        _check_all(names, host, port, self._listed)
        stream = await self._inner.connect_tcp(host, port, *rest, **options)
        try:
            _check_all([_peer(stream)], host, port, self._listed)
        except SpeciateError:
            await stream.aclose()
            raise
        return stream


def _addresses(ask: Any, host: str, port: int) -> list[str]:
    """What the name stands for now, so that a private one is refused before it is knocked at; the peer is what counts.
    Empty where it cannot be found out: then connecting says why."""
    try:
        return [str(found[4][0]) for found in ask(host, port, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def _peer(stream: Any) -> str:
    return str(stream.get_extra_info("server_addr")[0])


def _check_all(addresses: Iterable[str], host: str, port: int, listed: Collection[str]) -> None:
    for address in addresses:
        if not may_reach(address, host, port, listed):
            raise _refusal(host, port, address)


def _with_embedded(address: Address) -> list[Address]:
    """Itself and the IPv4 address that it wraps."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner = [address.sixtofour] if address.sixtofour else []
    if address in _TRANSLATED:
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *inner]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refusal(host: str, port: int, address: str) -> SpeciateError:
    leads = "is" if address == host else f"leads to {address},"
    return SpeciateError(
        Code.REFUSED,
        f"{host}:{port} {leads} no public address, and no person listed that host: nothing was sent.",
        f"A person decides, on a terminal: speciate hosts add {host}:{port}",
    )


_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.\-]{0,251}[a-z0-9_])?(:[0-9]{1,5})?|[0-9a-f]{0,4}(:[0-9a-f.]{0,15}){2,8}")
"""A name or an address, with a port or without; the second half is IPv6."""


def check_host(host: str) -> str:
    """The host in lower case, as keys, consents and `Endpoint.host` name it: `api.openai.com`, or `127.0.0.1:8000` if
    the address has a port. Raises INVALID for anything else, such as a whole URL."""
    if not _HOST.fullmatch(host.lower()):
        raise SpeciateError(
            Code.INVALID,
            f"{host!r} is no host: write a name, and a port where the address has one.",
            "For https://api.openai.com/v1 that is api.openai.com, for http://127.0.0.1:8000/v1 it is 127.0.0.1:8000.",
        )
    return host.lower()
