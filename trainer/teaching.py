"""What labelled defects teach one product: abnormal rows, a head, and how far both may be trusted.

The weight is found by cross-validation on the labelled defects and on good parts, never on a test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.metrics import auroc
from inspection.scoring import Scoring, image_score
from trainer.head import HeadNet, train_head
from trainer.lessons import Lesson, Seen, abnormal_rows, defects_of, examples_of
from trainer.recipe import DUALBANK, Recipe

WEIGHTS = (0.0, 1.0, 0.5, 0.2)
"""How much the abnormal side may raise: what cross-validation chooses from, the first of equals:
what ranks no better than the normal bank alone is not taken."""

ROUNDS = 5
"""Parts into which labelled images are divided for cross-validation, at most."""


@dataclass(frozen=True, slots=True)
class AbnormalSide:
    """What raises suspicion beside the normal bank.

    Attributes:
        rows: (A, D) float32.
        head: Judges the enhanced representation.
        weight: How much it may raise a patch; 0 leaves it out.
    """

    rows: Tensor
    head: HeadNet
    weight: float

    def raised(self, seen: Seen, scoring: Scoring) -> Tensor:
        """Score patches, (n,): what the normal bank says, raised; see `inspection.scoring.fuse`."""
        if self.weight == 0:
            return seen.evidence
        logits = self.head(seen.enhanced(self.rows, scoring))
        return seen.evidence * (1.0 + self.weight * torch.relu(logits))


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for every head of a product.

    Attributes:
        scoring: The constants.
        rows: Abnormal rows to make.
        view_patches: P, see `inspection.scoring.image_score`.
        seed: Of every random draw.
        recipe: Which loss.
    """

    scoring: Scoring
    rows: int
    view_patches: int
    seed: int
    recipe: Recipe = DUALBANK


def heads_taught(labelled: int, weight: float | None) -> int:
    """How many heads are fitted at most for so many labelled images: one, and those only tried."""
    return 1 + (2 * min(ROUNDS, labelled) if weight is None and labelled > 1 else 0)


def teach(
    lessons: Sequence[Lesson],
    good: Sequence[Seen],
    terms: Terms,
    weight: float | None,
    advance: Callable[[int], None],
) -> AbnormalSide:
    """Learn from labelled defects of one product.

    Args:
        lessons: Labelled images, at least one.
        good: Images of good parts, each seen by a bank without it.
        terms: What is the same for every head of the product.
        weight: To be taken as it is; None to find it.
        advance: Told after each head.
    """
    if weight is None:
        weight = _found_weight(lessons, good, terms, advance)
    rng = np.random.default_rng(terms.seed)
    rows = torch.from_numpy(abnormal_rows(defects_of(lessons), terms.rows, rng))
    given = examples_of(lessons, good, terms.scoring, terms.rows, rng)
    head = train_head(given.normal, given.abnormal, terms.seed, given.weight, terms.recipe)
    advance(1)
    return AbnormalSide(rows, head, weight)


@dataclass(frozen=True, slots=True)
class _HeldOut:
    """An image that a head has not seen: (n,) each."""

    evidence: Tensor
    suspicion: Tensor
    defect: NDArray[np.bool_]
    clean: NDArray[np.bool_]

    def scores(self, weight: float) -> NDArray[np.float64]:
        fused = self.evidence * (1.0 + weight * torch.relu(self.suspicion))
        return np.asarray(fused.numpy(), np.float64)


def _found_weight(
    lessons: Sequence[Lesson],
    good: Sequence[Seen],
    terms: Terms,
    advance: Callable[[int], None],
) -> float:
    """Choose the weight that tells held out defects from held out good parts best.

    Once labelled images are held out by themselves and once with all of their type: what comes next
    may be of a type that was labelled, or not.
    """
    ways = [way for way in _divisions(lessons) if max(way) > 0]
    if not ways:
        return 0.0
    tried = [_tried(lessons, way, good, terms, advance) for way in ways]
    worth = {each: sum(_worth(held, each, terms) for held in tried) for each in WEIGHTS}
    return max(WEIGHTS, key=worth.__getitem__)


def _divisions(lessons: Sequence[Lesson]) -> tuple[list[int], list[int]]:
    """Number the part of each labelled image: those of a type apart, and those of a type together.

    At most `ROUNDS` parts.
    """
    kinds = sorted({each.kind for each in lessons})
    by_kind = sorted(range(len(lessons)), key=lambda i: lessons[i].kind)
    apart = [0] * len(lessons)
    for turn, i in enumerate(by_kind):
        apart[i] = turn % ROUNDS
    return apart, [kinds.index(each.kind) % ROUNDS for each in lessons]


def _tried(
    lessons: Sequence[Lesson],
    parts: Sequence[int],
    good: Sequence[Seen],
    terms: Terms,
    advance: Callable[[int], None],
) -> list[_HeldOut]:
    """Judge every image by a head that has seen neither it nor the others of its part."""
    held: list[_HeldOut] = []
    count = max(parts) + 1
    for part in range(count):
        kept = [each for each, own in zip(lessons, parts, strict=True) if own != part]
        shown = [each for i, each in enumerate(good) if i % count != part]
        side = teach(kept, shown, terms, 0.0, advance)
        for lesson, own in zip(lessons, parts, strict=True):
            if own == part:
                held.append(_held_out(lesson.seen, lesson.defect, lesson.clean, side, terms))
        for seen in good[part::count]:
            every = torch.ones(len(seen.evidence), dtype=torch.bool)
            held.append(_held_out(seen, ~every, every, side, terms))
    return held


def _held_out(
    seen: Seen, defect: Tensor, clean: Tensor, side: AbnormalSide, terms: Terms
) -> _HeldOut:
    suspicion = side.head(seen.enhanced(side.rows, terms.scoring))
    return _HeldOut(seen.evidence, suspicion, defect.numpy(), clean.numpy())


def _worth(held: Sequence[_HeldOut], weight: float, terms: Terms) -> float:
    """Mean of image AUROC and patch AUROC, 0 to 1."""
    scores = [each.scores(weight) for each in held]
    images = np.array([image_score(some, terms.scoring, terms.view_patches) for some in scores])
    defective = np.array([bool(each.defect.any()) for each in held])
    known = [each.defect | each.clean for each in held]
    patches = np.concatenate([some[which] for some, which in zip(scores, known, strict=True)])
    defects = np.concatenate([each.defect[which] for each, which in zip(held, known, strict=True)])
    return (auroc(images, defective) + auroc(patches, defects)) / 2
