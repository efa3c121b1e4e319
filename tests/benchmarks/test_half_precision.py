"""What is measured as half precision has it, and the comparison tells what became another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray

from benchmarks.half_precision import compared, rounded
from inspection.thresholds import Calibration, Thresholds
from inspection.verdicts import judge
from trainer.dataset import Sample
from trainer.results import CategoryResults, ImageResult

GOOD = Calibration(tuple(np.linspace(0.9, 1.1, 21)))
LIMITS = Thresholds(review=3.0, reject=6.0)

HALF = """
<ir_version: 8, opset_import: ["" : 17]>
half (float[64] x) => (float[64] y) {
    narrow = Cast <to = 10> (x)
    square = Mul (narrow, narrow)
    cube = Mul (square, narrow)
    sum = Add (cube, narrow)
    y = Cast <to = 1> (sum)
}
"""


def results(maps: list[NDArray[np.float32]]) -> CategoryResults:
    """Every second part is defective; the highest patch is the score."""
    images = tuple(
        ImageResult(
            sample=Sample(Path(f"{i}.png"), defect="scratch" if i % 2 else None),
            shape=(32, 32),
            judgement=judge(float(each.max()), GOOD, LIMITS),
            anomaly_map=each,
            recognised=None,
        )
        for i, each in enumerate(maps)
    )
    return CategoryResults("bolt", False, images, ())


def maps() -> list[NDArray[np.float32]]:
    """Good and defective in turn: 1.0, 2.0, 1.0, 2.0, with a lower patch in each."""
    return [np.array([[0.5, 1.0 + i % 2]], np.float32) for i in range(4)]


def highest(anomaly_map: NDArray[np.float32]) -> float:
    return float(anomaly_map.max())


def test_answers_that_are_the_same_differ_in_nothing() -> None:
    figures = compared(results(maps()), results(maps()), highest)

    assert figures["auroc_fp32"] == figures["auroc_fp16"] == 1.0
    assert figures["score_error_max"] == figures["map_error_max"] == figures["score_moved_max"] == 0
    assert figures["other_verdicts"] == 0


def test_one_defect_that_passes_in_half_precision_is_counted_and_lowers_its_auroc_alone() -> None:
    half = maps()
    half[1][0, 1] = 0.9

    figures = compared(results(maps()), results(half), highest)

    assert figures["other_verdicts"] == 1
    assert (figures["auroc_fp32"], figures["auroc_fp16"]) == (1.0, 0.5)
    assert figures["score_error_max"] == pytest.approx(0.55)
    assert figures["score_error_median"] == 0


def test_a_map_differs_relative_to_its_highest_value_in_full_precision() -> None:
    half = maps()
    half[1][0, 0] += 0.25

    figures = compared(results(maps()), results(half), highest)

    assert figures["map_error_max"] == pytest.approx(0.12)  # 0.25 of 2.0, in two digits
    assert figures["score_error_max"] == 0


def test_every_result_is_rounded_as_numpy_rounds_it_which_onnx_runtime_alone_does_not() -> None:
    graph = onnx.parser.parse_model(HALF).SerializeToString()
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    narrow = x.astype(np.float16)
    expected = (narrow * narrow * narrow + narrow).astype(np.float32)

    np.testing.assert_array_equal(run(rounded(graph), x), expected)
    # Should this fail, ONNX Runtime rounds on the CPU by itself, and `rounded` can go.
    assert (run(graph, x) != expected).any()


def run(graph: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)
