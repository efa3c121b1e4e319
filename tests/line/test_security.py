"""A real station with keys: whoever has the right one is served, whoever has not costs a count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from edge.camera import Camera
from edge.keys import CurveKeys, Role
from edge.watch import subscribe
from inspection.errors import StationError
from inspection.messages import VerdictMessage
from tests.bundles import good_frame
from tests.edge.curve import GREETING, Keys, Tap, is_hung_up_on, peer, stranger
from tests.line.hostile import PIXELS, PNG, header
from tests.line.processes import PATIENCE_S, ROOT, StationProcess

PATIENCE_MS = int(PATIENCE_S * 1000)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


@pytest.fixture
def left(keys: Keys) -> CurveKeys:
    return keys.new(Role.CAMERA, "left")


@pytest.fixture
def mes(keys: Keys) -> CurveKeys:
    return keys.new(Role.SUBSCRIBER, "mes")


@pytest.fixture
def station(
    tiny_folder: Path, tmp_path: Path, keys: Keys, left: CurveKeys, mes: CurveKeys
) -> Iterator[StationProcess]:
    with StationProcess(
        tiny_folder,
        tmp_path / "state",
        "--keys",
        str(keys.folder),
        "--control",
        "tcp://127.0.0.1:*",
    ) as process:
        yield process


class Hearing:
    """Hears verdicts in a thread."""

    def __init__(self, station: StationProcess, own: CurveKeys) -> None:
        self.heard: list[VerdictMessage] = []
        self.first = threading.Event()
        said = subscribe(station.verdicts, keys=own, silence_s=PATIENCE_S)
        self._thread = threading.Thread(target=self._hear, args=(said,), daemon=True)
        self._thread.start()

    def _hear(self, said: Iterator[VerdictMessage]) -> None:
        for each in said:
            self.heard.append(each)
            self.first.set()


def camera(station: StationProcess, own: CurveKeys | None, **options: Any) -> Camera:
    three = None if own is None else (own.public_key, own.secret_key, own.server_key)
    return Camera(station.addresses["cameras"], "left", live=False, keys=three, **options)


def assert_judges(station: StationProcess, own: CurveKeys) -> None:
    """A camera with a key has a frame judged."""
    with camera(station, own, timeout_s=PATIENCE_S) as allowed:
        assert allowed.wait_for_station(), station.lines
        assert allowed.inspect(good_frame(), product="bolt").message is not None


def test_with_keys_frames_come_in_and_verdicts_go_out_and_nothing_of_it_can_be_read(
    station: StationProcess, left: CurveKeys, mes: CurveKeys
) -> None:
    tapped = Tap(station.addresses["cameras"])
    listener = Hearing(station, mes)
    with tapped, ExitStack() as held:
        three = (left.public_key, left.secret_key, left.server_key)
        allowed = held.enter_context(Camera(tapped.address, "left", live=False, keys=three))
        while not listener.first.wait(0.1):
            assert allowed.inspect(good_frame(), product="bolt").message is not None

    assert listener.heard[0].camera == "left"
    assert b"bolt" not in tapped.said
    account = station.stop()
    assert account["unaccounted"] == 0
    assert account["events"]["allowed_cameras"] == 1


def test_a_plain_camera_with_a_key_pushes_and_one_without_does_not(
    station: StationProcess, left: CurveKeys, mes: CurveKeys
) -> None:
    message = encode_frame_of(seq=1)
    with (
        peer(zmq.PUSH, station.frames, None) as outside,
        peer(zmq.PUSH, station.frames, mes) as listener,
        peer(zmq.PUSH, station.frames, left) as inside,
    ):
        for each in (outside, listener, inside):
            each.send_multipart(message)
        assert_judges(station, left)

    account = station.stop()
    assert account["transports"]["frames"] == 1
    assert account["recorded"] == 2
    assert account["events"]["refused_not_allowed"] == 1
    assert account["events"]["refused_cameras"] == 1


def encode_frame_of(seq: int) -> list[bytes]:
    """A plain frame message."""
    return [header(seq=seq, live=False), PIXELS]


def test_every_door_is_closed_to_other_roles(
    station: StationProcess, keys: Keys, left: CurveKeys, mes: CurveKeys
) -> None:
    desk = keys.new(Role.CONTROL, "desk")
    doors = {
        "cameras": (left, zmq.DEALER),
        "frames": (left, zmq.PUSH),
        "verdicts": (mes, zmq.SUB),
        "catch_up": (mes, zmq.REQ),
        "reject": (mes, zmq.REQ),
        "control": (desk, zmq.REQ),
    }
    tried = 0
    with ExitStack() as held:
        for name, (right, kind) in doors.items():
            address = station.addresses.get(name)
            assert address is not None, f"the station does not tell where {name} is"
            for own in {left, mes, desk} - {right}:
                held.enter_context(peer(kind, address, own))
                tried += 1
        assert_judges(station, left)

    account = station.stop()
    events = account["events"]
    assert events["refused_not_allowed"] == tried
    by_role = [events[f"refused_{role.value}"] for role in Role]
    assert by_role == [4, 6, 2]


def test_strangers_leave_the_station_as_it_was(station: StationProcess, left: CurveKeys) -> None:
    with ExitStack() as held:
        for name in ("cameras", "frames", "verdicts", "catch_up", "reject"):
            for said in (b"", GREETING, GREETING[:20]):
                held.enter_context(stranger(station.addresses[name])).sendall(said)
            for said in (b"GET / HTTP/1.1\r\n\r\n" + b"x" * 64, GREETING + b"\0\x05hello"):
                other = held.enter_context(stranger(station.addresses[name]))
                other.sendall(said)
                assert is_hung_up_on(other)
        assert_judges(station, left)

    account = station.stop()
    assert account["events"]["refused_garbage"] == 10
    assert account["unaccounted"] == 0


def test_a_listener_whose_key_is_refused_is_told_so(
    station: StationProcess, left: CurveKeys
) -> None:
    with pytest.raises(StationError, match="does not let this key in"):
        list(subscribe(station.verdicts, keys=left, silence_s=PATIENCE_S))


def test_the_verbs_take_keys(
    station: StationProcess, keys: Keys, tmp_path: Path, left: CurveKeys
) -> None:
    keys.new(Role.CONTROL, "desk")
    given = ("--station-key", str(keys.station))
    (tmp_path / "one.png").write_bytes(PNG)

    sent = run(
        *("camera", str(tmp_path / "one.png"), "--to", station.addresses["cameras"]),
        *("--product", "bolt", "--json", "--key", str(keys.out / "left.key_secret"), *given),
    )
    assert json.loads(sent.stdout)["unacknowledged"] == 0

    asked = ("swap", "--status", "--json", "--control", station.addresses["control"], *given)
    assert run(*asked, "--key", str(keys.out / "desk.key_secret")).returncode == 0
    refused = run(*asked, "--key", str(keys.out / "left.key_secret"), "--timeout", "2")
    assert refused.returncode == 1
    assert "does not let this key in" in refused.stderr


def test_a_station_whose_secret_others_may_read_does_not_start(
    tiny_folder: Path, tmp_path: Path, keys: Keys
) -> None:
    (keys.folder / "station.key_secret").chmod(0o644)

    with StationProcess(tiny_folder, tmp_path / "state", "--keys", str(keys.folder)) as process:
        assert process.ended() == 1
        process._reader.join()

    assert "chmod 600" in process.lines[-1]


def test_insecure_is_shouted_at_the_start(tiny_folder: Path, tmp_path: Path) -> None:
    with StationProcess(
        *(tiny_folder, tmp_path / "state"),
        *("--insecure", "--frames", "tcp://0.0.0.0:*"),
    ) as process:
        process.stop()

    (line,) = [line for line in process.lines if "INSECURE" in line]
    assert "frames tcp://0.0.0.0:*" in line


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge.cli", *arguments],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("EDGE_")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
