"""From patches to patch scores on the device: search, heads and fusion against `inspection`."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from benchmarks import head_check
from edge.device import open_stream
from edge.device_heads import DeviceHeads, HeadsShape, open_heads, open_judge
from inspection.errors import InputError
from inspection.scoring import Head, enhanced_length, patch_scores
from tests.gpu.station_banks import (
    CATEGORIES,
    GRID,
    POSITION,
    SCORINGS,
    D,
    K,
    P,
    copied_out,
    make_bank,
    make_patches,
)

UNITS = 9
SHAPE = HeadsShape(len(CATEGORIES), D, K, UNITS)
ASKED = ["screw", None, "tile"]
WEIGHTS = [0.5, 0.0, 1.0]


def make_heads(seed):
    """A head for every product, speaking of about half of all patches."""
    rng = np.random.default_rng(seed)
    Z = enhanced_length(D, K)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return {
        product: Head(normal(Z, UNITS) / np.float32(Z**0.5), normal(UNITS), normal(UNITS), 0.1)
        for product in CATEGORIES
    }


def weights_of(head):
    return head.hidden_weight, head.hidden_bias, head.output_weight


def expected(banks, heads, patches, asked=ASKED, weights=WEIGHTS, foreground=None):
    """(B·P,) patch scores in float64."""
    return np.concatenate(
        [
            patch_scores(
                patches[i * P : (i + 1) * P],
                POSITION,
                *banks,
                heads[product or CATEGORIES[0]],
                SCORINGS[product],
                category=product,
                weight=weight,
                foreground=foreground,
            )
            for i, (product, weight) in enumerate(zip(asked, weights, strict=True))
        ]
    )


@pytest.fixture
def judging(device, station):
    """A station of three frames, its heads and its judge, all of them loaded."""
    it, banks = station(frames=3), (make_bank(1), make_bank(2))
    with ExitStack() as held:
        heads = held.enter_context(open_heads(device, SHAPE))
        judge = held.enter_context(open_judge(device, heads, it.scans[0]))
        held.callback(it.streams[0].synchronize)
        it.load(*banks)
        yield it, banks, heads, judge


def scores_of(it, judge, patches, foreground=None):
    """Search and judge, and read the scores."""
    everywhere = np.ones(P) if foreground is None else foreground.ravel()
    judge.aim(it.streams[0], ASKED, WEIGHTS, everywhere)
    it.ask(patches, ASKED)
    judge.judge(it.streams[0])
    judge.done.synchronize()
    return copied_out(it.device, judge.scores)[0]


def test_scores_are_those_of_inspection_for_every_product_of_a_batch(any_schedule, judging):
    it, banks, heads, judge = judging
    ours, patches = make_heads(1), make_patches(3, seed=3)
    foreground = (np.arange(P) % 5 > 0).reshape(GRID).astype(np.uint8)
    heads.replace(it.loading, ours)

    scores = scores_of(it, judge, patches, foreground)

    truth = expected(banks, ours, patches, foreground=foreground)
    np.testing.assert_allclose(scores, truth, rtol=2e-4)
    alone = expected(banks, ours, patches, weights=[0.0] * 3, foreground=foreground)
    assert (truth > 1.01 * alone).mean() > 0.2, "heads that say nothing would pass as well"


def test_heads_that_are_replaced_judge_what_comes_after(any_schedule, judging):
    it, banks, heads, judge = judging
    old, new, patches = make_heads(1), make_heads(2), make_patches(3, seed=3)
    heads.replace(it.loading, old)
    before = scores_of(it, judge, patches)
    heads.replace(it.loading, new)

    with pytest.raises(InputError, match=r"call aim\(\)"):
        judge.judge(it.streams[0])
    after = scores_of(it, judge, patches)

    np.testing.assert_allclose(before, expected(banks, old, patches), rtol=2e-4)
    np.testing.assert_allclose(after, expected(banks, new, patches), rtol=2e-4)


@pytest.mark.parametrize("fenced", [True, False])
def test_a_swap_waits_for_the_judgement_that_is_under_way_or_ruins_it(judging, fenced):
    it, banks, heads, judge = judging
    old, patches = make_heads(1), make_patches(3, seed=3)
    heads.replace(it.loading, old)
    judge.aim(it.streams[0], ASKED, WEIGHTS, np.ones(P))
    it.ask(patches, ASKED)
    judge.judge(it.streams[0])
    if not fenced:
        heads.fence.readers = []

    heads.replace(it.loading, make_heads(2))
    it.loading.synchronize()
    judge.done.synchronize()

    (scores,) = copied_out(it.device, judge.scores)
    assert np.allclose(scores, expected(banks, old, patches), rtol=2e-4) == fenced
    if not fenced:
        heads.fence.readers = [judge.done]


def test_a_judgement_that_does_not_wait_for_the_heads_misses_them(judging):
    it, banks, heads, judge = judging
    patches, new = make_patches(3, seed=3), make_heads(2)
    heads.replace(it.loading, make_heads(1))
    scores_of(it, judge, patches)
    heads.replace(it.loading, new)
    judge.aim(it.streams[0], ASKED, WEIGHTS, np.ones(P))
    judge.launch(it.streams[0])  # judge(), but for its fence
    it.streams[0].synchronize()

    (scores,) = copied_out(it.device, judge.scores)

    assert not np.allclose(scores, expected(banks, new, patches), rtol=2e-4)


def test_heads_without_room_for_them_are_refused_and_the_old_ones_stay(judging):
    it, banks, heads, judge = judging
    ours, patches = make_heads(1), make_patches(3, seed=3)
    heads.replace(it.loading, ours)
    wide = Head(*(np.concatenate([a, a], -1) for a in weights_of(ours["tile"])), 0.1)

    with pytest.raises(InputError, match="72 inputs and up to 9 units, got 72 and 18 of 'tile'"):
        heads.replace(it.loading, {**ours, "tile": wide})
    with pytest.raises(InputError, match="room for 3 heads, got 1"):
        heads.replace(it.loading, {"tile": ours["tile"]})

    np.testing.assert_allclose(
        scores_of(it, judge, patches), expected(banks, ours, patches), rtol=2e-4
    )


def test_a_head_of_fewer_units_than_there_is_room_for_says_what_it_says(judging):
    it, banks, heads, judge = judging
    ours, patches = make_heads(1), make_patches(3, seed=3)
    ours["tile"] = Head(*(a[..., :5].copy() for a in weights_of(ours["tile"])), -0.2)
    heads.replace(it.loading, make_heads(2))
    heads.replace(it.loading, ours)

    np.testing.assert_allclose(
        scores_of(it, judge, patches), expected(banks, ours, patches), rtol=2e-4
    )


@pytest.mark.parametrize(
    ("products", "weights", "foreground", "said"),
    [
        (["screw", "tile"], [0.0, 0.0], np.ones(P), "expected 3 products"),
        (ASKED, [0.0, 0.0], np.ones(P), "expected 3 products"),
        (ASKED, WEIGHTS, np.ones(P - 1), "expected 3 products"),
        (ASKED, [-0.5, 0.0, 0.0], np.ones(P), "0 or more, and 0 without a product, got -0.5"),
        (ASKED, [float("nan"), 0.0, 0.0], np.ones(P), "got nan"),
        (ASKED, [0.0, 0.5, 0.0], np.ones(P), "got 0.5 for None"),
        (["bottle", None, "tile"], WEIGHTS, np.ones(P), "'bottle' has no head"),
    ],
)
def test_what_cannot_be_judged_is_refused(judging, products, weights, foreground, said):
    it, _, heads, judge = judging
    heads.replace(it.loading, make_heads(1))

    with pytest.raises(InputError, match=said):
        judge.aim(it.streams[0], products, weights, foreground)


def test_heads_for_another_search_are_refused(device, station):
    it = station(banks=1)
    with (
        open_stream(device),
        open_heads(device, SHAPE) as heads,
        pytest.raises(InputError, match="expected a search of 2 banks with D = 21, K = 4"),
        open_judge(device, heads, it.scans[0]),
    ):
        pytest.fail("opened")


def test_what_make_gpu_asks_agrees_with_float64(device, monkeypatch):
    monkeypatch.setattr(head_check, "SHAPES", head_check.SHAPES[:1])

    (found,) = head_check.held_to_float64(device)
    assert found["right"], found


def test_a_head_that_is_another_products_is_seen(device, monkeypatch):
    monkeypatch.setattr(head_check, "SHAPES", head_check.SHAPES[:1])
    monkeypatch.setattr(DeviceHeads, "number_of", lambda self, product: 0)

    assert not head_check.held_to_float64(device)[0]["right"]
