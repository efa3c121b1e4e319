"""Same entry, same bundle, same verdict; and every reason why that cannot be asked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.admission import Origin, digest_of
from edge.cli import DONE, FAILED, GATE, main
from edge.decode import decode
from edge.frame_archive import find_frames, read_pixels
from edge.health import Stopwatch
from edge.judging import judge_frame
from edge.label_queue import LabelItem, LabelQueue
from edge.ledger import Entry, open_ledger
from edge.ledger_reader import open_reader
from edge.onnx_scorer import OnnxScorer
from edge.outcome import Arrival, Receipt, message_of
from edge.replay import OF_THE_IMAGE, OF_THE_MOMENT, Replayed, State, replay
from edge.scorer import PreparedFrame
from edge.settings import StationSettings
from inspection.bundle import Bundle
from inspection.engines import TOLERANCE
from inspection.errors import ImageError, InputError
from inspection.golden import EXACT, Tolerance
from inspection.messages import Frame, FrameHeader, VerdictMessage
from inspection.verdicts import Reason, Verdict
from inspection.wire import pack
from tests.bundles import bad_frame, doubtful_frame, good_frame, write_tiny_bundle
from tests.edge.ledgers import NOON_NS, entry, messages_in, write_version_1
from tests.edge.open_station import open_station
from tests.line.free_addresses import FREE_ADDRESSES
from tests.line.push_camera import PushCamera


def frame_of(image: NDArray[Any] | bytes, seq: int, product: str | None = "bolt") -> Frame:
    """A frame as a camera sends it: raw, or the bytes of a file."""
    raw = not isinstance(image, bytes)
    header = FrameHeader(
        camera="cam",
        session="s",
        seq=seq,
        part=f"p{seq}",
        product=product,
        encoding="raw" if raw else "png",
        shape=list(image.shape) if raw else None,
        dtype=image.dtype.name if raw else "uint8",
    )
    return Frame(header, image.tobytes() if raw else image)


def judged(bundle: Bundle, frame: Frame, station_seq: int) -> tuple[VerdictMessage, LabelItem]:
    """What a station says of a frame, and what it may keep of it."""
    receipt = Receipt(
        frame.header.frame_name,
        frame.header.product,
        Stopwatch(time.monotonic_ns, time.monotonic_ns()),
        NOON_NS + station_seq,
        digest_of(frame.pixels),
        Origin("frames"),
    )
    scorer = OnnxScorer(bundle, 1)
    image = decode(frame, 1 << 28)
    question = scorer.question(image, frame.header.product)
    scorer.submit([question])
    (answer,) = scorer.poll()
    prepared = PreparedFrame(Arrival(receipt, frame), question, image.shape[:2])
    outcome = judge_frame(prepared, answer)
    receipt.stopwatch.lap("score")
    message = message_of(outcome, station_seq)
    item = LabelItem(message, receipt.received_unix_ns, frame, outcome.finding.anomaly_map)
    return message, item


def record(state_dir: Path, messages: list[VerdictMessage]) -> None:
    with open_ledger(state_dir) as ledger:
        ledger.record(
            [Entry(each, pack(each), NOON_NS + each.station_seq, "push") for each in messages]
        )


def store(state_dir: Path, items: list[LabelItem]) -> None:
    queue = LabelQueue(state_dir, 1 << 24)
    for item in items:
        queue.offer(item)
    queue.close()
    queue.write_all()


def recorded(state_dir: Path, bundle: Bundle, frames: list[Frame]) -> list[VerdictMessage]:
    """Judge and record frames, and keep those that were flagged."""
    both = [judged(bundle, frame, number) for number, frame in enumerate(frames, 1)]
    record(state_dir, [message for message, _ in both])
    store(state_dir, [item for message, item in both if message.verdict is not Verdict.PASS])
    return [message for message, _ in both]


def replayed(
    state_dir: Path,
    bundle: Bundle,
    frames: Path | None = None,
    tolerance: Tolerance = EXACT,
) -> list[Replayed]:
    with open_reader(state_dir) as ledger:
        entries = ledger.latest(100)
    return list(replay(entries, bundle, state_dir, frames, tolerance))


def states(found: list[Replayed]) -> list[State]:
    return [each.state for each in found]


# --- the same -------------------------------------------------------------------------------------


def test_what_a_station_has_flagged_is_the_same_again(tiny_bundle: Bundle, tmp_path: Path) -> None:
    settings = StationSettings(**FREE_ADDRESSES, state_dir=tmp_path)
    png = cv2.imencode(".png", bad_frame("nut", 3, 50)[:, :, ::-1])[1].tobytes()
    deep = bad_frame("bolt", 2, 40).astype(np.uint16) << 8
    with (
        open_station(settings, nullcontext(OnnxScorer(tiny_bundle, 1))) as station,
        station.running(),
        PushCamera(station.addresses["frames"]) as camera,
    ):
        for image, product in (
            (bad_frame(), "bolt"),
            (doubtful_frame(), "bolt"),
            (png, "nut"),
            (deep, None),
            (good_frame(), "bolt"),
        ):
            camera.send(image, product=product)
    station.check()

    found = replayed(tmp_path, tiny_bundle)

    assert states(found) == [State.SAME] * 4 + [State.NO_FRAME]
    assert {each.again.verdict for each in found[:4]} == {Verdict.FAIL, Verdict.REVIEW}
    assert all(each.score_error <= EXACT.score for each in found[:4])


def test_any_archive_of_frames_will_do(tiny_bundle: Bundle, tmp_path: Path) -> None:
    png = cv2.imencode(".png", good_frame("nut")[:, :, ::-1])[1].tobytes()
    grey = good_frame()[:, :, 0].copy()
    frames = [frame_of(png, 1, "nut"), frame_of(good_frame(), 2), frame_of(grey, 3, None)]
    record(tmp_path, [judged(tiny_bundle, each, each.header.seq)[0] for each in frames])
    archive = tmp_path / "archive"
    (archive / "2025" / "11").mkdir(parents=True)
    (archive / "2025" / "11" / "some name.bin").write_bytes(png)
    np.save(archive / "raw.npy", good_frame())
    np.save(archive / "fortran.npy", np.asfortranarray(grey))
    (archive / "notes.txt").write_text("nothing to see")
    (archive / "damaged.npy").write_bytes(b"\x93NUMPY\x01\x00 and no more")

    assert states(replayed(tmp_path, tiny_bundle)) == [State.NO_FRAME] * 3
    assert states(replayed(tmp_path, tiny_bundle, archive)) == [State.SAME] * 3


def test_a_part_of_which_no_product_was_named_is_recognised_again(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    (said,) = recorded(tmp_path, tiny_bundle, [frame_of(bad_frame("nut"), 1, None)])

    (found,) = replayed(tmp_path, tiny_bundle)

    assert found.state is State.SAME
    assert found.again is not None
    assert found.again.detail == said.detail == "no product was named; judged as 'nut'"


def test_what_version_1_recorded_can_be_asked_again(tiny_bundle: Bundle, tmp_path: Path) -> None:
    said, item = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    known = {
        name: getattr(said, name)
        for name in ("score", "p_value", "threshold", "reject_threshold", "bundle", "bank")
    }
    words = {"verdict": said.verdict.value, "reason": said.reason.value}
    write_version_1(tmp_path, [{**known, **words}])
    with open_ledger(tmp_path):
        pass
    store(tmp_path, [item])

    (found,) = replayed(tmp_path, tiny_bundle)

    assert found.state is State.SAME
    assert found.recorded.regions == (), "version 1 recorded none"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (frame_of(b"\x89PNG\r\n\x1a\n and no more", 1), Reason.BAD_IMAGE),
        (frame_of(good_frame(), 1, "spoon"), Reason.UNKNOWN_PRODUCT),
    ],
    ids=["a damaged image", "a product that nobody knows"],
)
def test_an_unknown_that_image_and_bundle_decide_is_the_same_again(
    tiny_bundle: Bundle, tmp_path: Path, frame: Frame, reason: Reason
) -> None:
    said = entry(
        1,
        Verdict.UNKNOWN,
        None,
        reason=reason,
        bundle=tiny_bundle.id,
        product=frame.header.product,
        frame_sha256=hashlib.sha256(frame.pixels).hexdigest(),
    )
    record(tmp_path, [said.message])
    archive = tmp_path / "archive"
    archive.mkdir()
    if frame.header.encoding == "raw":
        np.save(archive / "frame.npy", good_frame())
    else:
        (archive / "frame.png").write_bytes(frame.pixels)

    (found,) = replayed(tmp_path, tiny_bundle, archive)

    assert found.state is State.SAME
    assert found.again is not None
    assert found.again.reason is reason


# --- what differs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"verdict": Verdict.REVIEW}, "verdict was REVIEW, is FAIL"),
        ({"reason": Reason.SCORE_ABOVE_REVIEW}, "reason was score_above_review, is"),
        ({"threshold": 1.0}, "threshold was 1.0, is"),
        ({"reject_threshold": 99.0}, "reject_threshold was 99.0, is"),
        ({"score": math.nan}, "score was nan, is"),
        ({"regions": ()}, "regions were [], are"),
    ],
)
def test_whatever_differs_is_named(
    tiny_bundle: Bundle, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    message, item = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    record(tmp_path, [message.model_copy(update=changes)])
    store(tmp_path, [item])

    (found,) = replayed(tmp_path, tiny_bundle)

    assert found.state is State.DIFFERS
    assert why in found.why


@pytest.mark.parametrize(
    ("off", "tolerance", "state"),
    [
        (0.5e-4, EXACT, State.SAME),
        (2e-4, EXACT, State.DIFFERS),
        (5e-3, EXACT, State.DIFFERS),
        (5e-3, TOLERANCE["fp16"], State.SAME),
        (2e-2, TOLERANCE["fp16"], State.DIFFERS),
    ],
)
def test_a_score_may_be_off_by_what_runtimes_may_be_apart(
    tiny_bundle: Bundle, tmp_path: Path, off: float, tolerance: Tolerance, state: State
) -> None:
    message, item = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    known = tiny_bundle.route("bolt").calibration
    raw = message.score * known.scale + known.centre  # tolerances are of the raw score
    record(tmp_path, [message.model_copy(update={"score": known.standardise(raw * (1 + off))})])
    store(tmp_path, [item])

    assert states(replayed(tmp_path, tiny_bundle, tolerance=tolerance)) == [state]


def test_boxes_may_have_other_borders_only_where_a_patch_lies_at_the_threshold(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    message, item = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    (region,) = message.regions
    wider = region.model_copy(update={"width_px": region.width_px + 8})
    record(tmp_path, [message.model_copy(update={"regions": (wider,)})])
    store(tmp_path, [item])

    at_threshold = Tolerance(score=1e-4, map=1.0)  # so wide that every patch is
    assert states(replayed(tmp_path, tiny_bundle)) == [State.DIFFERS]
    assert states(replayed(tmp_path, tiny_bundle, tolerance=at_threshold)) == [State.SAME]


def test_a_score_of_a_region_is_compared_too(tiny_bundle: Bundle, tmp_path: Path) -> None:
    message, item = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    (region,) = message.regions
    other = region.model_copy(update={"score": region.score * 1.01})
    record(tmp_path, [message.model_copy(update={"regions": (other,)})])
    store(tmp_path, [item])

    (found,) = replayed(tmp_path, tiny_bundle)

    assert (found.state, found.why) == (State.DIFFERS, "regions have other scores")


# --- what cannot be asked -------------------------------------------------------------------------


def test_every_reason_is_asked_again_or_has_its_words() -> None:
    scored = {each for each in Reason if each.value.startswith("score_")}
    never_asked = {Reason.BAD_HEADER, Reason.BAD_PAYLOAD, Reason.FRAME_TOO_LARGE}

    kinds = [scored, OF_THE_IMAGE, {*OF_THE_MOMENT}, never_asked]
    assert sorted(each for kind in kinds for each in kind) == sorted(Reason)


@pytest.mark.parametrize("reason", [*OF_THE_MOMENT, Reason.BAD_HEADER, Reason.FRAME_TOO_LARGE])
def test_what_rested_on_the_moment_is_told_as_such_and_is_no_difference(
    tiny_bundle: Bundle, tmp_path: Path, reason: Reason
) -> None:
    said = entry(1, Verdict.UNKNOWN, None, reason=reason, bundle=tiny_bundle.id)
    record(tmp_path, [said.message])

    (found,) = replayed(tmp_path, tiny_bundle)

    assert found.state is State.NOT_REPLAYABLE
    assert found.why.startswith(f"{reason.value}: ")


def test_a_stored_frame_that_is_not_the_one_that_was_judged_proves_nothing(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    message, item = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    record(tmp_path, [message])
    store(tmp_path, [dataclasses.replace(item, frame=frame_of(bad_frame(seed=2), 1))])

    (found,) = replayed(tmp_path, tiny_bundle)

    assert found.state is State.NO_FRAME
    assert "another SHA-256" in found.why


def test_a_stored_frame_whose_shape_is_gone_is_no_frame(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    recorded(tmp_path, tiny_bundle, [frame_of(good_frame(), 1)])
    np.save(tmp_path / "flat.npy", good_frame().ravel())

    (found,) = replayed(tmp_path, tiny_bundle, tmp_path)

    assert found.state is State.NO_FRAME
    assert "flat.npy is no frame" in found.why


def test_another_bundle_is_refused_with_the_one_that_is_needed(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    recorded(tmp_path, tiny_bundle, [frame_of(bad_frame(), 1)])
    other = dataclasses.replace(tiny_bundle, id="0" * 64)

    with pytest.raises(InputError, match=f"judged by bundle {tiny_bundle.id}"):
        replayed(tmp_path, other)


def test_entries_of_before_a_swap_are_told_and_the_others_are_asked(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    old, _ = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    new, item = judged(tiny_bundle, frame_of(bad_frame(seed=2), 2), 2)
    record(tmp_path, [old.model_copy(update={"bundle": "old"}), new])
    store(tmp_path, [item])

    found = replayed(tmp_path, tiny_bundle)

    assert states(found) == [State.OTHER_BUNDLE, State.SAME]
    assert found[0].why == "needs bundle old"


def test_an_array_that_is_no_frame_is_never_read_as_one(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros((4, 4, 3)))

    assert find_frames(tmp_path, {hashlib.sha256(bytes(384)).hexdigest()}) == {}
    with pytest.raises(ImageError, match="expected samples of uint8 or uint16"):
        read_pixels(tmp_path / "floats.npy")


def test_a_big_endian_array_is_the_little_endian_frame_that_was_sent(tmp_path: Path) -> None:
    frame = (np.arange(300, dtype=np.uint16) * 100).reshape(10, 10, 3)
    np.save(tmp_path / "frame.npy", frame.astype(">u2"))

    digest = hashlib.sha256(frame.astype("<u2").tobytes()).hexdigest()
    assert find_frames(tmp_path, {digest}) == {digest: tmp_path / "frame.npy"}
    assert read_pixels(tmp_path / "frame.npy").sha256 == digest


# --- the command ----------------------------------------------------------------------------------


def test_the_command_exits_0_if_all_is_the_same_and_3_if_something_differs(
    tiny_folder: Path, tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, item = judged(tiny_bundle, frame_of(bad_frame(), 1), 1)
    second, other = judged(tiny_bundle, frame_of(bad_frame(seed=2), 2), 2)
    changed = second.model_copy(update={"verdict": Verdict.REVIEW})
    record(tmp_path, [first, changed])
    store(tmp_path, [item, other])
    asked = ["replay", "--bundle", str(tiny_folder), "--state-dir", str(tmp_path)]

    assert main([*asked, "--entry", "1"]) == DONE
    assert "1  same" in capsys.readouterr().out
    assert main(asked) == GATE
    out = capsys.readouterr().out
    assert "DIFFERS" in out
    assert "2: verdict was REVIEW, is FAIL" in out
    assert "…" not in out
    assert main([*asked, "--json"]) == GATE
    said = json.loads(capsys.readouterr().out)
    assert Counter(each["state"] for each in said["entries"]) == {"same": 1, "differs": 1}
    assert (said["same"], said["differs"], said["no_frame"]) == (1, 1, 0)
    assert said["entries"][1]["again"]["verdict"] == "FAIL"


def test_the_command_fails_where_nothing_could_be_asked(
    tiny_folder: Path, tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, tiny_bundle, [frame_of(good_frame(), 1)])
    asked = ["replay", "--bundle", str(tiny_folder), "--state-dir", str(tmp_path)]

    assert main(asked) == FAILED
    assert "1  frame not found" in capsys.readouterr().out
    assert main([*asked, "--entry", "7"]) == FAILED
    assert "has no entry 7; its last is 1" in capsys.readouterr().err
    assert main([*asked, "--frames", str(tmp_path / "missing")]) == FAILED
    assert "there is no folder" in capsys.readouterr().err


def test_the_command_names_the_bundle_that_is_needed(
    tiny_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(tmp_path, tiny_bundle, [frame_of(bad_frame(), 1)])
    other = write_tiny_bundle(tmp_path / "other", model_card_md=b"# Another\n")

    assert main(["replay", "--bundle", str(other), "--state-dir", str(tmp_path)]) == FAILED
    assert tiny_bundle.id in capsys.readouterr().err


def test_replaying_changes_nothing(tiny_folder: Path, tiny_bundle: Bundle, tmp_path: Path) -> None:
    before = recorded(tmp_path, tiny_bundle, [frame_of(bad_frame(), 1)])
    kept = sorted(path.name for path in (tmp_path / "label_queue").rglob("*"))

    main(["replay", "--bundle", str(tiny_folder), "--state-dir", str(tmp_path)])

    assert messages_in(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "label_queue").rglob("*")) == kept
