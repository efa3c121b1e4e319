"""The whole way of a frame through the GPU, under the emulated driver, held to `full.onnx`."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from edge import slot
from edge.bundle_folder import open_bundle
from edge.device import Device, Kernel, open_device
from edge.gpu_scorer import open_gpu_scorer
from edge.graphs import Graph
from edge.onnx_scorer import OnnxScorer
from edge.outcome import NoScoreError
from edge.scorer import Question
from edge.slot import MOST_LAYOUTS
from edge.streams import Event, Stream
from inspection.errors import DeviceError
from inspection.scoring import patch_scores
from inspection.verdicts import Reason
from tests.bundles import (
    LETTERBOX,
    TILES,
    bad_frame,
    features,
    good_frame,
    positions,
    write_tiny_bundle,
)
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


# --- other frames, other views ---


@pytest.mark.parametrize("spec", [LETTERBOX, TILES], ids=lambda spec: spec.fit)
@pytest.mark.parametrize("shape", [(32, 32), (40, 100), (20, 26), (100, 70)], ids=str)
def test_frames_of_any_shape_are_cut_into_views_and_put_together(scoring, tmp_path, spec, shape):
    bundle = open_bundle(write_tiny_bundle(tmp_path, spec))
    scorer = scoring(bundle)
    frame = np.tile(bad_frame("nut", 3), (4, 4, 1))[: shape[0], : shape[1]]
    # On the canvas of the device, which may be a level off where a sum lies on a half.
    canvas = scorer.canvas_of(frame)
    (expected,) = answers_of_canvas(OnnxScorer(bundle, threads=1), canvas)

    for _ in range(2):  # the second time from a graph
        (ours,) = ask(scorer, [frame], ["nut"])

        assert ours.anomaly_map.shape == (canvas.shape[0] // 8, canvas.shape[1] // 8)
        assert_same([ours], [expected])


def answers_of_canvas(scorer, canvas):
    scorer.submit([Question(canvas, True, "nut")])
    return answers_of(scorer)


def test_a_frame_is_resized_on_the_gpu_as_on_the_cpu(scoring, tiny_bundle):
    frame = bad_frame("bolt", 2, 50)

    canvas = scoring(tiny_bundle).canvas_of(frame)

    ours = OnnxScorer(tiny_bundle, threads=1).canvas_of(frame)
    assert np.abs(canvas.astype(int) - ours).max() <= 1


def test_a_grey_frame_goes_up_with_three_channels_of_its_own(scoring, tiny_bundle):
    grey = np.broadcast_to(bad_frame("bolt", 2)[:, :, :1], (32, 32, 3))

    question = scoring(tiny_bundle).question(grey, "bolt")

    assert np.array_equal(question.pixels, grey)
    assert question.pixels.flags.c_contiguous, "numpy copies what is not 60 times slower"


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_batch_is_what_its_frames_are_alone(any_schedule, scoring, tiny_bundle, count):
    scorer = scoring(tiny_bundle)
    frames, products = FRAMES[:count], ["bolt", "nut", "nut", "bolt"][:count]

    for _ in range(3):
        scorer.submit([scorer.question(*each) for each in zip(frames, products, strict=True)])
        ours = answers_of(scorer)

        assert_same(ours, by_onnx(tiny_bundle, frames, products))


def test_a_frame_of_an_unknown_product_costs_the_others_of_its_batch_nothing(scoring, tiny_bundle):
    scorer = scoring(tiny_bundle)

    scorer.submit([scorer.question(FRAMES[0], each) for each in ("bolt", "screw", "nut")])
    ours = answers_of(scorer)

    assert isinstance(ours[1], NoScoreError)
    assert ours[1].reason is Reason.UNKNOWN_PRODUCT
    assert_same([ours[0], ours[2]], by_onnx(tiny_bundle, FRAMES[:1] * 2, ["bolt", "nut"]))


def test_what_looks_like_no_product_is_judged_by_the_rows_of_all(scoring, tiny_bundle):
    frame = np.full((32, 32, 3), (0, 255, 0), np.uint8)

    (ours,) = ask(scoring(tiny_bundle), [frame], [None])

    assert ours.route.category is None
    assert_same([ours], by_onnx(tiny_bundle, [frame], [None]))


def test_heads_raise_what_they_know_and_only_for_products_that_have_learned(scoring, tiny_bundle):
    bundle = taught(tiny_bundle)
    frames = [FRAMES[1], FRAMES[3]]

    ours = ask(scoring(bundle), frames, ["bolt", "nut"])

    for answer, frame, product in zip(ours, frames, ["bolt", "nut"], strict=True):
        route = bundle.route(product)
        expected = patch_scores(
            features(frame),
            positions((4, 4)),
            bundle.normal,
            bundle.abnormal,
            bundle.heads[product],
            route.scoring,
            category=product,
            weight=route.abnormal_weight,
        )
        np.testing.assert_allclose(answer.anomaly_map.ravel(), expected, rtol=2e-4, atol=1e-6)
    untaught = by_onnx(tiny_bundle, frames, ["bolt", "nut"])
    assert ours[0].score > 1.1 * untaught[0].score
    assert ours[1].score == pytest.approx(untaught[1].score, rel=1e-4)


def taught(bundle):
    """Bolts have learned that white is a defect; nuts have no abnormal rows at all."""
    abnormal = bundle.abnormal
    rows, valid = abnormal.features.copy(), abnormal.valid.copy()
    rows[abnormal.rows_of("bolt")], valid[abnormal.rows_of("bolt")] = 1.0, True
    abnormal = replace(abnormal, features=rows, valid=valid)
    learned = replace(bundle.routes["bolt"], abnormal_weight=0.7)
    return replace(bundle, abnormal=abnormal, routes={**bundle.routes, "bolt": learned})


# --- two slots ---


def test_neither_slot_waits_for_the_other(driver, scoring, tiny_bundle):
    """Two batches are under way at once: each can end while nothing of the other has begun."""
    scorer = scoring(tiny_bundle)
    ask(scorer, FRAMES, ["bolt"] * 4)  # from here on both slots replay graphs
    for first, second in ((0, 1), (1, 0)):
        for frame in FRAMES[:2]:
            scorer.submit([scorer.question(frame, "bolt")])
        slots = [batch.slot for batch in scorer._under_way]
        before = driver.counters().launches

        slots[first].done.synchronize()

        one = driver.counters().launches - before
        assert not slots[second].done.reached()
        slots[second].done.synchronize()
        assert driver.counters().launches - before == 2 * one > 0
        answers_of(scorer), answers_of(scorer)


def test_a_map_that_is_read_before_its_batch_is_done_is_not_the_map(scoring, tiny_bundle):
    scorer = scoring(tiny_bundle)
    (expected,) = by_onnx(tiny_bundle, [FRAMES[1]], ["bolt"])
    ask(scorer, FRAMES[::2] * 2, ["nut"] * 4)
    scorer.submit([scorer.question(FRAMES[1], "bolt")])
    slot = scorer._under_way[0].slot

    too_early = slot.maps()[0]

    assert not np.allclose(too_early, expected.anomaly_map)
    assert_same(answers_of(scorer), [expected])


def test_a_frame_takes_one_graph_and_no_memory(driver, scoring, tiny_bundle, monkeypatch):
    """What the host does for a frame once its shape is known: copy, wait, launch, mark, look."""
    scorer = scoring(tiny_bundle)
    ask(scorer, FRAMES, ["bolt"] * 4)
    calls = Counter()
    for kind, names in (
        (Kernel, ("launch",)),
        (Device, ("copy_in", "copy_out", "zero")),
        (Graph, ("launch",)),
        (Stream, ("wait_for", "synchronize")),
        (Event, ("record", "synchronize")),
    ):
        for name in names:
            monkeypatch.setattr(kind, name, counted(getattr(kind, name), calls, kind, name))
    before = driver.counters()

    ask(scorer, FRAMES * 250, ["bolt"] * 1000)

    assert driver.counters().living == before.living
    assert calls == {
        "Graph.launch": 1000,
        "Stream.wait_for": 3000,  # for each bank and the heads
        "Event.record": 3000,  # searched, judged, done
    }


def counted(function, calls, kind, name):
    def count(*arguments, **named):
        calls[f"{kind.__name__}.{name}"] += 1
        return function(*arguments, **named)

    return count


def test_mixed_products_are_aimed_at_again_and_nothing_is_allocated(driver, scoring, tiny_bundle):
    scorer, products = scoring(tiny_bundle), ["bolt", "nut"] * 2
    ask(scorer, FRAMES, products)
    before = driver.counters()

    ours = ask(scorer, FRAMES * 20, products * 20)

    assert driver.counters().living == before.living
    assert_same(ours, by_onnx(tiny_bundle, FRAMES, products) * 20)


def test_shapes_beyond_what_a_slot_keeps_make_room_for_each_other(driver, scoring, tmp_path):
    bundle = open_bundle(write_tiny_bundle(tmp_path, LETTERBOX))
    scorer = scoring(bundle, slots=1, most_frames=1)
    frames = [bad_frame("nut", 3, 32 + 8 * i) for i in range(MOST_LAYOUTS + 3)]
    ask(scorer, frames, ["nut"] * len(frames))
    before = driver.counters()

    ours = ask(scorer, frames, ["nut"] * len(frames))

    assert driver.counters().page_locked_buffers == before.page_locked_buffers
    for mine, frame in zip(ours, frames, strict=True):
        expected = answers_of_canvas(OnnxScorer(bundle, threads=1), scorer.canvas_of(frame))
        assert_same([mine], expected)


def test_large_frames_do_not_keep_page_locked_memory_beyond_a_bound(
    driver, scoring, tmp_path, monkeypatch
):
    monkeypatch.setattr(slot, "MOST_LAYOUT_BYTES", 3 * 64 * 64 * 3)
    scorer = scoring(open_bundle(write_tiny_bundle(tmp_path, LETTERBOX)), slots=1, most_frames=1)
    small, large = bad_frame("nut", 3, 64), bad_frame("nut", 3, 128)

    held = []
    for frame in (small, small[:56], small[:, :56], small[:48], large, small):
        ask(scorer, [frame], ["nut"])
        held.append(scorer._free[0]._held_bytes)

    one = 3 * 64 * 64
    assert max(held[:4]) <= 3 * one
    assert held[4:] == [4 * one, one], "a frame that alone takes more is scored all the same"


def test_a_frame_without_room_is_answered_and_the_next_one_scored(driver, kernels_folder, tmp_path):
    bundle = open_bundle(write_tiny_bundle(tmp_path, LETTERBOX))
    driver.be(memory_bytes=2 << 20)
    with open_device(kernels=kernels_folder) as device:
        trunk = EmulatedTrunk(driver, bundle)
        with open_gpu_scorer(device, trunk, bundle, most_frames=1) as scorer:
            large = np.zeros((1000, 1000, 3), np.uint8)

            said, scored = ask(scorer, [large, FRAMES[0]], ["bolt", "bolt"])

    assert said.reason is Reason.SCORER_FAILED
    assert "not enough memory" in str(said)
    assert_same([scored], by_onnx(bundle, FRAMES[:1], ["bolt"]))


def test_a_trunk_of_another_bundle_is_refused(driver, device, tiny_bundle):
    trunk = EmulatedTrunk(driver, tiny_bundle)
    trunk.dimensions = 5

    with (
        pytest.raises(DeviceError, match=r"S, P, D = \(32, 16, 3\), got \(32, 16, 5\)"),
        open_gpu_scorer(device, trunk, tiny_bundle),
    ):
        pytest.fail("opened")
