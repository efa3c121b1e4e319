"""A GPU that dies costs the frames that were on it, and no more: it is opened again, or replaced.

Under the emulated driver: an error ends the context as on a chip, and work that hangs never ends.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from edge import slot, standby
from edge.bundle_folder import open_bundle
from edge.check import warm_up
from edge.device import open_device
from edge.gpu_scorer import open_gpu_scorer
from edge.ledger_table import FILE
from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError
from edge.scorer import Question
from edge.settings import StationSettings
from edge.standby import MOST_RESTARTS, StandbyScorer, open_scorer
from edge.tensorrt_engine import engine_of
from inspection.engines import EngineKey
from inspection.errors import DeviceError, ParityError
from inspection.verdicts import Reason
from tests.bundles import bad_frame, good_frame, write_tiny_bundle
from tests.edge.open_station import open_station
from tests.gpu.emulated_trunk import EmulatedTrunk
from tests.line.free_addresses import FREE_ADDRESSES
from tests.line.push_camera import PushCamera


class Line:
    """Opens GPUs for a standby scorer; `breaks_at` says at which pass each of them dies."""

    def __init__(self, driver, kernels, bundle) -> None:
        self.driver, self.kernels, self.bundle = driver, kernels, bundle
        self.breaks_at: list[int | None] = []
        self.opened = 0
        self.now_s = 0.0

    @contextmanager
    def open_gpu(self, bundle):
        trunk = EmulatedTrunk(self.driver, bundle)
        self.opened += 1
        with (
            open_device(kernels=self.kernels) as device,
            open_gpu_scorer(device, trunk, bundle) as scorer,
        ):
            warm_up(bundle, scorer)
            # From the first frame on: the golden ones are over.
            trunk.passes, trunk.breaks_at = 0, self.breaks_at.pop(0) if self.breaks_at else None
            yield scorer

    def scorer(self):
        return StandbyScorer(self.bundle, self.open_gpu, OnnxScorer, lambda: self.now_s)


@pytest.fixture
def line(loaded_driver, kernels_folder, tiny_bundle):
    """A line on a driver that a test may break: what a broken context held ends with it."""
    return Line(loaded_driver, kernels_folder, tiny_bundle)


def answers_of(scorer):
    while (answers := scorer.poll()) is None:
        pass
    return answers


def submit(scorer, frame=None):
    frame = good_frame("bolt") if frame is None else frame
    scorer.submit([scorer.question(frame, "bolt")])


def test_frames_under_way_are_answered_and_the_gpu_is_opened_again(line):
    line.breaks_at = [2]
    scorer = line.scorer()
    submit(scorer)
    submit(scorer)

    first, second = answers_of(scorer), answers_of(scorer)
    submit(scorer, bad_frame("bolt"))
    (third,) = answers_of(scorer)
    scorer.close()

    lost = [each for (each,) in (first, second) if isinstance(each, NoScoreError)]
    assert lost
    assert {each.reason for each in lost} == {Reason.SCORER_FAILED}
    assert "emulated" in str(lost[0])
    assert line.opened == 2
    assert third.score > 0.1
    assert "emulated" in scorer.name


def test_a_gpu_that_hangs_is_left_alone_and_the_cpu_goes_on(line, monkeypatch):
    monkeypatch.setattr(slot, "PATIENCE_S", 0.05)
    scorer = line.scorer()
    with line.driver.hanging():
        submit(scorer)
        submit(scorer)

        lost = answers_of(scorer) + answers_of(scorer)
        submit(scorer, bad_frame("bolt"))
        (scored,) = answers_of(scorer)

    assert [each.reason for each in lost] == [Reason.SCORER_FAILED] * 2
    assert "within 0.05 s" in str(lost[0])
    assert scored.score > 0.1
    assert scorer.name == OnnxScorer.name
    assert line.opened == 1
    # Nothing of the GPU was freed while it hung; now it does not any more.
    (left,) = scorer._left_hanging
    left.close()


def test_a_gpu_that_keeps_dying_is_replaced_by_the_cpu(line, caplog):
    line.breaks_at = [1] * (MOST_RESTARTS + 5)
    scorer, said = line.scorer(), []
    with caplog.at_level(logging.ERROR):
        for _ in range(MOST_RESTARTS + 4):
            submit(scorer)
            said += answers_of(scorer)
    scorer.close()

    lost = [isinstance(each, NoScoreError) for each in said]
    assert lost == [True] * (MOST_RESTARTS + 1) + [False] * 3
    assert line.opened == MOST_RESTARTS + 1
    assert scorer.name == OnnxScorer.name
    assert "scoring on the CPU from here on" in caplog.messages


def test_a_gpu_that_dies_now_and_then_is_opened_every_time(line):
    line.breaks_at = [1] * (MOST_RESTARTS + 2) + [None]
    scorer, said = line.scorer(), []
    for _ in range(MOST_RESTARTS + 3):
        submit(scorer)
        said += answers_of(scorer)
        line.now_s += 1300.0  # three of them take longer than an hour
    scorer.close()

    assert [isinstance(each, NoScoreError) for each in said] == [True] * (MOST_RESTARTS + 2) + [
        False
    ]
    assert line.opened == MOST_RESTARTS + 3


def test_a_gpu_that_cannot_be_opened_again_is_replaced_by_the_cpu(line, monkeypatch):
    line.breaks_at = [1]
    scorer = line.scorer()
    submit(scorer)

    @contextmanager
    def gone(bundle):
        raise DeviceError("it has fallen off the bus")
        yield

    monkeypatch.setattr(scorer, "_open_gpu", gone)
    (lost,) = answers_of(scorer)
    submit(scorer)
    (scored,) = answers_of(scorer)

    assert isinstance(lost, NoScoreError)
    assert scored.bundle is line.bundle
    assert scorer.name == OnnxScorer.name


def test_a_batch_for_the_gpu_is_scored_by_the_cpu_that_took_its_place(line, monkeypatch):
    monkeypatch.setattr(slot, "PATIENCE_S", 0.05)
    scorer = line.scorer()
    with line.driver.hanging():
        submit(scorer)
        answers_of(scorer)
    frames = [good_frame("bolt"), bad_frame("bolt"), good_frame("bolt", 3)]

    scorer.submit([Question(frame, False, "bolt") for frame in frames])
    said = answers_of(scorer)

    alone = OnnxScorer(line.bundle, 1)
    for answer, frame in zip(said, frames, strict=True):
        assert answer.score == alone.score(frame, line.bundle.route("bolt")).score
    assert scorer.poll() is None
    scorer._left_hanging[0].close()


def test_a_station_answers_every_frame_once_whatever_becomes_of_its_gpu(line, tmp_path):
    """Killed three times by an error under load; then on, with all frames accounted for."""
    line.breaks_at = [5, 9, 3, None]
    settings = StationSettings(**FREE_ADDRESSES, state_dir=tmp_path, backlog_frames=1 << 12)

    @contextmanager
    def opened():
        scorer = line.scorer()
        try:
            yield scorer
        finally:
            scorer.close()

    with (
        open_station(settings, opened()) as station,
        station.running(),
        PushCamera(station.addresses["frames"], product="bolt") as camera,
    ):
        for _ in range(80):
            camera.send(good_frame("bolt"))
    station.check()

    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        rows = list(connection.execute("SELECT seq, verdict, reason FROM verdicts"))
    assert sorted(seq for seq, _, _ in rows) == list(range(80))
    verdicts = Counter((verdict, reason) for _, verdict, reason in rows)
    assert set(verdicts) == {("PASS", None), ("UNKNOWN", "scorer_failed")}
    # Two batches of at most four frames were under way each time.
    assert 3 <= verdicts["UNKNOWN", "scorer_failed"] <= 3 * 2 * 4
    assert line.opened == 4


# --- which scorer a station opens ---


def refuses(bundle, scorer, tolerance):
    raise ParityError("other answers")


def test_without_an_engine_auto_takes_the_cpu_and_says_nothing(tiny_bundle, caplog):
    settings = StationSettings(scorer="auto", scorer_threads=1)
    with caplog.at_level(logging.INFO), open_scorer(settings, tiny_bundle, warm_up) as scorer:
        assert scorer.name == OnnxScorer.name
    assert not caplog.records


def test_a_gpu_that_was_asked_for_is_not_replaced_at_the_start(tiny_bundle, monkeypatch):
    monkeypatch.setattr(standby, "open_device", no_gpu)
    settings = StationSettings(scorer="gpu", scorer_threads=1)

    with (
        pytest.raises(DeviceError, match="no GPU at all"),
        open_scorer(settings, tiny_bundle, warm_up),
    ):
        pytest.fail("opened")


@contextmanager
def no_gpu(*_):
    raise DeviceError("no GPU at all")
    yield


def test_with_an_engine_that_cannot_run_auto_takes_the_cpu_and_says_why(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(standby, "open_device", no_gpu)
    bundle = with_engine(open_bundle(write_tiny_bundle(tmp_path)), (8, 6))
    settings = StationSettings(scorer="auto", scorer_threads=1)

    with open_scorer(settings, bundle, warm_up) as scorer:
        assert scorer.name == OnnxScorer.name

    assert [record.why.args for record in caplog.records] == [("no GPU at all",)]


def test_a_cpu_that_gives_other_answers_is_no_scorer(tiny_bundle):
    with (
        pytest.raises(ParityError),
        open_scorer(StationSettings(scorer="cpu"), tiny_bundle, refuses),
    ):
        pytest.fail("opened")


def with_engine(bundle, capability):
    """The bundle, and in its manifest an engine for such chips."""
    files = dict(bundle.manifest.files)
    key = EngineKey("fp16", files["trunk.onnx"].sha256[:12], "tensorrt", "10.3.0", capability)
    files[key.name] = files["model_card.md"]
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"files": files}))


def test_the_engine_for_this_machine_is_chosen_and_others_are_named(tiny_bundle):
    bundle = with_engine(with_engine(tiny_bundle, (8, 6)), (8, 7))

    assert engine_of(bundle, {"tensorrt": "10.3.0"}, (8, 7)).capability == (8, 7)
    for versions, capability, said in (
        ({"tensorrt": "10.4.0"}, (8, 7), "this machine has tensorrt 10.4.0 and a chip of .* 8.7"),
        ({"tensorrt": "10.3.0"}, (9, 0), "10.3.0, compute capability 8.6; tensorrt 10.3.0"),
        ({}, (8, 7), "no TensorRT"),
    ):
        with pytest.raises(DeviceError, match=said):
            engine_of(bundle, versions, capability)


def test_an_engine_of_another_graph_is_none_of_this_bundle(tiny_bundle):
    bundle = with_engine(tiny_bundle, (8, 6))
    files = dict(bundle.manifest.files)
    files["trunk.onnx"] = files["full.onnx"]
    other = replace(bundle, manifest=bundle.manifest.model_copy(update={"files": files}))

    with pytest.raises(DeviceError, match="dualbank-deploy build"):
        engine_of(other, {"tensorrt": "10.3.0"}, (8, 6))
