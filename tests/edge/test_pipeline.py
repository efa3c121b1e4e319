"""The route in one process, with scorers that fail: every frame is answered all the same."""

from __future__ import annotations

import logging
import math
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from edge import pipeline
from edge.admission import Incoming
from edge.ledger_table import FILE
from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError
from edge.pipeline import Station
from edge.reception import Reception
from edge.scorer import Answer, Question, Scored
from edge.settings import StationSettings
from inspection.bundle import Bundle
from inspection.errors import StationError
from inspection.verdicts import Reason
from tests.bundles import bad_frame, good_frame
from tests.edge.ledgers import messages_in
from tests.edge.open_station import open_station
from tests.line.free_addresses import FREE_ADDRESSES
from tests.line.hostile import PIXELS, header
from tests.line.push_camera import PushCamera


class Fake:
    """A scorer that calls a function with the number of the frame."""

    name = "a fake"
    depth = most_frames = 1

    def __init__(self, bundle: Bundle, answer: Callable[[int], float]) -> None:
        self.bundle = bundle
        self._answer = answer
        self._asked = 0
        self._said: list[Answer] | None = None

    def question(self, image: NDArray[np.uint8], product: str | None) -> Question:
        return Question(image, True, product)

    def submit(self, questions: Sequence[Question]) -> None:
        (question,) = questions
        self._asked += 1
        try:
            score = self._answer(self._asked - 1)
        except NoScoreError as error:
            self._said = [error]
            return
        route = self.bundle.route(question.product)
        self._said = [Scored(np.zeros((4, 4), np.float32), score, route, self.bundle)]

    def poll(self) -> list[Answer] | None:
        said, self._said = self._said, None
        return said

    def expected_ms(self, frames: int) -> float:
        return 0.0

    def offer(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def tend(self) -> None:
        return None


@contextmanager
def running(
    bundle: Bundle, state_dir: Path, answer: Callable[[int], float], **settings: object
) -> Iterator[Station]:
    chosen = StationSettings(state_dir=state_dir, **{**FREE_ADDRESSES, **settings})
    with open_station(chosen, nullcontext(Fake(bundle, answer))) as station, station.running():
        yield station


def send(station: Station, count: int) -> None:
    with PushCamera(station.addresses["frames"], product="bolt") as camera:
        for _ in range(count):
            camera.send(good_frame())


def said(state_dir: Path) -> list[tuple[str, str | None]]:
    with closing(sqlite3.connect(state_dir / FILE)) as connection:
        return list(connection.execute("SELECT verdict, reason FROM verdicts ORDER BY seq"))


def test_a_scorer_that_fails_once_costs_one_frame(tiny_bundle: Bundle, tmp_path: Path) -> None:
    def fails_on_the_second(number: int) -> float:
        if number == 1:
            raise NoScoreError(Reason.SCORER_FAILED, "out of luck")
        return 0.0

    with running(tiny_bundle, tmp_path, fails_on_the_second) as station:
        send(station, 3)

    station.check()
    assert said(tmp_path) == [("PASS", None), ("UNKNOWN", "scorer_failed"), ("PASS", None)]


def test_a_score_that_is_not_a_number_never_passes(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with running(tiny_bundle, tmp_path, lambda _: math.nan) as station:
        send(station, 1)

    station.check()
    assert said(tmp_path) == [("REVIEW", "score_not_a_number")]


def test_an_error_nobody_foresaw_stops_the_station_and_every_frame_is_answered(
    tiny_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks_on_the_third(number: int) -> float:
        if number == 2:
            raise ZeroDivisionError("nobody foresaw this")
        return 0.0

    with caplog.at_level(logging.ERROR), running(tiny_bundle, tmp_path, breaks_on_the_third) as it:
        send(it, 12)
        it.wait()

    with pytest.raises(StationError, match="nobody foresaw this"):
        it.check()
    verdicts = [verdict for verdict, _ in said(tmp_path)]
    assert len(verdicts) == it.health.report()["received"]
    assert verdicts[:2] == ["PASS", "PASS"]
    assert set(verdicts[2:]) == {"UNKNOWN"}
    assert it.health.report()["unaccounted"] == 0
    assert any(record.exc_info for record in caplog.records), "the traceback belongs in the log"


def test_a_scorer_that_hangs_does_not_keep_the_station_from_ending(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "JOIN_S", 0.2)
    asked, release = threading.Event(), threading.Event()

    def hangs(_: int) -> float:
        asked.set()
        release.wait(30)
        return 0.0

    with running(tiny_bundle, tmp_path, hangs, drain_s=0.1) as station:
        send(station, 8)
        assert asked.wait(10)

    with pytest.raises(StationError, match="did not end"):
        station.check()
    release.set()
    report = station.health.report()
    assert report["verdicts"]["PASS"] == 0
    assert report["unaccounted"] <= 2, "one in the scorer, one on its way to it"
    assert report["recorded"] == report["published"] == report["received"] - report["unaccounted"]


def test_a_state_dir_that_is_deleted_stops_the_station_and_nothing_more_is_published(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with running(tiny_bundle, tmp_path / "state", lambda _: 0.0) as station:
        shutil.rmtree(tmp_path / "state")
        send(station, 3)
        station.wait()

    with pytest.raises(StationError, match="deleted or replaced"):
        station.check()
    assert station.health.report()["published"] == 0


def test_an_address_in_use_closes_what_was_open_already(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    before = set(threading.enumerate())
    with running(tiny_bundle, tmp_path / "a", lambda _: 0.0) as first:
        taken = first.addresses["frames"]

        with (
            pytest.raises(StationError, match="another station or another program has it"),
            running(tiny_bundle, tmp_path / "b", lambda _: 0.0, frames=taken),
        ):
            pass

        stages = set(threading.enumerate()) - before
        assert len(stages) == 7, "those of the first station and no others"


def test_the_real_scorer_on_the_real_route(tiny_bundle: Bundle, tmp_path: Path) -> None:
    chosen = StationSettings(**FREE_ADDRESSES, state_dir=tmp_path)
    with (
        open_station(chosen, nullcontext(OnnxScorer(tiny_bundle, 1))) as station,
        station.running(),
        PushCamera(station.addresses["frames"]) as camera,
    ):
        camera.send(good_frame("bolt"), product="bolt")
        camera.send(bad_frame("nut"), product="nut")
        camera.send(good_frame("nut"))

    station.check()
    assert [verdict for verdict, _ in said(tmp_path)] == ["PASS", "FAIL", "PASS"]


def test_a_frame_without_a_product_gets_the_verdict_of_the_one_it_looks_like(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    scores = []
    for name, product in (("named", "nut"), ("unnamed", None)):
        chosen = StationSettings(**FREE_ADDRESSES, state_dir=tmp_path / name)
        with (
            open_station(chosen, nullcontext(OnnxScorer(tiny_bundle, 1))) as station,
            station.running(),
            PushCamera(station.addresses["frames"], product=product) as camera,
        ):
            camera.send(good_frame("nut"))
            camera.send(bad_frame("nut"))
        station.check()
        recorded = sorted(messages_in(tmp_path / name), key=lambda said: said.seq)
        scores.append(
            [(each.verdict, each.score, each.threshold, each.detail) for each in recorded]
        )

    named, unnamed = scores
    assert [row[:3] for row in unnamed] == [row[:3] for row in named]
    assert [row[3] for row in named] == [None, None]
    assert all("judged as 'nut'" in row[3] for row in unnamed)


def test_frames_are_recorded_although_the_thread_of_the_cameras_has_died(
    tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let = threading.Event()

    def waits(_: int) -> float:
        let.wait(20)
        return 0.0

    taken: list[Incoming] = []
    take = Reception.take

    def dies_on_the_third(reception: Reception, incoming: Incoming) -> None:
        if len(taken) == 2:
            raise ZeroDivisionError("nobody foresaw this")
        taken.append(incoming)
        take(reception, incoming)

    monkeypatch.setattr(Reception, "take", dies_on_the_third)
    with running(tiny_bundle, tmp_path, waits) as it:
        address = it.addresses["cameras"]
        with zmq.Context() as owner, owner.socket(zmq.DEALER) as camera:
            camera.setsockopt(zmq.LINGER, 0)
            camera.connect(address)
            for _ in range(3):
                camera.send_multipart([header(camera="c"), PIXELS])
            it.wait()  # until it has died, with two frames under way
        let.set()

    with pytest.raises(StationError, match="nobody foresaw this"):
        it.check()
    assert [verdict for verdict, _ in said(tmp_path)] == ["PASS", "PASS"]
    assert it.health.report()["unaccounted"] == 0
