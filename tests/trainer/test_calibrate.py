"""Good parts are scored by banks that have not seen them: that is all that thresholds rest on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from inspection.bundle import ANY_PRODUCT
from inspection.errors import InputError, NotEnoughSamplesError
from inspection.foreground import everywhere
from inspection.scoring import Scoring
from tests.trainer.stores import store_of
from trainer.banks import Evidence
from trainer.calibrate import (
    ANY_PRODUCT_IMAGES,
    FOLDS,
    LEAST_IMAGES,
    LONGEST_BLOCK,
    AbnormalSide,
    calibrate,
    check_enough,
    fold_rows,
    folds_of,
)
from trainer.contrast import contrast
from trainer.features import FeatureStore
from trainer.head import HeadNet

D = 5


def tagged(images: int, patches: int, seed: int = 0) -> Evidence:
    """Features whose first dimension is the number of their image."""
    image, patch = np.divmod(np.arange(images * patches), patches)
    noise = np.random.default_rng(seed).random((len(image), D - 1))
    features = np.column_stack([image, noise]).astype(np.float32)
    position = np.stack([np.zeros_like(patch), patch], axis=1)
    return Evidence(features, image, position, np.arange(len(image)))


@pytest.mark.parametrize("images", range(LEAST_IMAGES, 301))
def test_no_fold_is_empty_and_none_is_a_whole_lot(images: int) -> None:
    folds = folds_of(images)

    sizes = np.bincount(folds, minlength=FOLDS)
    runs = np.split(folds, np.flatnonzero(np.diff(folds)) + 1)
    assert len(sizes) == FOLDS
    assert sizes.min() >= images // (2 * FOLDS)
    assert max(map(len, runs)) <= LONGEST_BLOCK
    for fold in range(FOLDS):  # each is found in both halves of the list
        where = np.flatnonzero(folds == fold)
        # Fewer than two a fold cannot span anything.
        assert images < 2 * FOLDS or where[0] < images / 2 <= where[-1]


@pytest.mark.parametrize(("images", "rows"), [(8, 20), (9, 1000), (61, 40)])
def test_a_folds_bank_holds_no_patch_of_an_image_of_that_fold(images: int, rows: int) -> None:
    folds, told = folds_of(images), []

    banks = fold_rows(tagged(images, 6), folds, rows, 0, told.append)

    assert len(banks) == FOLDS
    for fold, bank in enumerate(banks):
        seen = bank[:, 0].numpy().astype(int)
        assert fold not in folds[seen]
        assert set(folds[seen]) == set(range(FOLDS)) - {fold}
    assert sum(told) == sum(map(len, banks))


def store(images: int, product: float = 0.0) -> FeatureStore:
    features = np.random.default_rng(7).random((images, 16, D)) + product
    return store_of(features)


def nothing() -> AbnormalSide:
    return AbnormalSide(torch.zeros(1, D), HeadNet(3 * D + 3), 0.0)


def test_every_image_calibrates_once_and_only_by_the_bank_of_its_fold() -> None:
    known = store(10)
    folds = folds_of(10)
    # The bank of a fold lies `fold + 1` away from everything, so that a score names its bank.
    banks = {"bolt": [torch.full((1, D), -100.0 * (fold + 1)) for fold in range(FOLDS)]}
    scorings = {name: Scoring(1, 1.0, 1.0) for name in ("bolt", ANY_PRODUCT)}
    told: list[int] = []

    found, _ = calibrate(
        {"bolt": known},
        banks,
        {"bolt": nothing(), ANY_PRODUCT: nothing()},
        scorings,
        {"bolt": everywhere((4, 4))},
        told.append,
    )

    used = [round(score / (100 * D**0.5)) - 1 for score in found["bolt"].good_scores]
    assert used == sorted(folds.tolist())
    assert sum(told) == 10


def test_with_one_product_a_frame_of_unknown_product_is_one_of_it() -> None:
    scorings = {name: Scoring(1, 1.0, 1.0) for name in ("bolt", ANY_PRODUCT)}
    banks = {"bolt": [torch.full((1, D), 2.0)] * FOLDS}
    sides = dict.fromkeys(scorings, nothing())

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
        "bolt": [torch.full((3, D), 9.5)] * FOLDS,
        "nut": [torch.full((3, D), 0.5)] * FOLDS,
    }
    scorings = {name: Scoring(1, 1.0, 1.0) for name in ("bolt", "nut", ANY_PRODUCT)}
    sides = dict.fromkeys(scorings, nothing())

    seen = dict.fromkeys(stores, everywhere((4, 4)))
    known, unknown = calibrate(stores, banks, sides, scorings, seen, lambda done: None)

    assert min(known["bolt"].good_scores) > 9
    assert max(unknown.good_scores) < 2
    assert len(unknown.good_scores) == ANY_PRODUCT_IMAGES // 2 + 8


def test_patches_that_are_not_inspected_calibrate_nothing_but_the_route_of_no_product() -> None:
    stores = {"bolt": store(8), "nut": store(8)}
    banks = {name: [torch.full((3, D), 9.0)] * FOLDS for name in stores}
    scorings = {name: Scoring(1, 1.0, 1.0) for name in (*stores, ANY_PRODUCT)}
    sides = dict.fromkeys(scorings, nothing())
    half = np.repeat(np.array([[0], [1]], np.uint8), 2, axis=0) * np.ones(4, np.uint8)

    known, unknown = calibrate(
        stores, banks, sides, scorings, {"bolt": half, "nut": everywhere((4, 4))}, lambda done: None
    )

    halves, wholes = (sum(known[name].good_scores) for name in ("bolt", "nut"))
    assert halves == pytest.approx(wholes / 2, rel=0.1)
    assert sum(unknown.good_scores) == pytest.approx(2 * wholes)


@pytest.mark.parametrize("images", [0, 1, LEAST_IMAGES - 1])
def test_too_few_good_images_are_refused_with_the_number_needed(images: int) -> None:
    with pytest.raises(
        NotEnoughSamplesError, match=f"bolt has {images} .* at least {LEAST_IMAGES}"
    ):
        check_enough("bolt", images)


def test_the_fewest_good_images_suffice() -> None:
    check_enough("bolt", LEAST_IMAGES)


# --- what the head learns from --------------------------------------------------------------------


def learned(evidence: dict[str, Evidence], k: int = 3):
    folds = {name: folds_of(len(np.unique(pool.image))) for name, pool in evidence.items()}
    banks = {
        name: fold_rows(pool, folds[name], 40, 0, lambda done: None)
        for name, pool in evidence.items()
    }
    foreign = {name: tagged(8, 20, seed=5).features + 30 for name in evidence}
    return contrast(
        evidence, folds, banks, foreign, rows_each=16, k=k, rng=np.random.default_rng(0)
    )


def test_no_good_example_of_the_head_has_met_itself() -> None:
    examples = learned({"bolt": tagged(9, 12)})

    # Columns of z behind [q ; q − r_n ; q − r_a] are the distances, nearest first.
    assert float(examples.normal[:, 3 * D].min()) > 0.5  # another image is at least 1 away


def test_abnormal_examples_lie_farther_off_than_good_ones() -> None:
    examples = learned({"bolt": tagged(9, 12), "nut": tagged(12, 12, seed=1)})

    good, bad = examples.normal[:, 3 * D], examples.abnormal[:, 3 * D]
    assert float(bad.min()) > float(good.median())
    assert examples.normal.shape[1] == examples.abnormal.shape[1] == 3 * D + 2 * 3 + 1


def test_there_are_abnormal_rows_and_a_temperature_for_every_product() -> None:
    examples = learned({"bolt": tagged(9, 12), "nut": tagged(12, 12, seed=1)})

    assert examples.bank.categories == ("bolt", "nut")
    assert all(examples.bank.valid[examples.bank.rows_of(name)].any() for name in ("bolt", "nut"))
    assert set(examples.temperatures) == {"bolt", "nut", ANY_PRODUCT}
    assert min(examples.temperatures.values()) > 0


def test_good_parts_that_are_copies_of_one_image_are_refused_by_name() -> None:
    pool = tagged(9, 12)
    copies = replace(pool, features=np.tile(pool.features[:12], (9, 1)))

    with pytest.raises(InputError, match="images of category nut are copies of one another"):
        learned({"bolt": pool, "nut": copies})


def test_products_so_diverse_that_everything_is_near_still_get_abnormal_rows() -> None:
    pool = tagged(9, 12)
    folds = {"bolt": folds_of(9)}
    banks = {"bolt": fold_rows(pool, folds["bolt"], 40, 0, lambda done: None)}

    examples = contrast(
        {"bolt": pool},
        folds,
        banks,
        {"bolt": pool.features},  # foreign material that is no other than the product
        rows_each=16,
        k=3,
        rng=np.random.default_rng(0),
    )

    assert int(examples.bank.valid.sum()) == 16
    assert len(examples.abnormal) > 0


def test_a_background_that_is_always_the_same_does_not_set_the_temperature() -> None:
    pool = tagged(9, 12)
    painted = pool.features.copy()
    painted[pool.position[:, 1] < 9] = painted[0]  # three quarters of every image

    usual = learned({"bolt": pool}).temperatures["bolt"]
    background = learned({"bolt": replace(pool, features=painted)}).temperatures["bolt"]

    assert 0.1 * usual < background < 10 * usual
