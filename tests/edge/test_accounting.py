"""Cameras that are acknowledged: a trigger gets one recorded verdict, however often it is sent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from edge import camera as camera_module
from edge import reception
from edge.camera import Camera, CameraError
from edge.keys import Role, new_peer, new_station, read_client_keys
from edge.ledger_reader import open_reader
from edge.onnx_scorer import OnnxScorer
from edge.pipeline import Station
from edge.settings import StationSettings
from inspection.bundle import Bundle
from inspection.camera_messages import CREDIT, VERDICT, decode_credit
from inspection.messages import VerdictMessage, decode_frame, decode_verdict_record
from tests.bundles import bad_frame, good_frame
from tests.edge.open_station import open_station
from tests.line.free_addresses import FREE_ADDRESSES

NOWHERE = "tcp://127.0.0.1:9"


class SlowScorer(OnnxScorer):
    """Answers only while it is let."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle, 1)
        self.let = threading.Event()

    def tend(self) -> None:
        self.let.wait(20)


@contextmanager
def running(
    bundle: Bundle, state_dir: Path, scorer: OnnxScorer | None = None, **settings: object
) -> Iterator[Station]:
    chosen = StationSettings(state_dir=state_dir, **{**FREE_ADDRESSES, **settings})
    with open_station(chosen, nullcontext(scorer or OnnxScorer(bundle, 1))) as station:
        with station.running():
            yield station
        station.check()


def ledger(state_dir: Path) -> list[VerdictMessage]:
    with open_reader(state_dir) as reader:
        return [decode_verdict_record(each.record) for each in reader.after(0, 10_000)]


class RawCamera:
    """A DEALER that says what a test tells it to, and no more."""

    def __init__(self, station: Station) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(station.addresses["cameras"])

    def __enter__(self) -> RawCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def say(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def frame(self, seq: int, image: np.ndarray | None = None, **changed: object) -> None:
        image = good_frame() if image is None else image
        header = {
            **{"v": 1, "camera": "raw", "session": "s", "seq": seq, "encoding": "raw"},
            **{"shape": list(image.shape), "product": "bolt"},
            **changed,
        }
        self.say(msgpack.packb(header), image.tobytes())

    def hello(self, *open_frames: int) -> None:
        hello = {"v": 1, "camera": "raw", "session": "s", "open": open_frames}
        self.say(msgpack.packb(hello))

    def hear(self) -> tuple[bytes, bytes]:
        assert self._socket.poll(10_000), "the station said nothing"
        kind, said = self._socket.recv_multipart()
        return kind, said

    def verdict(self) -> VerdictMessage:
        kind, said = self.hear()
        assert kind == VERDICT
        return decode_verdict_record(said)

    def hears_nothing(self) -> bool:
        return not self._socket.poll(200)


def test_a_camera_hears_what_became_of_its_parts(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with (
        running(tiny_bundle, tmp_path) as station,
        Camera(station.addresses["cameras"], "top", product="bolt") as camera,
    ):
        good = camera.inspect(good_frame(), part="A1")
        bad = camera.inspect(bad_frame(), part="A2")
        odd = camera.inspect(good_frame(), part="A3", product="rivet")

    assert [good.verdict, bad.verdict, odd.verdict] == ["PASS", "FAIL", "UNKNOWN"]
    assert odd.reason == "unknown_product"
    assert bad.message is not None
    assert (bad.message["part"], bad.message["seq"]) == ("A2", 1)
    recorded = ledger(tmp_path)
    assert [each.part for each in recorded] == ["A1", "A2", "A3"]
    assert [each.frame_sha256 is None for each in recorded] == [False] * 3
    assert camera.recorded == Counter({"PASS": 1, "FAIL": 1, "UNKNOWN": 1})


def test_pixels_arrive_as_they_were_sent() -> None:
    deep = np.random.default_rng(0).integers(0, 1 << 16, (9, 11), dtype=np.uint16)
    images = [good_frame(), good_frame()[:, ::-1], deep, deep.astype(">u2"), b"\xff\xd8jpeg"]
    with zmq.Context() as owner, owner.socket(zmq.ROUTER) as station:
        port = station.bind_to_random_port("tcp://127.0.0.1")
        with Camera(f"tcp://127.0.0.1:{port}", "top", product="bolt", timeout_s=0.1) as camera:
            for image in images:
                camera.send(image, part="p", deadline_ms=5e3)
            peer, _ = station.recv_multipart()  # a hello: nothing is sent without credit
            credit = {"v": 1, "session": camera.session, "window": 99, "missing": []}
            station.send_multipart([peer, b"credit", msgpack.packb(credit)])
            frames = []
            while len(frames) < len(images):
                _, *parts = station.recv_multipart()
                frames += [decode_frame(parts, 1 << 20)] if len(parts) == 2 else []

    for image, frame in zip(images, frames, strict=True):
        assert (frame.header.camera, frame.header.part, frame.header.product) == (
            "top",
            "p",
            "bolt",
        )
        if isinstance(image, bytes):
            assert (frame.header.encoding, frame.pixels) == ("jpeg", image)
        else:
            pixels = np.frombuffer(frame.pixels, frame.header.dtype).reshape(frame.header.shape)
            assert np.array_equal(pixels, image)
    assert [frame.header.seq for frame in frames] == [0, 1, 2, 3, 4]


def test_what_a_camera_is_told_is_byte_for_byte_what_is_recorded(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path) as station, RawCamera(station) as camera:
        camera.frame(0)
        told = camera.hear()[1]

    with open_reader(tmp_path) as reader:
        assert [each.record for each in reader.after(0, 10)] == [told]


def test_a_frame_that_is_sent_again_is_judged_once_and_acknowledged_each_time(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path) as station, RawCamera(station) as camera:
        for _ in range(3):
            camera.frame(0)
        said = [camera.verdict()]
        camera.frame(0)
        said.append(camera.verdict())
        report = station.health.report()

    assert len({each.station_seq for each in said}) == 1
    assert len(ledger(tmp_path)) == 1
    assert report["redelivered"] == 3
    assert report["unaccounted"] == 0


def test_another_frame_under_a_name_that_was_used_is_never_passed(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path) as station, RawCamera(station) as camera:
        camera.frame(0)
        first = camera.verdict()
        camera.frame(0, good_frame(seed=2))
        second = camera.verdict()

    assert (first.verdict.value, second.verdict.value) == ("PASS", "UNKNOWN")
    assert second.reason is not None
    assert second.reason.value == "name_reused"
    assert [each.verdict.value for each in ledger(tmp_path)] == ["PASS", "UNKNOWN"]


def test_another_frame_under_the_name_of_one_under_way_is_never_passed(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    scorer = SlowScorer(tiny_bundle)
    with running(tiny_bundle, tmp_path, scorer) as station, RawCamera(station) as camera:
        camera.frame(0)
        camera.frame(0, good_frame(seed=2))
        second = camera.verdict()
        scorer.let.set()
        first = camera.verdict()

    assert (first.verdict.value, second.verdict.value) == ("PASS", "UNKNOWN")


def test_a_camera_that_asks_is_told_what_was_judged_and_what_is_missing(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path, backlog_frames=7) as station, RawCamera(station) as camera:
        camera.frame(3)
        camera.verdict()
        camera.hello(2, 3, 4)
        credit = decode_credit(camera.hear())
        again = camera.verdict()

    assert (credit.window, credit.missing) == (7, (2, 4))
    assert again.seq == 3


def test_who_asks_without_end_is_not_answered_without_end(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "MOST_ASKED", 50)
    with running(tiny_bundle, tmp_path) as station:
        with RawCamera(station) as flooding:
            for _ in range(20):
                flooding.hello(*range(9))
            while not station.health.count("hellos_dropped", 0):
                time.sleep(0.002)
        with Camera(station.addresses["cameras"], product="bolt") as camera:
            assert camera.inspect(good_frame()).verdict == "PASS", "it asks again"


def test_who_has_connected_again_is_told_and_not_who_has_gone(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    scorer = SlowScorer(tiny_bundle)
    with running(tiny_bundle, tmp_path, scorer) as station:
        with RawCamera(station) as gone:
            gone.frame(0)
            gone.hello(0)
            assert gone.hear()[0] == CREDIT  # so the frame has come
        with RawCamera(station) as back:
            back.hello(0)
            assert decode_credit(back.hear()).missing == ()
            scorer.let.set()

            assert back.verdict().seq == 0


def test_every_frame_is_recorded_once_across_restarts_of_the_station(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    port = zmq.Context.instance().socket(zmq.PULL)
    address = f"tcp://127.0.0.1:{port.bind_to_random_port('tcp://127.0.0.1')}"
    port.close()
    with Camera(address, product="bolt") as camera:
        tickets = []
        for run in range(4):
            with running(tiny_bundle, tmp_path, cameras=address):
                assert camera.wait_for_station()
                tickets += [camera.send(good_frame(seed=9 * run + i)) for i in range(9)]
                tickets[-5].wait(20)
        with running(tiny_bundle, tmp_path, cameras=address):
            said = [ticket.wait(20) for ticket in tickets]

    recorded = ledger(tmp_path)
    assert sorted(each.seq for each in recorded) == list(range(36))
    by_seq = {each.seq: each.verdict.value for each in recorded}
    assert [each.verdict for each in said] == [by_seq[ticket.seq] for ticket in tickets]


def test_a_camera_alone_says_unknown_when_its_time_is_over(tmp_path: Path) -> None:
    with Camera(NOWHERE, timeout_s=0.05) as camera:
        said = camera.inspect(good_frame(), deadline_ms=1.0)
        assert camera.close() == 1

    assert (said.verdict, said.reason, said.message) == ("UNKNOWN", "deadline_passed", None)


def test_a_verdict_that_comes_too_late_changes_nothing_for_the_line(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    scorer = SlowScorer(tiny_bundle)
    with (
        running(tiny_bundle, tmp_path, scorer) as station,
        Camera(station.addresses["cameras"], product="bolt") as camera,
    ):
        ticket = camera.send(good_frame(), deadline_ms=20.0)
        said = ticket.wait()
        scorer.let.set()
        assert camera.close() == 0

    assert said.verdict == ticket.wait().verdict == "UNKNOWN"
    assert len(ledger(tmp_path)) == 1


def test_a_trigger_whose_pixels_could_not_be_kept_is_recorded_all_the_same(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_module, "MOST_WAITING", 2)
    probe = zmq.Context.instance().socket(zmq.PULL)
    address = f"tcp://127.0.0.1:{probe.bind_to_random_port('tcp://127.0.0.1')}"
    probe.close()
    with Camera(address, product="bolt", timeout_s=20.0) as camera:
        tickets = [camera.send(good_frame(seed=i), deadline_ms=30_000.0) for i in (1, 2)]
        tickets += [camera.send(good_frame(seed=i), part="late", deadline_ms=1.0) for i in (3, 4)]
        assert camera.lost == 2
        with running(tiny_bundle, tmp_path, cameras=address):
            assert camera.close() == 0

    assert [ticket.wait().verdict for ticket in tickets] == ["PASS", "PASS", "UNKNOWN", "UNKNOWN"]
    lost = [each for each in ledger(tmp_path) if each.seq in (2, 3)]
    assert [(each.reason.value, each.part) for each in lost if each.reason] == [
        ("frame_lost", "late")
    ] * 2


def test_a_live_camera_that_hangs_is_never_passed_and_a_recording_may_repeat_itself(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path) as station:
        address = station.addresses["cameras"]
        with Camera(address, "live", product="bolt") as live:
            said = [live.inspect(good_frame()) for _ in range(3)]
            said += [live.inspect(good_frame(seed=2))]
        with Camera(address, "file", product="bolt", live=False) as file:
            played = [file.inspect(good_frame()) for _ in range(3)]

    assert [each.reason for each in said] == [None, "repeated", "repeated", None]
    assert [each.verdict for each in played] == ["PASS"] * 3


@pytest.mark.parametrize(("factor", "reason"), [(0.0, "too_dark"), (9.0, "overexposed")])
def test_a_lamp_that_fails_is_unknown_and_never_passed(
    tiny_bundle: Bundle, tmp_path: Path, factor: float, reason: str
) -> None:
    image = np.clip(good_frame() * factor, 0, 255).astype(np.uint8)
    with (
        running(tiny_bundle, tmp_path) as station,
        Camera(station.addresses["cameras"], product="bolt") as camera,
    ):
        said = camera.inspect(image)

    assert (said.verdict, said.reason) == ("UNKNOWN", reason)


@pytest.mark.parametrize("overload", ["newest", "oldest"])
def test_a_camera_with_credits_never_overruns_its_lane(
    tiny_bundle: Bundle, tmp_path: Path, overload: str
) -> None:
    with (
        running(tiny_bundle, tmp_path, overload=overload, backlog_frames=2) as station,
        Camera(station.addresses["cameras"], product="bolt") as camera,
    ):
        for seed in range(40):
            camera.send(good_frame(seed=seed))

    assert not [each for each in ledger(tmp_path) if each.verdict.value == "UNKNOWN"]


def test_a_session_can_go_on_in_a_new_process_of_the_camera(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path) as station:
        with Camera(station.addresses["cameras"], session="shift", product="bolt") as before:
            for seed in range(3):
                before.inspect(good_frame(seed=seed))
        again = {"session": "shift", "product": "bolt", "first_seq": 1}
        with Camera(station.addresses["cameras"], **again) as after:
            said = [after.inspect(good_frame(seed=seed)) for seed in (1, 2, 3)]

    assert [each.verdict for each in said] == ["PASS"] * 3
    assert [each.seq for each in ledger(tmp_path)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("image", "options"),
    [
        pytest.param(b"no image", {}, id="other bytes"),
        pytest.param("picture", {}, id="text"),
        pytest.param(np.zeros((9, 9), np.float32), {}, id="float"),
        pytest.param(good_frame(), {"part": ""}, id="no name"),
        pytest.param(good_frame(), {"part": "x" * 129}, id="a long name"),
        pytest.param(good_frame(), {"deadline_ms": 0}, id="no time"),
    ],
)
def test_what_cannot_be_a_frame_is_refused_by_the_camera(image: object, options: dict) -> None:
    with Camera(NOWHERE, timeout_s=0.05) as camera:
        with pytest.raises(CameraError, match="expected"):
            camera.send(image, **options)

        assert camera.sent == 0


def test_no_address_is_told_at_once() -> None:
    with pytest.raises(CameraError, match="cannot connect"):
        Camera("rubbish")


def test_the_library_needs_nothing_but_pyzmq_and_msgpack(tmp_path: Path) -> None:
    copy = tmp_path / "camera.py"
    copy.write_bytes(Path(camera_module.__file__).read_bytes())
    program = """
import sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        root = name.split(".")[0]
        if root not in {*sys.stdlib_module_names, "zmq", "msgpack", "camera", "_cffi_backend"}:
            raise ImportError("not here: " + name)
sys.meta_path.insert(0, Nobody())
from camera import Camera
with Camera("tcp://127.0.0.1:9", timeout_s=0.05) as camera:
    print(camera.inspect(b"\\xff\\xd8 a jpeg", deadline_ms=1.0).verdict)
"""

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("UNKNOWN", "")


def test_a_camera_whose_key_comes_late_is_let_in_without_a_restart(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera_module, "SILENT_S", 0.3)
    keys, out = tmp_path / "keys", tmp_path / "out"
    station_key = new_station(keys)
    mine = read_client_keys(new_peer(Role.CAMERA, "late", keys, out), station_key)
    allowed = keys / Role.CAMERA.value / "late.key"
    held_back = allowed.rename(tmp_path / "late.key")
    with running(tiny_bundle, tmp_path / "state", keys=keys) as station:
        pair = (mine.public_key, mine.secret_key, mine.server_key)
        with Camera(station.addresses["cameras"], product="bolt", keys=pair) as camera:
            ticket = camera.send(good_frame())
            while not station.health.count("refused_cameras", 0):
                time.sleep(0.002)
            held_back.rename(allowed)

            assert ticket.wait(20).verdict == "PASS"
