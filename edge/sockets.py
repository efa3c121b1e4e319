"""ZeroMQ sockets that close: opened by `with`, in the thread that uses them.

What a station binds is a row of `KINDS`: none is opened without its bounds, and with keys none on
tcp without encryption. Whose keys are let in is `edge.access`'s, who came and went `edge.peers`'.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils.monitor import parse_monitor_message

from edge.addresses import connected_addresses
from edge.keys import CurveKeys, KeyPair, Role
from edge.peers import Peers
from edge.settings import StationSettings
from inspection.errors import StationError
from inspection.wire import MAX_HEADER_BYTES

LINGER_MS = 2000
"""How long what was sent may take to leave the process at the end."""

HANDSHAKE_MS = 5000
"""How long a peer that has connected may take to be let in: then its connection is closed."""

WAITING_TO_CONNECT = 1024
"""Connections that the kernel holds until ZeroMQ takes them; it may be set to hold fewer."""

CURVE_BYTES = 33
"""What encryption adds to a part; without it a part of the most bytes would be refused."""

MOST_TOPIC_BYTES = 600
"""A topic is at most `heatmap/` and 128 characters of up to 4 bytes; a peer that asks for a longer
one is dropped by ZeroMQ."""

_MOST = (1 << 63) - 1

# After these a client's ZeroMQ gives up, so that no more than one comes of an address: nothing
# piles up where nobody looks.
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


@dataclass(frozen=True, slots=True)
class Kind:
    """One socket of a station, and what bounds it.

    Attributes:
        type: ZeroMQ's.
        role: Whose keys open it; None: senders that cannot encrypt.
        receive: Messages of one peer that may wait here, beyond what its kernel and ours hold.
        send: Messages that may wait for one peer; beyond them ZeroMQ drops, or its sender waits.
        most_bytes: Of one part that comes in; None: the setting `max_message_bytes`.
        options: What else is set before it binds.
    """

    type: zmq.SocketType
    role: Role | None
    receive: int
    send: int
    most_bytes: int | None = None
    options: Mapping[zmq.SocketOption, int] = field(default_factory=dict)


KINDS = {
    # The backlog is where frames wait, because it counts: few may wait before it.
    "cameras": Kind(zmq.ROUTER, Role.CAMERA, receive=8, send=1024),
    "frames": Kind(zmq.PULL, Role.CAMERA, receive=8, send=1),
    "imagezmq": Kind(zmq.ROUTER, None, receive=8, send=8),
    "imagezmq_from": Kind(zmq.SUB, None, receive=8, send=1024),
    # ZeroMQ reads subscriptions inside `send` for as long as more have come: with its default of
    # 1000, four peers that send nothing else held one `send` for a minute; with 1 the worst took
    # 0.1 s (measured). But with 1, no peer whose key was asked for is ever heard (libzmq 4.3.5).
    # Every subscription is told, because each is somebody who came late.
    "verdicts": Kind(
        *(zmq.XPUB, Role.SUBSCRIBER), 2, 4096, MOST_TOPIC_BYTES, {zmq.XPUB_VERBOSE: 1}
    ),
    # ZeroMQ takes from peers in turn, a message each: with few of each waiting, a peer that asks
    # without end costs another no more than its own turn. Answers to catch up are large.
    "catch_up": Kind(zmq.ROUTER, Role.SUBSCRIBER, 8, 4, most_bytes=MAX_HEADER_BYTES),
    "reject": Kind(zmq.ROUTER, Role.SUBSCRIBER, 64, 256, most_bytes=MAX_HEADER_BYTES),
    "control": Kind(zmq.ROUTER, Role.CONTROL, 64, 64, most_bytes=MAX_HEADER_BYTES),
}
"""By setting. Of imageZMQ's publishers a station is the listener: `send` is for subscriptions."""

# A peer whose power is cut says nothing: the kernel asks after 10 s of silence, and gives it up
# 15 s later. ZeroMQ's own heartbeats would ask libraries that do not know them, and give up a
# camera that is only held by a debugger.
_GUARDS = {
    zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
    zmq.BACKLOG: WAITING_TO_CONNECT,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 10,
    zmq.TCP_KEEPALIVE_INTVL: 5,
    zmq.TCP_KEEPALIVE_CNT: 3,
}

_ADVICE = {
    errno.EADDRINUSE: "another station or another program has it",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.ENODEV: "this machine has no such address",
    errno.ENOENT: "the folder of an ipc:// path must be there",
}


@dataclass(frozen=True, slots=True)
class StationSockets:
    """Opens what a station binds; any thread may, and uses what it opened alone.

    Attributes:
        context: Of all of them.
        settings: Addresses and bounds.
        keys: The station's own; None: nothing is encrypted.
        peers: Counts whoever comes and goes; None: nobody does.
    """

    context: zmq.Context[zmq.Socket[bytes]]
    settings: StationSettings
    keys: KeyPair | None = None
    peers: Peers | None = None

    def __post_init__(self) -> None:
        if self.settings.keys is not None and self.keys is None:
            raise StationError("the setting keys asks for encryption, and no key was read")

    @contextmanager
    def open(
        self, what: str, address: str | None = None
    ) -> Iterator[tuple[zmq.Socket[bytes], str]]:
        """Open one, bounded and watched, and bind it; imageZMQ's publishers are connected to.

        Args:
            what: A row of `KINDS`.
            address: Instead of the setting of that name.

        Yields:
            The socket, and its address as it became.

        Raises:
            StationError: The address cannot be bound.
        """
        kind = KINDS[what]
        address = getattr(self.settings, what) if address is None else address
        encrypted = self.keys if kind.role is not None and address.startswith("tcp://") else None
        most_bytes = kind.most_bytes or self.settings.max_message_bytes
        options = {
            **_GUARDS,
            **kind.options,
            zmq.RCVHWM: kind.receive,
            zmq.SNDHWM: kind.send,
            zmq.MAXMSGSIZE: min(_MOST, most_bytes + (CURVE_BYTES if encrypted else 0)),
        }
        with socket(self.context, kind.type, options) as opened:
            if encrypted is not None and kind.role is not None:
                _serve_encrypted(opened, encrypted, kind.role)
            if self.peers is not None:
                self.peers.watch(opened, what)
            if kind.type is not zmq.SUB:
                yield opened, bind(opened, address)
                return
            for each in connected_addresses(address):
                connect(opened, each)
            yield opened, address


def apply_client_keys(opened: zmq.Socket[bytes], keys: CurveKeys | None) -> None:
    """Encrypt what a socket will connect to; None leaves it plain.

    A station that does not allow the key says so once, and ZeroMQ does not try again: the socket
    is of no more use, even if the key is allowed later. `refusals` tells.
    """
    if keys is None:
        return
    opened.curve_publickey = keys.public_key
    opened.curve_secretkey = keys.secret_key
    opened.curve_serverkey = keys.server_key


@contextmanager
def refusals(opened: zmq.Socket[bytes], address: str) -> Iterator[Callable[[], None]]:
    """Watch a socket that is to connect.

    Yields:
        A check that raises StationError once the station has refused it for good.
    """
    monitor = opened.get_monitor_socket(_REFUSED)
    try:
        yield lambda: _check_refused(monitor, address)
    finally:
        opened.disable_monitor()
        monitor.close()


def _check_refused(monitor: zmq.Socket[bytes], address: str) -> None:
    if not monitor.poll(0):
        return
    told = parse_monitor_message(monitor.recv_multipart())
    if told["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        raise StationError(
            f"{address} does not let this key in: it is not in the station's folder of keys for "
            "this socket; see dualbank-edge keys list there"
        )
    if told["value"] == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        raise StationError(
            f"{address} encrypts and this side does not, or the other way round; "
            "give both --key and --station-key where the station has keys"
        )
    raise StationError(f"{address} does not speak as a station does; is it the right address?")


def _serve_encrypted(opened: zmq.Socket[bytes], keys: KeyPair, role: Role) -> None:
    opened.curve_server = 1
    opened.curve_secretkey = keys.secret_key
    opened.setsockopt(zmq.ZAP_DOMAIN, role.value.encode())
    # Without it everybody with the station's public key is let in while nobody answers for roles.
    opened.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


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
    became = opened.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\x00")
    if became.startswith("ipc://"):
        # Whoever may write to the file may connect, and nothing on it is encrypted.
        Path(became.removeprefix("ipc://")).chmod(0o600)
    return became


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
