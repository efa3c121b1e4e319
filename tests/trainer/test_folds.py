"""Which good images are held out together, and that the banks without them have not seen them."""

from __future__ import annotations

import numpy as np
import pytest

from inspection.errors import NotEnoughSamplesError
from tests.trainer.stores import D, tagged
from trainer.folds import (
    FOLDS,
    LEAST_IMAGES,
    LONGEST_BLOCK,
    check_enough,
    fold_rows,
    folds_of,
)


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
        assert bank.shape[1] == D + 2  # located
    assert sum(told) == sum(map(len, banks))


@pytest.mark.parametrize("images", [0, 1, LEAST_IMAGES - 1])
def test_too_few_good_images_are_refused_with_the_number_needed(images: int) -> None:
    with pytest.raises(
        NotEnoughSamplesError, match=f"bolt has {images} .* at least {LEAST_IMAGES}"
    ):
        check_enough("bolt", images)


def test_the_fewest_good_images_suffice() -> None:
    check_enough("bolt", LEAST_IMAGES)
