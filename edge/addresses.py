"""What an address of a station may look like, and who can reach it."""

from __future__ import annotations

import ipaddress
import re

MOST_PORT = 65_535


def is_private(address: str) -> bool:
    """Whether only this machine can reach a ZeroMQ address: ipc, or tcp on loopback."""
    if not address.startswith("tcp://"):
        return True
    host = address[len("tcp://") :].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def wrong_in(address: str) -> str | None:
    """Say what a socket of the station cannot bind to; None if nothing is wrong.

    ZeroMQ takes a port of any number, and binds to what its lower 16 bits happen to be.
    """
    if address.startswith("ipc://"):
        return None
    if not address.startswith("tcp://"):
        return "must begin with tcp:// or ipc://"
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not host or not port or port.endswith("]"):
        return "has no port; expected tcp://host:port, for instance tcp://127.0.0.1:5555"
    if port == "*" or (re.fullmatch("[0-9]{1,5}", port) and int(port) <= MOST_PORT):
        return None
    return f"has the port {port!r}, expected 0 to {MOST_PORT}, or * for any that is free"
