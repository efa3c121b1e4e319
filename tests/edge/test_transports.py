"""Cameras that cannot be acknowledged: plain PUSH, and imageZMQ senders as they come from PyPI."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import cv2
import imagezmq
import numpy as np
import pytest
import zmq

from edge.imagezmq_senders import MOST_SENDERS, Senders
from edge.pipeline import Station
from edge.reception import MOST_SESSIONS, Numbers
from inspection.bundle import Bundle
from inspection.messages import FrameHeader, VerdictMessage, decode_frame
from inspection.verdicts import Reason
from inspection.wire import FrameName, MessageError
from tests.bundles import bad_frame, good_frame
from tests.edge.test_accounting import SlowScorer, ledger, running
from tests.line.free_addresses import FREE
from tests.line.push_camera import PushCamera

LIMIT = 1 << 20


def bgr(image: np.ndarray) -> np.ndarray:
    """As OpenCV would have it."""
    return image[:, :, ::-1]


def verdicts(said: list[VerdictMessage]) -> list[tuple[str, str]]:
    return [(each.camera, each.verdict.value) for each in said]


def test_an_imagezmq_sender_that_waits_for_replies_gets_one_for_every_recorded_part(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path, imagezmq=FREE) as station:
        address = station.addresses["imagezmq"]
        jpeg = cv2.imencode(".png", bgr(good_frame()))[1]  # too small for JPEG to keep its colours
        with imagezmq.ImageSender(connect_to=address) as sender:
            replies = [sender.send_image("pi-1", bgr(good_frame("nut")))]
            replies.append(sender.send_image("pi-1", bgr(bad_frame("nut"))))
            replies.append(sender.send_jpg("pi-2", np.ascontiguousarray(jpeg)))
        recorded = ledger(tmp_path)

    assert replies == [b"OK"] * 3
    assert verdicts(recorded) == [("pi-1", "PASS"), ("pi-1", "FAIL"), ("pi-2", "UNKNOWN")]
    assert [each.seq for each in recorded] == [0, 1, 0]
    assert "judged as 'nut'" in str(recorded[0].detail)


def test_imagezmq_jpegs_are_judged(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with running(tiny_bundle, tmp_path, imagezmq=FREE) as station:
        large = np.repeat(np.repeat(good_frame("nut"), 16, 0), 16, 1)
        jpeg = cv2.imencode(".jpg", bgr(large), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        with imagezmq.ImageSender(connect_to=station.addresses["imagezmq"]) as sender:
            sender.send_jpg("pi", jpeg)

    (said,) = ledger(tmp_path)
    assert said.score is not None


def test_imagezmq_senders_that_publish_are_heard(tiny_bundle: Bundle, tmp_path: Path) -> None:
    senders = [imagezmq.ImageSender(connect_to=FREE, REQ_REP=False) for _ in range(2)]
    try:
        addresses = [each.zmq_socket.getsockopt_string(zmq.LAST_ENDPOINT) for each in senders]
        with running(tiny_bundle, tmp_path, imagezmq_from=", ".join(addresses)):
            for seed in itertools.count():
                for name, sender in zip(("left", "right"), senders, strict=True):
                    sender.send_image(name, bgr(good_frame("nut", seed=seed)))
                scored = {each.camera for each in ledger(tmp_path) if each.score is not None}
                if scored == {"left", "right"}:
                    break
    finally:
        for sender in senders:
            sender.close()


@pytest.mark.parametrize(
    "parts",
    [
        [b"", b""],
        [b"not json", b"data"],
        [b"[1]", b"data"],
        [b'{"msg": "x", "shape": [2, 2], "dtype": "float32"}', b"data"],
        [b'{"msg": "x", "shape": [-2, 2], "dtype": "uint8"}', b"data"],
        [b'{"msg": "x", "shape": "2x2", "dtype": "uint8"}', b"data"],
        [b'{"msg": "x", "shape": [1, 1, 1, 1], "dtype": "uint8"}', b"data"],
        [b'{"msg": "x", "shape": [1000000000000000000000, 1], "dtype": "uint8"}', b"data"],
        [b'{"msg": "' + b"x" * 9000 + b'"}', b"data"],
        [b"[" * 5000, b"data"],
        [b'{"msg": "x"}'],
    ],
)
def test_what_no_imagezmq_sender_sends_is_refused(parts: list[bytes]) -> None:
    with pytest.raises(MessageError, match=r"expected|at most|not JSON|a header is"):
        Senders(LIMIT).frame_of(parts)


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_opencvs_order_of_colours_becomes_ours(channels: int | None, dtype: str) -> None:
    shape = (5, 7) if channels is None else (5, 7, channels)
    image = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    header = f'{{"msg": "x", "dtype": "{dtype}", "shape": {list(shape)}}}'.encode()

    frame = decode_frame(Senders(LIMIT).frame_of([header, image.tobytes()]), LIMIT)

    order = [2, 1, 0, 3][:channels] if channels in (3, 4) else slice(None)
    pixels = np.frombuffer(frame.pixels, dtype).reshape(shape)
    assert np.array_equal(pixels, image[..., order] if channels else image)


def test_a_name_that_is_no_text_is_written_as_far_as_it_is() -> None:
    parts = Senders(LIMIT).frame_of([b'{"msg": "left \\ud800"}', b"\xff\xd8"])

    assert decode_frame(parts, LIMIT).header.camera == "left ?"


def test_names_of_senders_that_are_made_up_take_bounded_memory() -> None:
    senders = Senders(LIMIT)
    for number in range(3 * MOST_SENDERS):
        senders.frame_of([f'{{"msg": "{number}"}}'.encode(), b"\xff\xd8"])

    assert len(senders._next) == MOST_SENDERS


def test_a_sender_that_says_nonsense_is_told_and_does_not_wait_for_ever(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with (
        running(tiny_bundle, tmp_path, imagezmq=FREE) as station,
        zmq.Context() as owner,
        owner.socket(zmq.REQ) as request,
    ):
        request.connect(station.addresses["imagezmq"])
        request.send_multipart([b"nonsense", b"x"])

        assert request.poll(10_000)
        assert request.recv().startswith(b"ERROR: ")
        assert station.health.report()["malformed"] == 1


def test_numbers_that_a_plain_camera_left_out_are_counted() -> None:
    numbers = Numbers()
    seen = [numbers.missing(FrameName("c", "s", seq)) for seq in (5, 6, 9, 7, 10)]
    seen.append(numbers.missing(FrameName("c", "another session", 40)))

    assert seen == [0, 0, 2, 0, 0, 0]
    for session in range(3 * MOST_SESSIONS):
        numbers.missing(FrameName("c", str(session), 0))
    assert len(numbers._next) == MOST_SESSIONS


def flood(station: Station, name: str, count: int) -> None:
    with PushCamera(station.addresses["frames"], name, product="bolt") as camera:
        for seed in range(count):
            camera.send(good_frame(seed=seed))


@pytest.mark.parametrize(("overload", "kept"), [("newest", {18, 19}), ("oldest", {0, 1})])
def test_a_full_backlog_keeps_what_its_policy_says(
    tiny_bundle: Bundle, tmp_path: Path, overload: str, kept: set[int]
) -> None:
    scorer = SlowScorer(tiny_bundle)
    with running(tiny_bundle, tmp_path, scorer, overload=overload, backlog_frames=2) as station:
        flood(station, "fast", 20)
        flood(station, "slow", 1)
        while station.health.report()["received"] < 21:
            time.sleep(0.002)
        scorer.let.set()

    said = ledger(tmp_path)
    assert len(said) == 21
    assert {each.reason for each in said if each.score is None} == {Reason.BACKLOG_FULL}
    scored = {each.seq for each in said if each.camera == "fast" and each.score is not None}
    assert kept <= scored
    assert len(scored) < 12, "beside those that wait, only what was on its way to the scorer"
    assert [each.score is None for each in said if each.camera == "slow"] == [False]


def test_blocking_makes_plain_cameras_wait_and_loses_nothing(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    scorer = SlowScorer(tiny_bundle)
    with running(tiny_bundle, tmp_path, scorer, overload="block", backlog_frames=2) as station:
        senders = [threading.Thread(target=flood, args=(station, name, 60)) for name in "ab"]
        for each in senders:
            each.start()
        while station.health.report()["received"] < 6:
            time.sleep(0.002)
        held = station.health.report()["received"]
        scorer.let.set()
        for each in senders:
            each.join()

    said = ledger(tmp_path)
    assert held < 60
    assert len(said) == 120
    assert not [each for each in said if each.score is None]


def test_a_deadline_of_the_station_holds_for_frames_that_name_none(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    scorer = SlowScorer(tiny_bundle)
    with running(tiny_bundle, tmp_path, scorer, deadline_ms=1.0, backlog_frames=64) as station:
        flood(station, "any", 3)
        while station.health.report()["received"] < 3:
            time.sleep(0.002)
        threading.Event().wait(0.05)
        scorer.let.set()

    assert {each.reason.value for each in ledger(tmp_path) if each.reason} == {"deadline_passed"}


def test_a_frame_header_may_say_that_the_pixels_were_lost() -> None:
    header = FrameHeader(camera="c", session="s", seq=1, encoding="none", part="A7")
    with pytest.raises(MessageError) as refused:
        decode_frame([_packed(header), b""], LIMIT)

    assert refused.value.reason.value == "frame_lost"
    assert refused.value.name is not None
    assert refused.value.name.part == "A7"


def _packed(header: FrameHeader) -> bytes:
    import msgpack

    return bytes(msgpack.packb(header.model_dump(exclude_none=True)))
