"""Peers of an encrypted socket: with the right key, with others, and strangers who only play."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import zmq

from edge.access import open_access
from edge.health import Health
from edge.keys import CurveKeys, Role, new_peer, new_station, read_client_keys, station_pair
from edge.peers import COUNTERS, open_peers
from edge.settings import StationSettings
from edge.sockets import StationSockets, apply_client_keys, connect, context

PATIENCE_S = 20.0
"""Only a test that fails waits so long."""

GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\0" + b"CURVE".ljust(20, b"\0") + b"\0" * 32
"""What every peer of ZMTP 3.0 says first: 64 bytes, and how it encrypts."""

_OPTIONS = {zmq.LINGER: 0, zmq.SNDTIMEO: int(PATIENCE_S * 1000)}


class Keys:
    """A station's folder of keys, and a peer of every role that has been given one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "keys"
        self.out = folder / "out"
        self.station = new_station(self.folder)

    def new(self, role: Role, name: str) -> CurveKeys:
        """Make a key and let it in."""
        return read_client_keys(new_peer(role, name, self.folder, self.out), self.station)


@contextmanager
def encrypted_sockets(keys: Keys, health: Health, **settings: object) -> Iterator[StationSockets]:
    """Open sockets as a station does, on free ports."""
    free = "tcp://127.0.0.1:*"
    chosen = StationSettings.model_validate(
        {"frames": free, "verdicts": free, "keys": keys.folder, **settings}
    )
    with ExitStack() as held:
        owner = held.enter_context(context())
        peers = held.enter_context(open_peers(health, must_not_die))
        held.enter_context(open_access(owner, keys.folder, health))
        yield StationSockets(owner, chosen, station_pair(keys.folder), peers)


@contextmanager
def peer(kind: int, address: str, keys: CurveKeys | None) -> Iterator[zmq.Socket[bytes]]:
    """Connect with keys or in plain text, in a context of its own."""
    with zmq.Context() as owner, owner.socket(kind) as opened:
        for option, value in _OPTIONS.items():
            opened.setsockopt(option, value)
        apply_client_keys(opened, keys)
        connect(opened, address)
        yield opened


def counts(health: Health) -> dict[str, int]:
    """What has been counted of peers, without zeros."""
    return {name: count for name in COUNTERS if (count := health.count(name, 0))}


def until(holds: Callable[[], bool]) -> None:
    """Wait for what must come true."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def stranger(address: str) -> socket.socket:
    """Connect over TCP alone."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def is_hung_up_on(opened: socket.socket) -> bool:
    """Read to the end, which must come."""
    try:
        while opened.recv(4096):
            pass
    except ConnectionError:
        return True
    return True


def must_not_die(failure: BaseException) -> None:
    """Fail where the thread that counts peers has died."""
    raise AssertionError("the thread that counts peers has died") from failure


class Tap:
    """A TCP proxy that remembers what the peer said."""

    def __init__(self, address: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.said = bytearray()
        self._to = address
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join()

    def _pass_on(self) -> None:
        near, _ = self._listener.accept()
        with near, stranger(self._to) as far:
            back = threading.Thread(target=_copy, args=(far, near, None), daemon=True)
            back.start()
            _copy(near, far, self.said)
            back.join()


def _copy(source: socket.socket, target: socket.socket, kept: bytearray | None) -> None:
    try:
        source.settimeout(None)
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other side has gone
