"""The CPU scorer against the oracle, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle_folder import open_bundle
from edge.judging import judge_frame
from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError, Outcome, message_of
from edge.scorer import Scored
from inspection.bundle import ANY_PRODUCT, Bundle, Route
from inspection.errors import BundleError
from inspection.foreground import foregrounds_to_bytes
from inspection.scoring import image_score, patch_scores
from inspection.verdicts import Reason, Verdict
from tests.bundles import (
    LETTERBOX,
    TILES,
    bad_frame,
    features,
    good_frame,
    graph_bytes,
    positions,
    write_tiny_bundle,
)
from tests.edge.frames import prepared_frame, scored_as_bolt


def strict(route: Route) -> Route:
    """The route with a position weight that matters beside what patches differ."""
    scoring = dataclasses.replace(route.scoring, position_weight=0.02)
    return dataclasses.replace(route, scoring=scoring)


@pytest.mark.parametrize("product", ["bolt", "nut", None])
def test_onnx_runtime_and_the_oracle_give_the_same_answer(
    tiny_bundle: Bundle, product: str | None
) -> None:
    route, scorer = strict(tiny_bundle.route(product)), OnnxScorer(tiny_bundle, threads=1)
    for frame in (good_frame("nut"), bad_frame("bolt")):
        scored = scorer.score(frame, route)

        expected = patch_scores(
            scorer.patch_features(frame, route).reshape(16, 3),
            positions((4, 4)),
            tiny_bundle.normal,
            tiny_bundle.abnormal,
            tiny_bundle.head(route),
            route.scoring,
            category=route.category,
            weight=route.abnormal_weight,
        )

        # float32 sums of 64 pixels against float64: 1e-7 of values near 0.5.
        assert np.allclose(scored.anomaly_map.ravel(), expected, atol=1e-6)
        assert scored.score == pytest.approx(image_score(expected, route.scoring), abs=1e-6)


def test_what_looks_good_but_lies_in_another_place_scores_higher(tiny_bundle: Bundle) -> None:
    route, scorer = strict(tiny_bundle.route("bolt")), OnnxScorer(tiny_bundle, threads=1)
    known = good_frame("bolt", 100)  # the bank holds every patch of it

    in_place, moved = scorer.score(known, route), scorer.score(known[::-1], route)

    assert in_place.score == pytest.approx(0, abs=1e-6)
    assert moved.score > 0.5 * route.scoring.position_weight


def test_a_product_searches_its_own_rows_only(tiny_bundle: Bundle) -> None:
    scorer = OnnxScorer(tiny_bundle, threads=1)

    as_nut = scorer.score(good_frame("nut"), tiny_bundle.route("nut")).score
    as_bolt = scorer.score(good_frame("nut"), tiny_bundle.route("bolt")).score
    as_any = scorer.score(good_frame("nut"), tiny_bundle.route(None)).score

    assert as_any == as_nut < as_bolt


def test_a_frame_that_the_graph_does_not_take_costs_only_itself(tiny_bundle: Bundle) -> None:
    scorer = OnnxScorer(tiny_bundle, threads=1)
    route = tiny_bundle.route("bolt")

    with pytest.raises(NoScoreError) as caught:
        scorer.score(np.zeros((32, 32, 4), np.uint8), route)

    assert caught.value.reason is Reason.SCORER_FAILED
    assert scorer.score(good_frame(), route).score < 1


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        pytest.param(b"no graph at all", "cannot load", id="not ONNX"),
        pytest.param(graph_bytes().replace(b"image_score", b"other_score"), "outputs", id="names"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_refused(
    tmp_path: Path, graph: bytes, said: str
) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, full_onnx=graph))

    with pytest.raises(BundleError, match=said):
        OnnxScorer(bundle)


def judged(bundle: Bundle, score: float, worst: float = 0.0) -> Outcome:
    anomaly_map = np.zeros((4, 4), np.float32)
    anomaly_map[1, 2] = worst
    return judge_frame(prepared_frame((64, 96)), scored_as_bolt(bundle, anomaly_map, score))


@pytest.mark.parametrize(
    ("score", "worst"),
    [
        pytest.param(math.nan, 0.0, id="the score is not a number"),
        pytest.param(0.0, math.nan, id="a patch is not a number, and top-k stepped around it"),
        pytest.param(-math.inf, 0.0, id="below every threshold, and nonsense"),
        pytest.param(math.inf, 0.0, id="infinite"),
        pytest.param(0.0, math.inf, id="an infinite patch"),
    ],
)
def test_what_is_not_a_number_is_for_a_person(
    tiny_bundle: Bundle, score: float, worst: float
) -> None:
    outcome = judged(tiny_bundle, score, worst)

    assert outcome.decision.verdict is Verdict.REVIEW
    assert outcome.decision.reason is Reason.SCORE_NOT_A_NUMBER


def test_regions_are_in_pixels_of_the_frame_as_sent(tiny_bundle: Bundle) -> None:
    finding = judged(tiny_bundle, 1.0, worst=1.0).finding

    assert finding is not None
    (region,) = finding.regions
    box = dataclasses.astuple(region)[:4]
    assert box == (48, 16, 24, 16)


def test_only_a_flagged_frame_keeps_its_pixels(tiny_bundle: Bundle) -> None:
    good, bad = judged(tiny_bundle, 0.0).finding, judged(tiny_bundle, 1.0).finding

    assert good is not None
    assert bad is not None
    assert good.frame is None
    assert bad.frame is not None


def test_verdict_names_bundle_and_bank(tiny_bundle: Bundle) -> None:
    outcome = judged(tiny_bundle, 0.0)

    assert (outcome.bundle_id, outcome.bank_id) == (tiny_bundle.id, tiny_bundle.bank_id)


def blue_frame() -> NDArray[np.uint8]:
    """What neither a bolt nor a nut looks like."""
    frame = good_frame()
    frame[:] = (0, 0, 200)
    return frame


@pytest.mark.parametrize(
    ("frame", "route"),
    [
        pytest.param(good_frame("bolt", 5), "bolt", id="a good bolt"),
        pytest.param(bad_frame("bolt", 5), "bolt", id="a damaged bolt"),
        pytest.param(good_frame("nut", 5), "nut", id="a good nut"),
        pytest.param(blue_frame(), ANY_PRODUCT, id="nothing we know"),
    ],
)
def test_a_frame_without_a_product_is_recognised_as_the_oracle_does(
    tiny_bundle: Bundle, frame: NDArray[np.uint8], route: str
) -> None:
    found = OnnxScorer(tiny_bundle, threads=1).recognise(frame)

    assert found is tiny_bundle.routes[route]
    assert found is tiny_bundle.recognise(features(frame))


def test_a_frame_that_the_trunk_does_not_take_costs_only_itself(tiny_bundle: Bundle) -> None:
    scorer = OnnxScorer(tiny_bundle, threads=1)

    with pytest.raises(NoScoreError) as caught:
        scorer.recognise(np.zeros((32, 32, 4), np.uint8))

    assert caught.value.reason is Reason.SCORER_FAILED
    assert scorer.recognise(good_frame()).category == "bolt"


def test_a_trunk_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, trunk_onnx=b"no graph"))

    with pytest.raises(BundleError, match=r"cannot load trunk\.onnx"):
        OnnxScorer(bundle)


@pytest.mark.parametrize(
    ("named", "route", "said"),
    [
        pytest.param("bolt", "bolt", None, id="it was named"),
        pytest.param(None, "nut", "judged as 'nut'", id="it was recognised"),
        pytest.param(None, ANY_PRODUCT, "looks like none", id="it was not"),
    ],
)
def test_a_verdict_says_what_a_frame_without_a_product_was_taken_for(
    tiny_bundle: Bundle, named: str | None, route: str, said: str | None
) -> None:
    ready = prepared_frame()
    receipt = dataclasses.replace(ready.arrival.receipt, product=named)
    arrival = dataclasses.replace(ready.arrival, receipt=receipt)
    ready = dataclasses.replace(ready, arrival=arrival)
    scored = Scored(np.zeros((4, 4), np.float32), 0.0, tiny_bundle.routes[route], tiny_bundle)

    outcome = judge_frame(ready, scored)

    assert outcome.decision.verdict is Verdict.PASS
    detail = message_of(outcome, 1).detail
    assert detail is None if said is None else said in str(detail)


def test_a_frame_larger_than_the_network_is_scored_at_its_own_resolution(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, TILES))
    scorer, route = OnnxScorer(bundle, threads=1), strict(bundle.route("bolt"))
    frame = np.tile(good_frame(), (3, 4, 1))
    frame[40:48, 72:80] = 255

    scored = scorer.score(frame, route)

    # Patches of the tiny network do not see their neighbours, so each is scored as on its own, in
    # the place where the whole frame shows it.
    expected = patch_scores(
        features(frame),
        positions((12, 16)),
        bundle.normal,
        bundle.abnormal,
        bundle.head(route),
        route.scoring,
        category="bolt",
        weight=0.0,
    )
    assert scored.anomaly_map.shape == (12, 16)
    assert np.allclose(scored.anomaly_map.ravel(), expected, atol=1e-6)
    assert np.unravel_index(scored.anomaly_map.argmax(), (12, 16)) == (5, 9)
    # Two of 16 patches, as in a frame of one view.
    assert scored.score == pytest.approx(np.sort(expected)[-2:].mean(), abs=1e-6)
    assert scorer.recognise(frame) is bundle.route("bolt")


def test_padding_of_a_letterbox_neither_scores_nor_tells_the_product(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, LETTERBOX))
    scorer, frame = OnnxScorer(bundle, threads=1), good_frame()[:16].copy()
    frame[-1] = 255  # once more in the padding

    scored = scorer.score(frame, bundle.route("bolt"))

    assert scored.anomaly_map.shape == (2, 4)
    assert scored.anomaly_map.max() < 0.3
    assert scorer.recognise(frame) is bundle.route("bolt")


def test_only_some_views_of_a_large_frame_tell_its_product(tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path, TILES))
    scorer, frame = OnnxScorer(bundle, threads=1), np.tile(good_frame("nut"), (1, 40, 1))

    assert scorer.recognise(frame) is bundle.route("nut")
    assert scorer.score(frame, bundle.route("nut")).score < 0.3


def test_a_foreground_is_laid_over_the_map_of_each_frame(tmp_path: Path) -> None:
    right = np.array([[0, 1]], np.uint8)
    seen = foregrounds_to_bytes(dict.fromkeys(("bolt", "nut"), right))
    bundle = open_bundle(write_tiny_bundle(tmp_path, TILES, foreground_safetensors=seen))
    scorer = OnnxScorer(bundle, threads=1)

    for columns in (1, 3):
        frame = np.tile(bad_frame(), (2, 2 * columns, 1))
        found = scorer.score(frame, bundle.route("bolt")).anomaly_map
        assert not found[:, : 4 * columns].any()
        assert (found[:, 4 * columns :] > 0).all()


@pytest.mark.parametrize("module", ["edge.onnx_scorer", "trainer.runtime", "deploy.precision"])
def test_onnx_runtime_writes_no_telemetry(module: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("ORT_DISABLE_TELEMETRY", None)

    subprocess.run(
        [sys.executable, "-c", f"import {module}, onnxruntime"], env=environment, check=True
    )

    assert list(tmp_path.rglob("*")) == []
