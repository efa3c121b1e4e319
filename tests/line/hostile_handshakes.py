"""Peers that a station with keys must not let in: each kind, often, at every encrypted socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from edge.camera import Camera
from edge.keys import CurveKeys, Role
from edge.peers import Refusal
from edge.sockets import apply_client_keys
from tests.bundles import good_frame
from tests.edge.curve import GREETING, PATIENCE_S, Keys, Tap, is_hung_up_on, stranger
from tests.line.hostile_peers import HostileError
from tests.line.mutations import ANNOUNCED_SIZES, ready
from tests.line.mutations import GREETING as PLAIN_GREETING
from tests.line.processes import StationProcess

DOORS = {
    "cameras": Role.CAMERA,
    "frames": Role.CAMERA,
    "verdicts": Role.SUBSCRIBER,
    "catch_up": Role.SUBSCRIBER,
    "reject": Role.SUBSCRIBER,
    "control": Role.CONTROL,
}
REFUSALS = [each.value for each in Refusal]


def run(times: int, bundle: Path, folder: Path) -> dict[str, Any]:
    """Knock so often with everything that opens nothing.

    Args:
        times: Of each kind, at each socket.
        bundle: Of the station.
        folder: Of keys and state.

    Raises:
        HostileError: A peer was let in, was not counted, or the station has suffered.
    """
    keys, others = Keys(folder), Keys(folder / "others")
    own = {role: keys.new(role, role.value) for role in Role}
    options = ("--keys", str(keys.folder), "--control", "tcp://127.0.0.1:*")
    with StationProcess(bundle, folder / "state", *options) as station:
        overheard = _overheard(station, own[Role.CAMERA])
        kinds: dict[str, Callable[[str, Role], None]] = {
            "a key of another role": lambda address, role: _refused(
                address, own[next(each for each in Role if each is not role)]
            ),
        }
        unknown = others.new(Role.CAMERA, "unknown")
        right_server = own[Role.CAMERA].server_key
        kinds["a key that nobody allowed"] = lambda address, _: _refused(
            address, CurveKeys(unknown.public_key, unknown.secret_key, right_server)
        )
        kinds["the key of another station"] = lambda address, role: _refused(
            address,
            CurveKeys(own[role].public_key, own[role].secret_key, unknown.server_key),
        )
        kinds["no key"] = lambda address, _: _hung_up_on(address, PLAIN_GREETING + ready("DEALER"))
        kinds["a handshake that was overheard"] = lambda address, _: _hung_up_on(address, overheard)
        kinds["a handshake beyond its size"] = lambda address, _: _hung_up_on(
            address, GREETING + b"\x06" + ANNOUNCED_SIZES[2].to_bytes(8, "big") + b"\x05HELLO"
        )
        tried = 0
        for knock in kinds.values():
            for door, role in DOORS.items():
                for _ in range(times):
                    knock(station.addresses[door], role)
                    tried += 1
        with _camera(station, own[Role.CAMERA]) as camera:
            said = camera.inspect(good_frame(), product="bolt")
        account = station.stop()
    refused = {name: account["events"].get(name, 0) for name in REFUSALS}
    faults = []
    if said.verdict != "PASS":
        faults.append(f"a camera with a key was told {said}")
    if account["received"] != 2 or account["events"]["allowed_cameras"] != 2:
        faults.append(f"somebody was let in: {account}")
    if sum(refused.values()) != tried:
        faults.append(f"{tried} knocked, {refused} were refused")
    if faults:
        raise HostileError("; ".join(faults))
    return {"kinds": list(kinds), "sockets": list(DOORS), "times": times, "tried": tried, **refused}


def _camera(station: StationProcess, own: CurveKeys, address: str | None = None) -> Camera:
    three = own.public_key, own.secret_key, own.server_key
    where = address or station.addresses["cameras"]
    return Camera(where, "left", live=False, keys=three, timeout_s=PATIENCE_S)


def _overheard(station: StationProcess, own: CurveKeys) -> bytes:
    """What a camera with a key says from its first byte."""
    with Tap(station.addresses["cameras"]) as tap, _camera(station, own, tap.address) as camera:
        camera.inspect(good_frame(), product="bolt")
    return bytes(tap.said)


def _refused(address: str, own: CurveKeys) -> None:
    """Connect once with keys that do not open this, until that is told."""
    events = (
        zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_DISCONNECTED
    )
    with zmq.Context() as context, context.socket(zmq.DEALER) as opened:
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.RECONNECT_IVL, -1)
        apply_client_keys(opened, own)
        monitor = opened.get_monitor_socket(events)
        try:
            opened.connect(address)
            opened.send(b"let me in")
            if not monitor.poll(int(PATIENCE_S * 1000)):
                raise HostileError(f"{address} does not refuse")
        finally:
            opened.disable_monitor()
            monitor.close(0)


def _hung_up_on(address: str, said: bytes) -> None:
    with stranger(address) as other:
        try:
            other.sendall(said)
        except ConnectionError:
            return
        is_hung_up_on(other)
