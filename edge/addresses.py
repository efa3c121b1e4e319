"""What an address of a station may look like, and who can reach it.

Nothing is resolved here: a name is told to be of this machine alone only if it is `localhost`.
"""

from __future__ import annotations

import ipaddress
import re

MOST_PORT = 65_535

MOST_SENDERS = 64
"""Addresses that one setting may list."""

_NO_FILE = "ipc://@"


def is_private(address: str) -> bool:
    """Whether only this machine can reach a ZeroMQ address: ipc, or tcp on loopback."""
    if address.startswith("ipc://"):
        return True
    if not address.startswith("tcp://"):
        return False
    return is_loopback(_split(address.removeprefix("tcp://"))[0])


def is_loopback(host: str) -> bool:
    """Whether a host is this machine as only it can reach itself; an interface's name is not."""
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    # An IPv4 address in IPv6's clothes is judged as what it is.
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def connected_addresses(listed: str) -> list[str]:
    """Take a list of addresses apart: separated by commas, with or without spaces."""
    return [each.strip() for each in listed.split(",") if each.strip()]


def wrong_in(address: str) -> str | None:
    """Say what a socket of the station cannot bind to; None if nothing is wrong.

    ZeroMQ takes a port of any number, and binds to what its lower 16 bits happen to be.
    """
    if address.startswith("ipc://"):
        return _wrong_in_path(address)
    if not address.startswith("tcp://"):
        return "must begin with tcp:// or ipc://"
    host, port = _split(address.removeprefix("tcp://"))
    if not host or not port or port.endswith("]"):
        return "has no port; expected tcp://host:port, for instance tcp://127.0.0.1:5555"
    if port == "*" or _is_port(port):
        return _wrong_in_host(host)
    return f"has the port {port!r}, expected 0 to {MOST_PORT}, or * for any that is free"


def wrong_in_connected(address: str) -> str | None:
    """Say what a socket of the station cannot connect to; None if nothing is wrong."""
    if address.startswith("ipc://"):
        return _wrong_in_path(address)
    if not address.startswith("tcp://"):
        return "must begin with tcp:// or ipc://"
    host, port = _split(address.removeprefix("tcp://"))
    if not host or host in ("*", "[*]"):
        return "names no host to connect to; expected tcp://host:port"
    if not _is_port(port) or int(port) == 0:
        return f"has the port {port!r}, expected 1 to {MOST_PORT}"
    return _wrong_in_host(host)


def wrong_in_http(address: str) -> str | None:
    """Say what a web server of the station cannot bind to; None if nothing is wrong."""
    host, port = _split(address)
    if not host or "/" in host or not _is_port(port):
        return "expected host:port, for instance 127.0.0.1:8787"
    return _wrong_in_host(host)


def _split(place: str) -> tuple[str, str]:
    host, _, port = place.rpartition(":")
    return host, port


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and int(text) <= MOST_PORT


def _wrong_in_host(host: str) -> str | None:
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return f"has the host {host!r}; an IPv6 address stands in brackets: [::1]"
    return None


def _wrong_in_path(address: str) -> str | None:
    if address == "ipc://":
        return "has no path; expected ipc:///run/dualbank/name"
    if address.startswith(_NO_FILE):
        return "is a name without a file, which every user of this machine can reach; give a path"
    return None
