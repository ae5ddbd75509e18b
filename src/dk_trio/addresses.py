"""Hosts as people write them: which of them only this machine reaches, which mean all, and how they stand by a port."""

from __future__ import annotations

from typing import Final

EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})
"""Hosts that a server listens on to be reached by every address of its machine. Nobody can call them."""


def bare(host: str) -> str:
    """A name or an address in lower case, without the brackets that an IPv6 address has beside a port."""
    return host.lower().removeprefix("[").removesuffix("]")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on a name or an address: surely, so no other name is asked for."""
    import ipaddress  # 4 ms that few commands need

    host = bare(host)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def with_port(host: str, port: int) -> str:
    """`HOST:PORT`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
