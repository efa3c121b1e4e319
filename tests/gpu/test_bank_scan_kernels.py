"""The bank scan against float64 brute force, on the CPU, for every kind of chip and bank."""

from __future__ import annotations

import numpy as np
import pytest

from edge.kernels import arguments
from tests.gpu.kernels_on_cpu import CHIPS, kernels_for
from tests.gpu.searches import UNIT, approx_error, assert_true, example, search

# Awkward on purpose: next to nothing here is a multiple of a warp, a tile or a stage.
SHAPES = [
    # B, P, N, D, K, S
    (1, 1, 1, 1, 1, 1),
    (1, 3, 7, 5, 2, 3),
    (2, 13, 31, 17, 9, 2),
    (1, 65, 257, 33, 5, 3),
    (3, 70, 300, 30, 3, 2),
    (1, 129, 513, 62, 16, 5),
    (2, 40, 1100, 95, 8, 1),
]
KINDS = [
    pytest.param(chip, kind, id=f"{kind}-on-{chip[0]}.{chip[1]}")
    for chip in CHIPS
    for kind in ("f16", "bf16", "s8")
    if kind != "bf16" or chip >= (8, 0)
]


@pytest.mark.parametrize(("chip", "kind"), KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neighbours_and_attention_are_those_of_float64(chip, kind, shape):
    B, P, N, D, k, splits = shape
    question = example(B, P, N, D, k=k, splits=splits, valid=0.9)
    question.temperature = D / np.arange(2, 2 + B)

    (answers,) = search(kernels_for(chip), question, kind=kind)

    assert_true(question, answers)


@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_the_fp32_path_needs_no_prepared_bank(shape):
    B, P, N, D, k, _ = shape
    question = example(B, P, N, D, k=k, valid=0.9)

    (answers,) = search(kernels_for((7, 5)), question, exhaustively=True)

    assert_true(question, answers)


@pytest.mark.parametrize("kind", ["f16", "s8"])
def test_the_scan_and_the_fp32_path_agree_to_the_bit(kind):
    question = example(1, 33, 300, 45, k=5, splits=2)

    (scanned,) = search(kernels_for((8, 6)), question, kind=kind)
    (looked_at_all,) = search(kernels_for((8, 6)), question, kind=kind, exhaustively=True)

    assert len(scanned.uncertified) == 0, "else this compares the FP32 path with itself"
    for name in ("distances", "neighbours", "residual", "evidence"):
        np.testing.assert_array_equal(getattr(scanned, name), getattr(looked_at_all, name))


@pytest.mark.parametrize("cuts_off", [0, 1])
@pytest.mark.parametrize(("chip", "kind"), KINDS)
def test_no_approximate_distance_is_farther_off_than_its_certificate_says(chip, kind, cuts_off):
    """Whether the tensor cores round their sums or cut them off."""
    question = example(1, 70, 400, 120, k=3, splits=2)
    kernels = kernels_for(chip)

    kernels.library.set_cuts_off(cuts_off)
    try:
        (answers,) = search(kernels, question, kind=kind)
    finally:
        kernels.library.set_cuts_off(0)

    rows = answers.candidates[0].reshape(70, -1)
    q, bank = question.located[0].astype(np.float64), answers.searched.astype(np.float64)
    mean = question.bank.astype(np.float64).mean(axis=0).astype(np.float32)
    squared = np.square(q[:, None] - bank[rows]).sum(axis=2)
    norm = np.square(q - mean).sum(axis=1, keepdims=True)
    off = np.abs(answers.approx[0].reshape(70, -1) + norm - squared)
    allowed = approx_error(question, answers)[0][:, None]
    assert (off <= allowed).all()
    # Cauchy-Schwarz over 122 columns is 11 times what random roundings make, and rows differ in
    # length; a certificate ten times as wide as the worst of all pairs would be good for little.
    assert off.max() > 0.1 * allowed.min()


@pytest.mark.parametrize("kind", ["f16", "s8"])
def test_features_far_from_zero_are_searched_as_surely(kind):
    """Centred on its mean, a bank does not know where it lies."""
    near, far = (example(1, 40, 500, 30, k=4, places=False) for _ in range(2))
    far.bank, far.patches = far.bank + np.float32(256), far.patches + np.float32(256)

    answers = [search(kernels_for((8, 6)), question, kind=kind)[0] for question in (near, far)]

    assert_true(far, answers[1])
    assert len(answers[1].uncertified) == 0
    allowed = [approx_error(*pair).max() for pair in zip((near, far), answers, strict=True)]
    assert allowed[1] < 1.1 * allowed[0]


@pytest.mark.parametrize("chip", CHIPS)
def test_every_range_of_a_frame_is_its_own(chip):
    question = example(4, 20, 700, 20, k=4, splits=3, valid=0.8)
    question.ranges = np.array([[3, 297], [299, 401], [0, 700], [650, 50]])

    (answers,) = search(kernels_for(chip), question)

    assert_true(question, answers)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", ["f16", "s8"])
def test_both_banks_are_searched_in_one_launch(chip, kind):
    normal = example(2, 67, 600, 30, k=3, splits=3, seed=1, valid=0.9)
    abnormal = example(2, 67, 90, 30, k=3, splits=1, seed=2, places=False)
    abnormal.patches = normal.patches
    abnormal.ranges = np.array([[0, 40], [40, 50]])

    answers = search(kernels_for(chip), normal, abnormal, kind=kind)

    assert_true(normal, answers[0])
    assert_true(abnormal, answers[1])


def test_patches_may_come_in_half_precision():
    question = example(2, 21, 200, 19, k=4)
    question.patches = question.patches.astype(np.float16)

    (answers,) = search(kernels_for((9, 0)), question)

    assert_true(question, answers)


@pytest.mark.parametrize(
    ("kind", "exhaustively"), [("f16", False), ("s8", False), ("f16", True)], ids=str
)
@pytest.mark.parametrize("chip", CHIPS)
def test_the_answer_does_not_depend_on_who_runs_first(chip, kind, exhaustively):
    """Threads of other orders give other answers where a barrier is missing."""
    P, N = (20, 90) if exhaustively else (130, 700)
    kernels, question = kernels_for(chip), example(1, P, N, 62, k=8, splits=1)
    (first,) = search(kernels, question, kind=kind, exhaustively=exhaustively)

    for order in (1, 2, 5):
        kernels.set_order(order)
        try:
            (other,) = search(kernels, question, kind=kind, exhaustively=exhaustively)
        finally:
            kernels.set_order(0)

        for name in ("distances", "neighbours", "residual", "evidence", "approx"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("chip", CHIPS)
def test_a_split_without_rows_has_no_candidates(chip):
    question = example(1, 70, 40, 20, k=3, splits=3)

    (answers,) = search(kernels_for(chip), question)

    approx = answers.approx[0]  # (P, S, 32)
    assert (np.isposinf(approx).all(axis=2).sum(axis=1) == 2).all()
    assert (np.diff(np.where(np.isinf(approx), 1e9, approx), axis=2) >= 0).all()
    assert (answers.candidates[0][np.isposinf(approx)] == -1).all()


@pytest.mark.parametrize(("kind", "precision"), [("f16", 2.0**-11), ("bf16", 2.0**-8)])
def test_lengths_and_errors_are_bounded_from_above_and_hardly_more(kind, precision):
    question = example(1, 30, 200, 100, valid=0.8)
    question.bank[~question.valid] *= 10

    (answers,) = search(kernels_for((9, 0)), question, kind=kind)

    rows = question.bank[question.valid].astype(np.float64)
    mean = rows.mean(axis=0).astype(np.float32)
    for vectors, lengths, errors in (
        (rows - mean, answers.bounds[0], answers.bounds[1]),
        (question.located[0] - mean.astype(np.float64), *answers.query_bounds[0].T),
    ):
        rounded = vectors.astype(np.float16).astype(np.float64)
        if kind == "bf16":
            bits = vectors.astype(np.float32).view(np.uint32)
            rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).view(np.float32)
        length = np.linalg.norm(vectors, axis=1)
        error = np.linalg.norm(vectors - rounded, axis=1)
        if np.ndim(lengths) == 0:
            length, error = length.max(), error.max()
        assert (lengths >= length).all()
        assert (lengths <= 1.0001 * length).all()
        assert (errors >= error).all()
        # u of the length is on top, for the subtraction of the mean.
        assert (errors <= 1.01 * error + 1.1 * UNIT * length).all()
        assert (errors < precision * length).all()


@pytest.mark.parametrize(("rows", "splits"), [(arguments.MOST_SPLIT_ROWS, 1), (66_000, 2)])
def test_a_split_counts_its_rows_in_16_bits(rows, splits):
    question = example(1, 2, rows, 3, k=3, splits=splits, places=False)
    question.patches[0, 0] = question.bank[-1]
    question.patches[0, 1] = question.bank[rows // 2]

    (answers,) = search(kernels_for((8, 6)), question)

    assert_true(question, answers)
    assert answers.neighbours[0, :, 0].tolist() == [rows - 1, rows // 2]


def test_an_int8_bank_is_within_half_a_step_of_the_rows_it_was_made_of():
    question = example(1, 1, 50, 40, valid=1.0)

    (answers,) = search(kernels_for((8, 6)), question, kind="s8")

    mean = question.bank.astype(np.float64).mean(axis=0).astype(np.float32)
    step = np.abs(question.bank - mean).max(axis=1, keepdims=True) / 127
    off = np.abs(answers.searched.astype(np.float64) - question.bank)
    assert (off <= 0.5001 * step + 1e-6).all()
    assert (off.max(axis=1) > 0.1 * step[:, 0]).all(), "it is int8, not the rows themselves"


@pytest.mark.parametrize("chip", CHIPS)
def test_no_fragment_of_halves_waits_for_a_bank_of_shared_memory(chip):
    kernels = kernels_for(chip)
    before = kernels.library.bank_conflicts()

    search(kernels, example(1, 130, 600, 62, k=3))

    assert kernels.library.bank_conflicts() == before


@pytest.mark.parametrize("chip", CHIPS)
def test_the_host_knows_the_tile_that_the_kernels_were_built_for(chip):
    kernels = kernels_for(chip)
    patches, rows, threads, of_halves, of_int8 = map(kernels.library.scan_numbers, range(5))

    assert arguments.tile_of(chip) == arguments.Tile(patches, rows, threads, of_halves)
    assert of_int8 <= of_halves
