"""The abnormal side that is made up: what it is made of, and that good parts are not raised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.scoring import Scoring
from tests.trainer.stores import D, tagged
from trainer.banks import Evidence
from trainer.contrast import FLOOR_QUANTILE, imagine, unseen
from trainer.folds import fold_rows, folds_of
from trainer.lessons import Seen
from trainer.search import nearest
from trainer.teaching import AbnormalSide, Terms

TERMS = Terms(Scoring(3, 1.0), rows=16, view_patches=12, seed=0)


def seen_and_banks(pool: Evidence) -> tuple[Seen, list[Tensor]]:
    folds = folds_of(len(np.unique(pool.image)))
    banks = fold_rows(pool, folds, 40, 0, lambda done: None)
    return unseen(pool, folds, banks, TERMS.scoring, np.random.default_rng(0)), banks


def imagined(foreign: NDArray[np.float32], weight: float = 0.0) -> AbnormalSide:
    pool = tagged(9, 12)
    seen, banks = seen_and_banks(pool)
    return imagine(pool, seen, banks[0], foreign, TERMS, weight)


def elsewhere() -> NDArray[np.float32]:
    """Foreign patches far from every good part."""
    return np.asarray(tagged(8, 20, seed=5).features[np.arange(160)] + 30)


def test_no_good_patch_has_met_its_own_image() -> None:
    seen, _ = seen_and_banks(tagged(9, 12))

    assert len(seen.patches) == 9 * 12
    # The first dimension is the number of the image: another one is at least 1 away.
    assert float(seen.distances.min()) >= 1.0


def test_made_up_rows_lie_farther_off_than_good_patches() -> None:
    seen, banks = seen_and_banks(tagged(9, 12))

    side = imagined(elsewhere())

    gaps, _ = nearest(side.rows, banks[0][:, :-2], 1)
    assert side.rows.shape == (16, D)
    assert len(torch.unique(side.rows, dim=0)) == 16
    assert float(gaps.min()) > float(torch.quantile(seen.distances[:, 0], FLOOR_QUANTILE))


def test_the_weight_is_the_one_asked_for_and_nothing_is_raised_without() -> None:
    seen, _ = seen_and_banks(tagged(9, 12))

    silent, loud = (imagined(elsewhere(), weight) for weight in (0.0, 0.5))

    assert (silent.weight, loud.weight) == (0.0, 0.5)
    assert torch.equal(silent.raised(seen, TERMS.scoring), seen.evidence)
    assert torch.equal(silent.rows, loud.rows)


def test_what_is_made_up_is_raised_and_hardly_any_good_patch() -> None:
    seen, _ = seen_and_banks(tagged(9, 12))
    side = imagined(elsewhere(), 1.0)
    foreign = torch.from_numpy(elsewhere())
    odd = Seen(foreign, torch.zeros_like(foreign), torch.full((160, 3), 30.0), torch.ones(160))

    raised = side.raised(seen, TERMS.scoring)

    assert float((raised > seen.evidence).float().mean()) < 0.02
    assert float((side.raised(odd, TERMS.scoring) > 1).float().mean()) > 0.9


@pytest.mark.parametrize("rows", [16, 40])
def test_products_so_diverse_that_everything_is_near_still_get_abnormal_rows(rows: int) -> None:
    pool = tagged(9, 12)
    seen, banks = seen_and_banks(pool)
    own = pool.features[np.arange(len(pool.image))]  # foreign material that is no other
    terms = Terms(TERMS.scoring, rows, 12, 0)

    assert len(imagine(pool, seen, banks[0], own, terms, 0.0).rows) == rows
