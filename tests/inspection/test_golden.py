"""Golden frames come back as they were; agreement holds to the tolerance and no further."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from inspection.bundle import Route
from inspection.errors import BundleError, InputError
from inspection.golden import (
    RELATIVE_TOLERANCE,
    Agreement,
    GoldenFrame,
    agreement,
    golden_from_bytes,
    golden_to_bytes,
)
from inspection.scoring import Scoring
from inspection.thresholds import Calibration, Thresholds

JUST_BEYOND = math.nextafter(RELATIVE_TOLERANCE, 1)


# A good part scores up to 3: 2.0 passes, and so does what is near it.
GOOD = Calibration((0.0, 1.0, 3.0))
ROUTE = Route(None, Scoring(k=1, temperature=1.0), 0.0, GOOD, GOOD.thresholds(0.1, 0.1))


def a_golden(seed=0, product: str | None = "screw", score=2.0):
    rng = np.random.default_rng(seed)
    anomaly_map = rng.random((3, 5)).astype(np.float32)
    anomaly_map[1, 2] = 4.0
    return GoldenFrame(
        product=product,
        frame=rng.integers(0, 256, (9 + seed, 13, 3)).astype(np.uint8),
        prepared=rng.integers(0, 256, (32, 32, 3)).astype(np.uint8),
        anomaly_map=anomaly_map,
        score=score,
    )


def assert_same(one, other):
    assert (one.product, one.score) == (other.product, other.score)
    for name in ("frame", "prepared", "anomaly_map"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_golden_frames_come_back_in_order_and_as_they_were():
    frames = [a_golden(0), a_golden(1, None), a_golden(2, "žárovka", score=1 / 3)]

    again = golden_from_bytes(golden_to_bytes(frames))

    assert len(again) == 3
    for one, other in zip(again, frames, strict=True):
        assert_same(one, other)


def test_how_an_array_lies_in_memory_does_not_change_what_is_written():
    golden = a_golden()
    turned = GoldenFrame(
        golden.product,
        golden.frame[:, ::-1][:, ::-1],
        np.asfortranarray(golden.prepared),
        np.asfortranarray(golden.anomaly_map),
        golden.score,
    )

    assert golden_to_bytes([turned]) == golden_to_bytes([golden])


@pytest.mark.parametrize(
    ("score_error", "map_error", "same_verdict", "holds"),
    [
        pytest.param(0.0, 0.0, True, True, id="identical"),
        pytest.param(RELATIVE_TOLERANCE, RELATIVE_TOLERANCE, True, True, id="on the tolerance"),
        pytest.param(JUST_BEYOND, 0.0, True, False, id="score beyond it"),
        pytest.param(0.0, JUST_BEYOND, True, False, id="map beyond it"),
        pytest.param(0.0, 0.0, False, False, id="another verdict"),
        pytest.param(math.nan, 0.0, True, False, id="score not a number"),
        pytest.param(0.0, math.nan, True, False, id="map not a number"),
        pytest.param(math.inf, 0.0, True, False, id="score infinite"),
    ],
)
def test_agreement_holds_exactly_to_the_tolerance(score_error, map_error, same_verdict, holds):
    assert Agreement(score_error, map_error, same_verdict).holds is holds


def test_errors_are_relative_to_the_score_and_to_the_highest_patch():
    golden = a_golden(score=2.0)
    anomaly_map = golden.anomaly_map.copy()
    anomaly_map[0, 0] += 0.5

    found = agreement(golden, anomaly_map, 2.25, ROUTE)

    assert found.score_error == 0.125
    assert found.map_error == pytest.approx(0.5 / 4.0, rel=1e-6)
    assert found.same_verdict


@pytest.mark.parametrize("factor", [0.9, -0.9])
def test_a_runtime_within_the_tolerance_agrees_and_one_beyond_it_does_not(factor):
    golden = a_golden()

    def run(times):
        off = 1 + times * factor * RELATIVE_TOLERANCE
        scaled = golden.anomaly_map.astype(np.float64) * off
        return agreement(golden, scaled, golden.score * off, ROUTE)

    assert run(1).holds
    assert not run(2).holds


@pytest.mark.parametrize(
    ("anomaly_map", "score"),
    [
        pytest.param(np.full((3, 5), np.nan), 2.0, id="a map of NaN"),
        pytest.param(np.where(np.eye(3, 5) > 0, np.nan, a_golden().anomaly_map), 2.0, id="one NaN"),
        pytest.param(a_golden().anomaly_map, math.nan, id="score NaN"),
        pytest.param(a_golden().anomaly_map, math.inf, id="score infinite"),
        pytest.param(a_golden().anomaly_map[:1], 2.0, id="a map that would broadcast"),
        pytest.param(a_golden().anomaly_map[None], 2.0, id="a map with its batch axis"),
        pytest.param(a_golden().anomaly_map[:, :4], 2.0, id="a map of another width"),
    ],
)
def test_an_answer_that_is_no_answer_never_agrees(anomaly_map, score):
    assert not agreement(a_golden(), anomaly_map, score, ROUTE).holds


def test_a_golden_answer_that_is_not_a_number_is_met_by_nothing():
    golden = a_golden(score=math.nan)

    assert not agreement(golden, golden.anomaly_map, math.nan, ROUTE).holds


def test_a_golden_score_of_zero_does_not_divide_by_it():
    golden = a_golden(score=0.0)

    assert agreement(golden, golden.anomaly_map, 0.0, ROUTE).holds
    assert not agreement(golden, golden.anomaly_map, 1e-9, ROUTE).holds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("frame", np.zeros((9, 9), np.uint8), id="a grey frame"),
        pytest.param("frame", np.zeros((9, 9, 3), np.float32), id="a frame of floats"),
        pytest.param("prepared", np.zeros((0, 9, 3), np.uint8), id="nothing prepared"),
        pytest.param("anomaly_map", np.zeros((1, 3, 5), np.float32), id="a batch of maps"),
        pytest.param("anomaly_map", np.zeros((3, 0), np.float32), id="a map without patches"),
        pytest.param("anomaly_map", np.zeros((3, 5)), id="a map of float64"),
    ],
)
def test_a_golden_frame_that_could_not_be_compared_is_refused(name, value):
    golden = a_golden()
    arrays = {key: getattr(golden, key) for key in ("frame", "prepared", "anomaly_map")}

    with pytest.raises(InputError, match=f"a golden {name}"):
        GoldenFrame(**{**arrays, name: value}, product=None, score=1.0)


ANSWER = {"product": None, "score": 2.0}


def bytes_with(answers, **changed):
    """Golden frames whose answers, or one of whose arrays, are something else."""
    golden = a_golden()
    arrays = {f"0.{key}": getattr(golden, key) for key in ("frame", "prepared", "anomaly_map")}
    text = answers if isinstance(answers, str) else json.dumps(answers)
    return safetensors.numpy.save(
        arrays | {f"0.{key}": value for key, value in changed.items()}, metadata={"answers": text}
    )


def test_the_unchanged_form_of_the_bad_bytes_below_is_a_golden_frame():
    (again,) = golden_from_bytes(bytes_with([ANSWER]))

    assert_same(again, a_golden(product=None))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(golden_to_bytes([a_golden()])[:-1], id="cut off"),
        pytest.param(golden_to_bytes([]), id="no frame at all"),
        pytest.param(safetensors.numpy.save({"x": np.zeros(3)}), id="other tensors"),
        pytest.param(bytes_with([ANSWER, ANSWER]), id="more answers than frames"),
        pytest.param(bytes_with([{**ANSWER, "score": "high"}]), id="a score that is no number"),
        pytest.param(bytes_with([{"product": None}]), id="half an answer"),
        pytest.param(bytes_with(["REVIEW"]), id="an answer that is a text"),
        pytest.param(bytes_with(7), id="answers that are a number"),
        pytest.param(bytes_with("PASS"), id="answers that are not JSON"),
        pytest.param(bytes_with("[" * 100_000), id="answers nested without end"),
        pytest.param(bytes_with([ANSWER], anomaly_map=np.zeros((3, 5))), id="a map of float64"),
        pytest.param(bytes_with([ANSWER], frame=np.zeros((9, 9), np.uint8)), id="a grey frame"),
    ],
)
def test_bytes_that_are_no_golden_frames_are_a_bundle_error_and_nothing_else(data):
    with pytest.raises(BundleError, match="golden frame"):
        golden_from_bytes(data)


def test_the_verdicts_compared_are_those_of_the_thresholds_in_force():
    golden = a_golden(score=2.0)
    limits = Thresholds(ROUTE.calibration.standardise(2.0), ROUTE.calibration.standardise(2.0))
    stricter = replace(ROUTE, thresholds=limits)
    a_little_more = 2.0 * (1 + 0.5 * RELATIVE_TOLERANCE)

    assert agreement(golden, golden.anomaly_map, a_little_more, ROUTE).holds
    assert not agreement(golden, golden.anomaly_map, a_little_more, stricter).holds
