"""What is learned from labelled defects helps, or has no weight; it raises, and never lowers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspection.metrics import auroc
from inspection.scoring import Scoring, image_score
from trainer.head import head_weights
from trainer.lessons import Lesson, Seen, see
from trainer.search import locate
from trainer.teaching import (
    ROUNDS,
    WEIGHTS,
    AbnormalSide,
    Terms,
    _divisions,
    heads_taught,
    teach,
)

D, PATCHES, SPOT = 8, 120, 6
SCORING = Scoring(3, 0.05, top_fraction=0.05)
TERMS = Terms(SCORING, rows=32, view_patches=PATCHES, seed=0)


def looked_at(patches: NDArray[np.floating]) -> Seen:
    """See patches by a normal bank around the origin."""
    bank = np.random.default_rng(99).normal(0, 0.1, (100, D))
    shown, known = (
        locate(torch.from_numpy(each.astype(np.float32)), torch.zeros(len(each), 2), 0.0)
        for each in (patches, bank)
    )
    return see(shown, known, SCORING)


def image(rng: np.random.Generator, defect: float) -> Seen:
    """A part with a harmless spot, as most have that the bank has not seen, and maybe a defect.

    The first `SPOT` patches differ in one direction if it is defective, and the next ones, by more,
    in another direction: the normal bank alone cannot tell which of the two matters.
    """
    patches = rng.normal(0, 0.1, (PATCHES, D))
    patches[:SPOT, 0] += defect
    patches[SPOT : 2 * SPOT, 1] += rng.choice([0.0, 1.0], p=[0.3, 0.7])
    return looked_at(patches)


def good(count: int, seed: int) -> list[Seen]:
    rng = np.random.default_rng([seed, 0])
    return [image(rng, 0.0) for _ in range(count)]


def lessons(count: int, seed: int, defect: float = 0.8) -> list[Lesson]:
    """Labelled images; without a defect, it is any patches that are called one."""
    rng = np.random.default_rng([seed, 1])
    found = []
    for _ in range(count):
        marked = torch.zeros(PATCHES, dtype=torch.bool)
        marked[:SPOT] = True
        if not defect:
            marked = marked[torch.from_numpy(rng.permutation(PATCHES))]
        found.append(Lesson(image(rng, defect), marked, ~marked, "dent"))
    return found


def taught(count: int = 8, seed: int = 0, defect: float = 0.8) -> AbnormalSide:
    return teach(lessons(count, seed, defect), good(24, seed), TERMS, None, lambda done: None)


def separation(side: AbnormalSide | None, bad: Sequence[Seen], fine: Sequence[Seen]) -> float:
    """Image AUROC; by the normal bank alone without a side."""
    scores = [
        image_score(
            (each.evidence if side is None else side.raised(each, SCORING)).numpy(), SCORING
        )
        for each in (*bad, *fine)
    ]
    return auroc(np.array(scores), np.arange(len(scores)) < len(bad))


def test_what_labels_teach_tells_new_defects_better_than_the_normal_bank_alone() -> None:
    side = taught()

    bad, fine = [each.seen for each in lessons(30, 7)], good(30, 8)
    assert side.weight > 0
    assert separation(side, bad, fine) > separation(None, bad, fine) + 0.1


def test_labels_that_say_nothing_cost_little() -> None:
    changes = []
    for seed in range(8):
        side = taught(6, seed, defect=0.0)
        bad, fine = [each.seen for each in lessons(60, 700 + seed)], good(60, 800 + seed)
        changes.append(separation(side, bad, fine) - separation(None, bad, fine))

    # Among six images chance may favour a weight, which then is chosen: half of the draws do.
    assert min(changes) > -0.05


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_weight_that_is_given_is_taken_and_no_other_is_tried(weight: float) -> None:
    told: list[int] = []

    side = teach(lessons(3, 0), good(8, 0), TERMS, weight, told.append)

    assert side.weight == weight
    assert sum(told) == heads_taught(3, weight) == 1


@pytest.mark.parametrize(
    ("kinds", "tried"),
    [
        pytest.param("a", 0, id="one image cannot be held out"),
        pytest.param("aa", 2, id="one type is not held out as a whole"),
        pytest.param("ab", 2 + 2, id="two types"),
        pytest.param("aabbabcc", ROUNDS + 3, id="more images than rounds"),
        pytest.param("abcdefg", 2 * ROUNDS, id="more types than rounds"),
    ],
)
def test_every_head_is_told_of(kinds: str, tried: int) -> None:
    told: list[int] = []
    shown = [
        replace(each, kind=kind) for each, kind in zip(lessons(len(kinds), 0), kinds, strict=True)
    ]

    side = teach(shown, good(6, 0), TERMS, None, told.append)

    assert sum(told) == 1 + tried <= heads_taught(len(kinds), None)
    assert side.weight in WEIGHTS


def test_images_are_held_out_by_themselves_and_with_all_of_their_type() -> None:
    shown = [replace(each, kind=kind) for each, kind in zip(lessons(6, 0), "abbaab", strict=True)]

    apart, together = _divisions(shown)

    for kind in "ab":
        own = [i for i, each in enumerate(shown) if each.kind == kind]
        assert len({apart[i] for i in own}) == len(own)
        assert len({together[i] for i in own}) == 1
    assert len(set(together)) == 2


def test_a_single_labelled_image_cannot_prove_itself() -> None:
    side = taught(1)

    assert side.weight == 0.0
    assert side.rows.shape == (TERMS.rows, D)


def test_scores_are_never_below_what_the_normal_bank_says() -> None:
    side = teach(lessons(4, 0), good(8, 0), TERMS, 0.5, lambda done: None)

    for shown in (lessons(1, 5)[0].seen, *good(3, 6)):
        assert (side.raised(shown, SCORING) >= shown.evidence).all()
    defect = lessons(1, 5)[0]
    raised = side.raised(defect.seen, SCORING) > 1.01 * defect.seen.evidence
    assert float(raised[defect.defect].float().mean()) > 0.5


def test_one_seed_teaches_one_side_and_another_seed_another() -> None:
    first, again, other = (
        teach(lessons(3, 0), good(6, 0), Terms(SCORING, 32, PATCHES, seed), 0.3, lambda done: None)
        for seed in (1, 1, 2)
    )

    assert torch.equal(first.rows, again.rows)
    weights = [head_weights(each.head).hidden_weight for each in (first, again, other)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
