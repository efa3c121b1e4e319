"""ZeroMQ sockets that close: opened by `with`, in the thread that uses them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import zmq

from inspection.errors import StationError

LINGER_MS = 2000
"""How long what was sent may take to leave the process at the end."""

_ADVICE = {
    errno.EADDRINUSE: "another station or another program has it",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.ENODEV: "this machine has no such address",
    errno.ENOENT: "the folder of an ipc:// path must be there",
}


@contextmanager
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """Own a ZeroMQ context; its sockets must be closed before it ends."""
    owned = zmq.Context()
    try:
        yield owned
    finally:
        owned.term()


@contextmanager
def socket(
    owner: zmq.Context[zmq.Socket[bytes]], kind: int, options: Mapping[zmq.SocketOption, int]
) -> Iterator[zmq.Socket[bytes]]:
    """Hold a socket with options set before it binds or connects."""
    opened = owner.socket(kind)
    try:
        opened.setsockopt(zmq.LINGER, LINGER_MS)
        for option, value in options.items():
            opened.setsockopt(option, value)
        yield opened
    finally:
        opened.close()


def bind(opened: zmq.Socket[bytes], address: str) -> str:
    """Bind, and tell the address as it became: `tcp://127.0.0.1:*` finds a free port.

    Raises:
        StationError: In use, not of this machine, or not an address.
    """
    _allow_ipv6(opened, address)
    try:
        opened.bind(address)
    except zmq.ZMQError as error:
        raise StationError(f"cannot bind to {address}: {_reason(error)}") from error
    return opened.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\x00")


def connect(opened: zmq.Socket[bytes], address: str) -> None:
    """Connect, in the background.

    Raises:
        StationError: Not an address.
    """
    _allow_ipv6(opened, address)
    try:
        opened.connect(address)
    except zmq.ZMQError as error:
        raise StationError(f"cannot connect to {address}: {_reason(error)}") from error


def _allow_ipv6(opened: zmq.Socket[bytes], address: str) -> None:
    # Only where it is asked for: with it on, ZeroMQ tells 127.0.0.1 as [::ffff:127.0.0.1].
    opened.setsockopt(zmq.IPV6, int("[" in address))


def _reason(error: zmq.ZMQError) -> str:
    """Give the operating system's words and what they mean here; pyzmq's repeat the address."""
    number = error.errno or 0
    # Beyond the system's numbers ZeroMQ has its own, and pyzmq knows their words.
    words = os.strerror(number) if number in errno.errorcode else str(error.strerror)
    return f"{words}; {_ADVICE[number]}" if number in _ADVICE else words
