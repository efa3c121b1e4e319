"""Heads and fusion on the CPU shim, against `inspection.scoring` in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edge.kernels import arguments
from inspection.retrieval import Neighbours
from inspection.scoring import Head, enhance, enhanced_length, fuse, suspicion
from tests.gpu.kernels_on_cpu import Buffers, kernels_for, record

SHAPES = [
    # B, P, D, K, U
    (1, 1, 1, 1, 1),
    (2, 17, 5, 2, 7),
    (3, 33, 29, 3, 64),
    (1, 16, 70, 16, 65),
    (2, 40, 11, 4, 130),
]


def asked(B, P, D, K, U, *, heads=3, half=False, seed=0):
    """Answers of both searches for B · P patches, and heads that speak and keep silent."""
    rng = np.random.default_rng(seed)
    M, Z = B * P, enhanced_length(D, K)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "patches": normal(M, D).astype(np.float16 if half else np.float32),
        "normal_residual": normal(M, D),
        "abnormal_residual": normal(M, D),
        "normal_distances": np.sort(rng.random((M, K), np.float32)),
        "abnormal_distances": np.sort(rng.random((M, K), np.float32)),
        "evidence": rng.random(M, np.float32),
        "hidden_weight": normal(heads, Z, U) / np.float32(Z**0.5),
        "hidden_bias": normal(heads, U),
        "output_weight": normal(heads, U),
        "output_bias": normal(heads),
        "head": rng.integers(heads, size=B).astype(np.int32),
        "weight": rng.choice(np.float32([0.2, 0.5, 1.0]), B),
        "foreground": (rng.random(M) < 0.9).astype(np.float32),
    }


def judged(arrays, per_frame):
    buffers = Buffers()
    M, D = arrays["patches"].shape
    scores = buffers.empty(M, np.float32)
    task = record(
        arguments.JUDGE,
        **{name: buffers.hold(array) for name, array in arrays.items()},
        scores=scores,
        dimensions=D,
        k=arrays["normal_distances"].shape[1],
        units=arrays["hidden_bias"].shape[1],
        per_frame=per_frame,
        half_patches=arrays["patches"].dtype == np.float16,
    )
    grid = (-(-per_frame // 16), M // per_frame)
    kernels_for((8, 6)).launch("judge", task, grid, (256,))
    buffers.check()
    return scores.copy()


def expected(arrays, per_frame):
    """(M,) scores, and (M,) logits, by frames."""
    scores, logits = [], []
    for frame, head in enumerate(arrays["head"]):
        of = slice(frame * per_frame, (frame + 1) * per_frame)
        patches = arrays["patches"][of].astype(np.float64)
        normal, abnormal = (
            Neighbours(arrays[f"{side}_distances"][of].astype(np.float64), np.zeros(0, np.int64))
            for side in ("normal", "abnormal")
        )
        z = enhance(
            patches,
            normal,
            patches - arrays["normal_residual"][of],
            abnormal,
            patches - arrays["abnormal_residual"][of],
        )
        names = ("hidden_weight", "hidden_bias", "output_weight")
        own = Head(*(arrays[name][head] for name in names), float(arrays["output_bias"][head]))
        logits.append(suspicion(z, own))
        raised = fuse(arrays["evidence"][of], logits[-1], float(arrays["weight"][frame]))
        scores.append(raised * arrays["foreground"][of])
    return np.concatenate(scores), np.concatenate(logits)


@pytest.mark.parametrize("half", [False, True], ids=["f32", "f16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_frame_is_judged_by_its_own_head_as_in_float64(shape, half):
    arrays = asked(*shape, half=half)

    scores = judged(arrays, shape[1])

    # FP32 sums of Z and U terms about as large as 1, and what they are multiplied by.
    np.testing.assert_allclose(scores, expected(arrays, shape[1])[0], rtol=1e-4, atol=1e-5)


def test_the_heads_of_the_test_speak_and_keep_silent():
    _, logits = expected(asked(*SHAPES[2]), SHAPES[2][1])

    assert 0.2 < (logits > 0).mean() < 0.8


def test_a_frame_of_weight_zero_does_not_read_the_abnormal_side():
    arrays = asked(2, 20, 9, 3, 8)
    arrays["weight"][0] = 0.0
    for name in ("abnormal_residual", "abnormal_distances"):
        arrays[name][:20] = np.nan

    scores = judged(arrays, 20)

    alone = arrays["evidence"][:20] * arrays["foreground"][:20]
    np.testing.assert_array_equal(scores[:20], alone)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", ["patches", "abnormal_residual", "evidence"])
def test_what_is_not_a_number_is_never_called_good(name):
    arrays = asked(1, 20, 9, 3, 8)
    arrays[name].reshape(20, -1)[4, 0] = np.nan

    scores = judged(arrays, 20)

    assert np.flatnonzero(np.isnan(scores)).tolist() == [4]


@pytest.mark.parametrize("order", range(4))
@pytest.mark.parametrize("shape", SHAPES[1:3], ids=["one step of columns", "several"])
def test_the_order_of_threads_does_not_matter(shape, order):
    arrays, kernels = asked(*shape), kernels_for((8, 6))
    first = judged(arrays, shape[1])
    kernels.set_order(order)
    try:
        again = judged(arrays, shape[1])
    finally:
        kernels.set_order(0)

    np.testing.assert_array_equal(again, first)
