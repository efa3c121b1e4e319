"""What labelled images teach: rows that fill the bank, and examples that never met themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.scoring import Scoring
from trainer.lessons import (
    CENTRE_SHARE,
    HARD,
    MOST,
    RANDOM,
    Examples,
    Lesson,
    Seen,
    abnormal_rows,
    defects_of,
    examples_of,
    see,
    telling,
)
from trainer.search import locate

D, K, ROWS = 6, 2, 16
SCORING = Scoring(K, 0.1)
UNIQUE = 100.0
"""What the last dimension is in a patch that is like no other."""


def looked_at(patches: NDArray[np.floating]) -> Seen:
    """See patches by a normal bank around the origin."""
    bank = np.random.default_rng(9).normal(0, 0.1, (50, D))
    shown, known = (
        locate(torch.from_numpy(each.astype(np.float32)), torch.zeros(len(each), 2), 0.0)
        for each in (patches, bank)
    )
    return see(shown, known, SCORING)


def good(count: int = 4, patches: int = 80) -> list[Seen]:
    rng = np.random.default_rng(3)
    return [looked_at(rng.normal(0, 0.1, (patches, D))) for _ in range(count)]


def image_of(patches: int) -> Seen:
    """So many patches, each worse than the one before."""
    nothing = torch.zeros(patches, 1)
    return Seen(nothing, nothing, nothing, torch.arange(float(patches)))


def lesson(defects: int, at: float, seed: int, clean: int = 10, kind: str = "dent") -> Lesson:
    """An image with so many patches of a defect around a place, its clean ones behind them."""
    rng = np.random.default_rng(seed)
    patches = rng.normal(0, 0.1, (defects + clean, D))
    patches[:defects, 0] += at
    shows = torch.arange(defects + clean) < defects
    return Lesson(looked_at(patches), shows, ~shows, kind)


def planted(like: Lesson) -> Lesson:
    """The same image, its defect's last dimension being like nothing else's."""
    patches = like.seen.patches.numpy().copy()
    patches[like.defect.numpy(), -1] = UNIQUE
    return Lesson(looked_at(patches), like.defect, like.clean, like.kind)


def examples(lessons: Sequence[Lesson], shown: Sequence[Seen], seed: int = 0) -> Examples:
    return examples_of(lessons, shown, SCORING, ROWS, np.random.default_rng(seed))


def nearest_abnormal(enhanced: Tensor) -> Tensor:
    """Of z = [q ; q − r_n ; q − r_a ; d_n ; d_a ; ρ] the first of d_a."""
    return enhanced[:, 3 * D + K]


# --- abnormal rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [16, 67])
@pytest.mark.parametrize("patches", [(1,), (2, 3), (40, 1, 30), (300, 200)])
def test_there_are_as_many_rows_as_asked_for_patches_first(
    patches: tuple[int, ...], rows: int
) -> None:
    rng = np.random.default_rng(0)
    defects = [rng.normal(i, 1, (count, D)).astype(np.float32) for i, count in enumerate(patches)]

    made = abnormal_rows(defects, rows, rng)

    first = min(sum(patches), rows - int(CENTRE_SHARE * rows))
    known = {patch.tobytes() for each in defects for patch in each}
    assert made.shape == (rows, D)
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    assert len({row.tobytes() for row in made[:first]} & known) == first


def test_samples_lie_around_the_patches_as_far_as_these_differ() -> None:
    rng = np.random.default_rng(1)
    left, right = (rng.normal(0, 1, (150, D)).astype(np.float32) for _ in range(2))
    left[:, 0], right[:, 0] = 0.01 * left[:, 0] - 50, right[:, 0] + 50
    left[:, 1] = 7.0  # what never differs is never made up

    made = abnormal_rows([left, right], 400, rng)[300:]

    by_left = made[:, 0] < 0
    assert 20 < by_left.sum() < 80  # 100 samples of two clusters of one size
    assert np.abs(made[by_left, 0] + 50).max() < 0.1
    assert np.abs(made[by_left, 1] - 7).max() < 1e-6
    assert np.abs(made[~by_left, 0] - 50).max() < 6
    assert made[~by_left, 0].std() > 0.3
    assert len(np.unique(made, axis=0)) == 100


def test_of_a_single_patch_all_rows_are_that_patch() -> None:
    patch = np.arange(D, dtype=np.float32)[None]

    assert (abnormal_rows([patch], 20, np.random.default_rng(0)) == patch).all()


# --- examples -------------------------------------------------------------------------------------


def test_a_defect_is_not_known_to_the_rows_that_it_is_taught_by() -> None:
    lessons = [planted(lesson(4, 1.0, seed=1)), lesson(5, 1.0, seed=2), lesson(3, 1.0, seed=3)]

    given = examples(lessons, good())

    gaps = nearest_abnormal(given.abnormal)
    assert float(gaps[:4].min()) > UNIQUE / 2  # its own image is left out
    assert float(gaps[4:].max()) < 2


def test_good_images_meet_every_defect_as_they_will_on_the_line() -> None:
    first, second = planted(lesson(4, 1.0, seed=1)), lesson(5, 1.0, seed=2)
    twin = looked_at(first.seen.patches[:1].numpy())  # a good part that looks like the defect

    given = examples([first, second], [twin])

    assert float(nearest_abnormal(given.normal)[0]) == 0.0


def test_clean_patches_of_a_labelled_image_do_not_meet_its_defect_either() -> None:
    first, second = lesson(4, 1.0, seed=1, clean=1), lesson(5, 1.0, seed=2, clean=0)
    patches = first.seen.patches.numpy().copy()
    patches[:, -1] = UNIQUE  # the whole image, in another light than the other
    first = Lesson(looked_at(patches), first.defect, first.clean, "dent")

    given = examples([first, second], good(1))

    assert float(nearest_abnormal(given.normal)[-1]) > UNIQUE / 2


def test_a_single_labelled_image_teaches() -> None:
    given = examples([lesson(3, 1.0, seed=1)], good())

    assert len(given.abnormal) == 3
    assert torch.isfinite(given.abnormal).all()
    assert torch.isfinite(given.normal).all()


def test_every_labelled_image_counts_alike_however_large_its_defect_is() -> None:
    sizes = (2, 40, 7)

    weight = examples([lesson(n, 1.0, seed=n) for n in sizes], good()).weight

    sums = [float(part.sum()) for part in torch.split(weight, sizes)]
    assert sums == pytest.approx([sum(sizes) / 3] * 3, rel=1e-5)
    assert float(weight.mean()) == pytest.approx(1, rel=1e-5)


def test_the_worst_patches_of_good_images_are_examples_and_some_others() -> None:
    patches = np.random.default_rng(5).normal(0, 0.1, (200, D))
    patches[100 : 100 + HARD, 2] += 3.0
    shown = looked_at(patches)

    given = examples([lesson(3, 1.0, seed=1, clean=0)], [shown])

    worst = given.normal[:, 2] > 2
    assert len(given.normal) == HARD + RANDOM
    assert len(torch.unique(given.normal[worst][:, :D], dim=0)) == HARD


def test_rim_patches_are_no_examples_at_all() -> None:
    whole = lesson(4, 1.0, seed=1, clean=20)
    rim = Lesson(whole.seen, whole.defect, whole.clean & (torch.arange(24) >= 14), "dent")

    given = examples([rim], good(1, patches=HARD + RANDOM))

    shown = given.normal[HARD + RANDOM :, :D]
    assert len(given.abnormal) == 4
    assert torch.equal(torch.unique(shown, dim=0), torch.unique(rim.seen.patches[14:], dim=0))


def test_an_image_of_no_more_patches_than_one_frame_is_kept_whole() -> None:
    shown = image_of(MOST)

    assert torch.equal(telling(shown, np.random.default_rng(0)), torch.arange(MOST))


def test_of_more_patches_those_of_the_defect_the_worst_and_some_others_are_kept() -> None:
    shown, marked = image_of(3 * MOST), torch.arange(3 * MOST) < 100

    chosen = telling(shown, np.random.default_rng(0), marked)

    kept = chosen.tolist()
    assert len(kept) == MOST
    assert kept == sorted(set(kept))
    assert kept[:100] == list(range(100))
    assert kept[-(MOST // 2) :] == list(range(3 * MOST - MOST // 2, 3 * MOST))
    others = kept[100 : -(MOST // 2)]
    assert min(others) < MOST < 2 * MOST < max(others)  # spread over the rest


def test_defects_are_the_patches_marked() -> None:
    found = defects_of([lesson(4, 9.0, seed=1), lesson(5, 9.0, seed=2)])

    assert [each.shape for each in found] == [(4, D), (5, D)]
    assert min(each[:, 0].min() for each in found) > 8


def test_what_copies_show_of_a_defect_is_learned_as_the_image_itself_is() -> None:
    first, second = lesson(4, 1.0, seed=1), lesson(5, 1.0, seed=2)
    copies = lesson(12, 1.0, seed=3).seen[torch.arange(12)]
    shifted = replace(first, shifted=copies)

    given = examples([shifted, second], good())

    assert [len(each) for each in defects_of([shifted, second])] == [16, 5]
    assert torch.equal(given.abnormal[4:16, :D], copies.patches)
    # The image still counts like any other.
    assert float(given.weight[:16].sum()) == pytest.approx(float(given.weight[16:].sum()), rel=1e-5)


def test_copies_do_not_meet_their_own_image_in_the_rows() -> None:
    first, second = lesson(4, 1.0, seed=1), lesson(5, 1.0, seed=2)
    copy = replace(first, shifted=planted(first).shown)

    gaps = nearest_abnormal(examples([copy, second], good()).abnormal)

    assert float(gaps[4:8].min()) > UNIQUE / 2


def test_one_seed_gives_the_same_examples() -> None:
    lessons = [lesson(4, 1.0, seed=1), lesson(5, 1.0, seed=2)]

    first, again, other = (examples(lessons, good(), seed) for seed in (3, 3, 4))

    assert torch.equal(first.normal, again.normal)
    assert torch.equal(first.abnormal, again.abnormal)
    assert not torch.equal(first.abnormal, other.abnormal)
