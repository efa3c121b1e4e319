"""The whole way of a frame through the GPU, under the emulated driver, held to `full.onnx`."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from edge.gpu_scorer import open_gpu_scorer
from edge.onnx_scorer import OnnxScorer
from tests.bundles import bad_frame, good_frame
from tests.gpu.emulated_trunk import EmulatedTrunk

FRAMES = [good_frame("bolt"), bad_frame("bolt"), good_frame("nut"), bad_frame("nut", 5)]
PRODUCTS = ["bolt", "bolt", "nut", None]


@pytest.fixture
def scoring(driver, device):
    """Opens scorers that are closed after the test, before the device is."""
    with ExitStack() as held:

        def opened(bundle, **kinds):
            trunk = EmulatedTrunk(driver, bundle)
            return held.enter_context(open_gpu_scorer(device, trunk, bundle, **kinds))

        yield opened


def answers_of(scorer):
    """Wait for the oldest batch."""
    while (answers := scorer.poll()) is None:
        pass
    return answers


def ask(scorer, frames, products):
    """Every frame in a batch of its own, as many under way as the scorer takes."""
    said, waiting = [], 0
    for frame, product in zip(frames, products, strict=True):
        if waiting == scorer.depth:
            said += answers_of(scorer)
            waiting -= 1
        scorer.submit([scorer.question(frame, product)])
        waiting += 1
    for _ in range(waiting):
        said += answers_of(scorer)
    return said


def assert_same(ours, theirs):
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine.route == yours.route
        np.testing.assert_allclose(mine.anomaly_map, yours.anomaly_map, rtol=1e-4, atol=1e-6)
        assert mine.score == pytest.approx(yours.score, rel=1e-4)


def by_onnx(bundle, frames, products):
    return ask(OnnxScorer(bundle, threads=1), frames, products)


def test_maps_and_scores_are_those_of_full_onnx(any_schedule, scoring, tiny_bundle):
    ours = ask(scoring(tiny_bundle), FRAMES, PRODUCTS)

    assert_same(ours, by_onnx(tiny_bundle, FRAMES, PRODUCTS))
    assert ours[1].score > 5 * ours[0].score, "scores that are all alike would pass as well"
