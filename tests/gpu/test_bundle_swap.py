"""A bundle takes over while frames are scored: each is judged by one of the two, and says which.

Under the emulated driver, with two bundles whose answers are far apart.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import groupby

import numpy as np
import pytest

from edge.device import open_device
from edge.gpu_scorer import open_gpu_scorer
from edge.onnx_scorer import OnnxScorer
from edge.settings import StationSettings
from inspection.bundle import digest
from inspection.errors import InputError
from inspection.scoring import Head
from tests.bundles import good_frame
from tests.edge.ledgers import messages_in
from tests.edge.open_station import open_station
from tests.gpu.emulated_trunk import EmulatedTrunk
from tests.line.free_addresses import FREE_ADDRESSES
from tests.line.push_camera import PushCamera

FRAME = good_frame("bolt")


def other(bundle):
    """The same trunk, and rows far from every good part: what was good is now a defect."""
    rows = 0.5 * bundle.normal.features
    normal = replace(bundle.normal, features=rows)
    return replace(bundle, normal=normal, id=digest(b"other"), bank_id=digest(b"other bank"))


@pytest.fixture
def swapping(driver, device, tiny_bundle):
    """A scorer, the bundle it began with, one to come, and the score of `FRAME` by bundle id."""
    bundles = [tiny_bundle, other(tiny_bundle)]
    scores = {}
    for each in bundles:
        scorer = OnnxScorer(each, threads=1)
        scores[each.id] = scorer.score(FRAME, each.route("bolt")).score
    assert scores[bundles[1].id] > 10 * scores[bundles[0].id]
    trunk = EmulatedTrunk(driver, tiny_bundle)
    with open_gpu_scorer(device, trunk, tiny_bundle, most_frames=2) as scorer:
        yield scorer, *bundles, scores


def under_load(scorer, frames, tend=True):
    """Keep two batches under way; the answers in order, and how far a swap got between them."""
    said = []
    for _ in range(frames):
        if tend:
            scorer.tend()
        scorer.submit([scorer.question(FRAME, "bolt")])
        if len(scorer._under_way) == scorer.depth:
            said += answers_of(scorer)
    while scorer._under_way:
        said += answers_of(scorer)
    return said


def answers_of(scorer):
    while (answers := scorer.poll()) is None:
        pass
    return answers


def are_one_of_the_two(said, scores):
    return all(each.score == pytest.approx(scores[each.bundle.id], rel=1e-4) for each in said)


def test_every_answer_is_one_bundles_and_says_which(any_schedule, swapping):
    scorer, old, new, scores = swapping
    said = under_load(scorer, 4)
    scorer.offer(new)

    said += under_load(scorer, 40)
    scorer.offer(old)
    said += under_load(scorer, 40)

    assert are_one_of_the_two(said, scores)
    ids = [each.bundle.id for each in said]
    assert [each for each, _ in groupby(ids)] == [old.id, new.id, old.id]


def test_rows_that_are_being_staged_are_not_searched(swapping):
    scorer, old, new, scores = swapping
    scorer.offer(new)
    scorer.tend()  # the first piece is on its way

    said = under_load(scorer, 3, tend=False)

    assert {each.bundle.id for each in said} == {old.id}
    assert are_one_of_the_two(said, scores)


def test_a_swap_that_does_not_wait_for_the_slots_gives_answers_of_neither(swapping):
    scorer, _, new, scores = swapping
    for bank in scorer._model.banks:
        bank.fence.readers.clear()

    scorer.submit([scorer.question(FRAME, "bolt")])
    scorer.offer(new)
    while scorer.bundle is not new:
        scorer.tend()
    scorer._loading.synchronize()
    said = answers_of(scorer)

    assert not are_one_of_the_two(said, scores)
    for bank in scorer._model.banks:
        for slot in scorer._free:
            bank.fence.readers += [lane.scan.done for lane in slot._lanes]


def test_the_last_of_several_offers_counts(swapping):
    scorer, old, new, scores = swapping
    scorer.offer(new)
    scorer.tend()
    scorer.offer(old)
    scorer.offer(new)

    said = under_load(scorer, 40)

    assert said[-1].bundle.id == new.id
    assert are_one_of_the_two(said, scores)


def test_heads_take_over_together_with_rows(swapping, tiny_bundle):
    scorer, *_ = swapping
    route = replace(tiny_bundle.routes["bolt"], abnormal_weight=1.0)
    Z, U = tiny_bundle.heads["bolt"].hidden_weight.shape
    loud = Head(np.zeros((Z, U), np.float32), np.ones(U, np.float32), np.ones(U, np.float32), 0.0)
    abnormal = tiny_bundle.abnormal
    taught = replace(
        tiny_bundle,
        id=digest(b"taught"),
        heads=dict.fromkeys(tiny_bundle.heads, loud),
        abnormal=replace(abnormal, valid=np.ones_like(abnormal.valid)),
        routes={**tiny_bundle.routes, "bolt": route},
    )
    (before,) = under_load(scorer, 1)
    scorer.offer(taught)

    said = under_load(scorer, 40)

    # Every hidden unit says 1: a logit of U = 2, so each patch is raised by 1 + w · 2.
    expected = {tiny_bundle.id: before.score, taught.id: 3 * before.score}
    assert {each.bundle.id for each in said} == {*expected}
    assert are_one_of_the_two(said, expected)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("normal bank", lambda b: {"normal": replace(b.normal, **halved(b.normal))}),
        ("products", lambda b: {"heads": {"bolt": b.heads["bolt"]}}),
    ],
)
def test_a_bundle_that_is_more_than_rows_and_heads_is_refused(swapping, what, change):
    scorer, old, _, scores = swapping

    with pytest.raises(InputError, match=f"expected {what}"):
        scorer.offer(replace(old, **change(old)))

    assert are_one_of_the_two(under_load(scorer, 3), scores)


def halved(bank):
    arrays = {each.name: getattr(bank, each.name) for each in fields(bank)}
    half = len(bank.features) // 2
    return {name: array[:half] for name, array in arrays.items() if isinstance(array, np.ndarray)}


def test_a_station_swaps_under_load_and_every_verdict_names_its_bank(
    driver, kernels_folder, tiny_bundle, tmp_path
):
    """Cameras, threads and sockets as on a line; the GPU is the emulated one."""
    new = other(tiny_bundle)
    settings = StationSettings(**FREE_ADDRESSES, state_dir=tmp_path, backlog_frames=1 << 16)
    with (
        open_station(settings, on_its_own_thread(driver, kernels_folder, tiny_bundle)) as station,
        station.running(),
        PushCamera(station.addresses["frames"], product="bolt") as camera,
    ):
        for i in range(40):
            camera.send(FRAME)
            if i == 20:
                station.scorer.offer(new)
        while station.scorer.bundle is not new:
            camera.send(FRAME)
            time.sleep(0.002)  # a camera of 500 Hz
        for _ in range(10):
            camera.send(FRAME)
    station.check()

    rows = [(each.verdict.value, each.bundle, each.bank) for each in messages_in(tmp_path)]
    expected = {tiny_bundle.bank_id: "PASS", new.bank_id: "FAIL"}
    assert {bank for _, _, bank in rows} == {*expected}
    assert all(verdict == expected[bank] for verdict, _, bank in rows)
    assert {(b, bank) for _, b, bank in rows} == {
        (each.id, each.bank_id) for each in (tiny_bundle, new)
    }


@contextmanager
def on_its_own_thread(driver, kernels, bundle):
    """The device as the station opens it: in the thread that scores."""
    with (
        open_device(kernels=kernels) as device,
        open_gpu_scorer(device, EmulatedTrunk(driver, bundle), bundle) as scorer,
    ):
        yield scorer


def test_heads_of_more_units_than_there_is_room_for_are_refused_at_the_offer(swapping):
    scorer, old, _, scores = swapping
    heads = {}
    for product, head in old.heads.items():
        arrays = (head.hidden_weight, head.hidden_bias, head.output_weight)
        heads[product] = Head(*(np.concatenate([each, each], -1) for each in arrays), 0.0)

    with pytest.raises(InputError, match="up to 2 units, got 12 and 4"):
        scorer.offer(replace(old, heads=heads))

    assert are_one_of_the_two(under_load(scorer, 3), scores)
