"""Good parts are scored by banks that have not seen them: that is all that thresholds rest on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inspection.bundle import ANY_PRODUCT
from inspection.foreground import everywhere
from inspection.scoring import Scoring
from tests.trainer.stores import D, store_of
from trainer.calibrate import ANY_PRODUCT_IMAGES, calibrate
from trainer.features import FeatureStore
from trainer.folds import FOLDS, folds_of
from trainer.head import HeadNet
from trainer.teaching import AbnormalSide


def store(images: int, product: float = 0.0) -> FeatureStore:
    features = np.random.default_rng(7).random((images, 16, D)) + product
    return store_of(features)


def rows(count: int, value: float) -> Tensor:
    """Located rows, (count, D + 2), all alike and in one place."""
    return F.pad(torch.full((count, D), value), (0, 2))


def nothing() -> AbnormalSide:
    return AbnormalSide(torch.zeros(1, D), HeadNet(3 * D + 3), 0.0)


def test_every_image_calibrates_once_and_only_by_the_bank_of_its_fold() -> None:
    known = store(10)
    folds = folds_of(10)
    # The bank of a fold lies `fold + 1` away from everything, so that a score names its bank.
    banks = {"bolt": [rows(1, -100.0 * (fold + 1)) for fold in range(FOLDS)]}
    scorings = {name: Scoring(1, 1.0, 1.0) for name in ("bolt", ANY_PRODUCT)}
    told: list[int] = []

    found, _ = calibrate(
        {"bolt": known},
        banks,
        {"bolt": nothing()},
        scorings,
        {"bolt": everywhere((4, 4))},
        told.append,
    )

    used = [round(score / (100 * D**0.5)) - 1 for score in found["bolt"].good_scores]
    assert used == sorted(folds.tolist())
    assert sum(told) == 10


def test_with_one_product_a_frame_of_unknown_product_is_one_of_it() -> None:
    scorings = {name: Scoring(1, 1.0, 1.0) for name in ("bolt", ANY_PRODUCT)}
    banks = {"bolt": [rows(1, 2.0)] * FOLDS}
    sides = {"bolt": nothing()}

    known, unknown = calibrate(
        {"bolt": store(9)},
        banks,
        sides,
        scorings,
        {"bolt": everywhere((4, 4))},
        lambda done: None,
    )

    assert unknown == known["bolt"]


def test_frames_of_unknown_product_are_calibrated_against_all_banks() -> None:
    count = ANY_PRODUCT_IMAGES + 9
    stores = {"bolt": store(count), "nut": store(8, product=9.0)}
    # Banks are swapped: only who searches all of them finds his own.
    banks = {
        "bolt": [rows(3, 9.5)] * FOLDS,
        "nut": [rows(3, 0.5)] * FOLDS,
    }
    scorings = {name: Scoring(1, 1.0, 1.0) for name in ("bolt", "nut", ANY_PRODUCT)}
    sides = dict.fromkeys(stores, nothing())

    seen = dict.fromkeys(stores, everywhere((4, 4)))
    known, unknown = calibrate(stores, banks, sides, scorings, seen, lambda done: None)

    assert min(known["bolt"].good_scores) > 9
    assert max(unknown.good_scores) < 2
    assert len(unknown.good_scores) == ANY_PRODUCT_IMAGES // 2 + 8


def test_patches_that_are_not_inspected_calibrate_nothing_but_the_route_of_no_product() -> None:
    stores = {"bolt": store(8), "nut": store(8)}
    banks = {name: [rows(3, 9.0)] * FOLDS for name in stores}
    scorings = {name: Scoring(1, 1.0, 1.0) for name in (*stores, ANY_PRODUCT)}
    sides = dict.fromkeys(stores, nothing())
    half = np.repeat(np.array([[0], [1]], np.uint8), 2, axis=0) * np.ones(4, np.uint8)

    known, unknown = calibrate(
        stores, banks, sides, scorings, {"bolt": half, "nut": everywhere((4, 4))}, lambda done: None
    )

    halves, wholes = (sum(known[name].good_scores) for name in ("bolt", "nut"))
    assert halves == pytest.approx(wholes / 2, rel=0.1)
    assert sum(unknown.good_scores) == pytest.approx(2 * wholes)


def test_a_part_out_of_place_scores_by_its_product_and_not_by_the_route_of_none() -> None:
    stores = dict.fromkeys(("bolt", "nut"), store_of(np.ones((8, 16, D))))
    banks = {name: [rows(3, 1.0)] * FOLDS for name in stores}  # all seen in the first corner
    scorings = {name: Scoring(1, 1.0, 1.0, position_weight=0.5) for name in stores}
    scorings[ANY_PRODUCT] = Scoring(1, 1.0, 1.0)
    sides, seen = dict.fromkeys(stores, nothing()), dict.fromkeys(stores, everywhere((4, 4)))

    known, unknown = calibrate(stores, banks, sides, scorings, seen, lambda done: None)

    places = np.argwhere(np.ones((4, 4)))
    assert known["nut"].good_scores == pytest.approx(
        [0.5 * np.linalg.norm(places, axis=1).mean()] * 8
    )
    assert set(unknown.good_scores) == {0.0}
