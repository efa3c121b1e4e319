"""Which patches of a labelled image show its defect: by its outline, and by what is not usual."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.errors import DatasetError
from trainer.labelled import LabelledDefect
from trainer.lessons import Lesson, Seen, telling
from trainer.outlines import marked_patches

COVERED = 0.5
"""Share of a patch that an outline covers if it shows the defect."""

BOX_QUANTILE = 0.5
"""In a box, what is as near to the bank as half of all good patches is taken for its background."""

IMAGE_QUANTILE = 0.999
"""Without an outline, what is as far from the bank as hardly any good patch is taken for it."""

LEAST_MARKED = 3
"""Patches that show the defect at least, the farthest, where no outline says so."""


def marks_of(
    defect: LabelledDefect,
    seen: Seen,
    share: NDArray[np.float32] | None,
    inspected: NDArray[np.uint8],
    good: Sequence[Seen],
) -> NDArray[np.bool_]:
    """Say which patches show the defect.

    Args:
        defect: The label.
        seen: All patches of the image, (n, …).
        share: (Mh, Mw), n of them, of `trainer.labelled.patch_share`; None without an outline.
        inspected: (Mh, Mw), 1 where the product is inspected: the others are neither defect nor
            clean.
        good: Images of good parts, to tell what is usual.

    Returns:
        (Mh, Mw), at least one.

    Raises:
        DatasetError: The defect lies where nothing is inspected.
    """
    usual = torch.cat([each.evidence for each in good]).numpy()
    evidence = seen.evidence.numpy().reshape(inspected.shape)
    where = inspected.astype(bool)
    if share is None:
        marked = evidence > np.quantile(usual, IMAGE_QUANTILE)
        farthest = np.argsort(np.where(where, -evidence, np.inf), axis=None)[:LEAST_MARKED]
        marked.ravel()[farthest] = True
    else:
        marked = marked_patches(share, COVERED)
        if defect.regions == "boxes":
            unusual = marked & (evidence > np.quantile(usual, BOX_QUANTILE))
            marked = unusual if unusual.any() else marked
    if not (marked & where).any():
        raise DatasetError(
            f"the defect in {defect.image} lies where the product is not inspected; correct its "
            "outline or the foreground mask, or remove the label"
        )
    return np.asarray(marked & where)


def lesson_of(
    defect: LabelledDefect,
    seen: Seen,
    share: NDArray[np.float32] | None,
    inspected: NDArray[np.uint8],
    marks: NDArray[np.bool_],
) -> Lesson:
    """Say what a labelled image teaches, as it lies.

    Args:
        defect: The label.
        seen: All patches of the image, (n, …).
        share: As `marks_of`; without an outline nothing is known to be clean.
        inspected: As `marks_of`.
        marks: (Mh, Mw), from `marks_of`.
    """
    shown = torch.from_numpy(marks.ravel())
    clean = torch.zeros(len(shown), dtype=torch.bool)
    if share is not None:
        clean = torch.from_numpy((share == 0).ravel() & inspected.ravel().astype(bool))
    chosen = telling(seen, np.random.default_rng(0), shown)
    return Lesson(seen[chosen], shown[chosen], clean[chosen], defect.defect)
