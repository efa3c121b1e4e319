"""Which patches of a labelled image teach the defect, by how well it was outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspection.errors import DatasetError
from trainer.coco import Box
from trainer.labelled import LabelledDefect
from trainer.lessons import Lesson, Seen
from trainer.marking import LEAST_MARKED, lesson_of, marks_of

SIDE = 4
EVERYWHERE = np.ones((SIDE, SIDE), np.uint8)
IMAGE, DIGEST = Path("bolt/dent/7.png"), "0" * 64
MASKED = LabelledDefect(IMAGE, "dent", DIGEST, mask=Path("7_mask.png"))
BOXED = LabelledDefect(IMAGE, "dent", DIGEST, boxes=(Box(0, 0, 8, 8),))
ALONE = LabelledDefect(IMAGE, "dent", DIGEST)


def seen(evidence: NDArray[np.floating]) -> Seen:
    """Patches of which the normal bank says so much."""
    count = evidence.size
    nothing = torch.zeros(count, 1)
    flat = torch.from_numpy(evidence.ravel().astype(np.float32))
    return Seen(nothing, nothing, nothing, flat)


def taught(
    label: LabelledDefect,
    evidence: NDArray[np.floating],
    share: NDArray[np.float32] | None = None,
    inspected: NDArray[np.uint8] = EVERYWHERE,
) -> Lesson:
    """A lesson beside good images whose evidence is spread evenly from 0 to 1."""
    good = [seen(np.linspace(0, 1, 1001)[i::3]) for i in range(3)]
    marks = marks_of(label, seen(evidence), share, inspected, good)
    return lesson_of(label, seen(evidence), share, inspected, marks)


def numbers(marks: torch.Tensor) -> list[int]:
    return torch.nonzero(marks)[:, 0].tolist()


def outline(*covered: tuple[int, float]) -> NDArray[np.float32]:
    """Shares of patches by number; the others are not touched."""
    share = np.zeros(SIDE * SIDE, np.float32)
    for number, part in covered:
        share[number] = part
    return share.reshape(SIDE, SIDE)


def test_a_mask_says_what_is_defect_what_is_clean_and_leaves_the_rim_out() -> None:
    share = outline((0, 1.0), (1, 0.5), (2, 0.4), (4, 0.1))

    lesson = taught(MASKED, np.zeros((SIDE, SIDE)), share)

    assert numbers(lesson.defect) == [0, 1]
    assert numbers(lesson.clean) == [3, *range(5, 16)]
    assert lesson.kind == "dent"
    assert len(lesson.seen.evidence) == 16


def test_in_a_box_only_what_is_unusual_is_defect() -> None:
    evidence = np.full((SIDE, SIDE), 0.9)
    evidence[0, 1] = evidence[1, 0] = 0.3  # like half of all good patches
    share = outline((0, 1.0), (1, 1.0), (4, 1.0), (5, 1.0))

    lesson = taught(BOXED, evidence, share)

    assert numbers(lesson.defect) == [0, 5]
    # The rest of the box is not clean for that.
    assert numbers(lesson.clean) == [2, 3, *range(6, 16)]


def test_a_mask_is_believed_where_a_box_is_not() -> None:
    share = outline((0, 1.0), (1, 1.0))
    evidence = np.zeros((SIDE, SIDE))
    evidence[0, 0] = 0.9

    assert numbers(taught(MASKED, evidence, share).defect) == [0, 1]
    assert numbers(taught(BOXED, evidence, share).defect) == [0]


def test_a_box_with_nothing_unusual_is_defect_as_a_whole() -> None:
    share = outline((0, 1.0), (1, 1.0))

    assert numbers(taught(BOXED, np.zeros((SIDE, SIDE)), share).defect) == [0, 1]


def test_without_an_outline_the_farthest_patches_are_the_defect_and_none_is_clean() -> None:
    evidence = np.linspace(0.1, 0.2, 16)
    evidence[[3, 11, 6]] = (0.3, 0.5, 0.4)

    lesson = taught(ALONE, evidence)

    assert LEAST_MARKED == 3
    assert numbers(lesson.defect) == [3, 6, 11]
    assert not lesson.clean.any()


def test_without_an_outline_all_that_hardly_any_good_patch_reaches_is_the_defect() -> None:
    evidence = np.linspace(0.1, 0.9, 16)
    evidence[[0, 2, 5, 7, 8, 14]] = 1.5

    assert numbers(taught(ALONE, evidence).defect) == [0, 2, 5, 7, 8, 14]


@pytest.mark.parametrize("label", [MASKED, BOXED, ALONE], ids=lambda each: each.regions)
def test_what_is_not_inspected_is_neither_defect_nor_clean(label: LabelledDefect) -> None:
    inspected = EVERYWHERE.copy()
    inspected[:, 0] = 0
    evidence = np.zeros((SIDE, SIDE))
    evidence[0] = 2.0
    share = None if label is ALONE else outline((0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0))

    lesson = taught(label, evidence, share, inspected)

    assert numbers(lesson.defect) == [1, 2, 3]
    assert not {0, 4, 8, 12} & set(numbers(lesson.clean))


@pytest.mark.parametrize("label", [MASKED, BOXED], ids=lambda each: each.regions)
def test_a_defect_outside_of_what_is_inspected_is_refused_with_its_name(
    label: LabelledDefect,
) -> None:
    inspected = EVERYWHERE.copy()
    inspected[0] = 0

    with pytest.raises(DatasetError, match=r"bolt/dent/7\.png lies where .* not inspected"):
        taught(label, np.ones((SIDE, SIDE)), outline((0, 1.0), (1, 1.0)), inspected)
