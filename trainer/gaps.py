"""How good parts of one product differ from each other: the units of its score.

Both units are read off good training images: the temperature of the attention from how far a patch
is from the bank, and the weight of positions from how far away its like is found.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.errors import InputError
from trainer.coreset import Rows
from trainer.search import nearest

TEMPERATURE_FACTOR = 1.0
"""τ over the median squared distance of an unseen good patch to its nearest row. Measured with
K = 12, mean image AUROC: 93.6 % with 1, 93.6 % with 2, 93.4 % with 0.5, 92.3 % with 0.25."""

SAME = 1e-3
"""A patch nearer than this to its nearest row shows the very same pixels, as a background does that
is painted black. Usual gaps between good parts are 0.32 to 0.49 in our six categories."""

POSITION_SHARE = 0.75
"""What the usual displacement adds to the usual gap where it is one patch; the measurements that it
rests on are at `position_weight`."""

ASKED, SHOWN = 1500, 1024
"""Patches that look for their like, and patches among which they look: about as many as one frame
of 256 px has. Among more, the like of a turned part too is soon found in its own place."""


def temperature(name: str, gaps: Tensor) -> float:
    """τ of a product from the distances of unseen good patches to their nearest row, (n,).

    Raises:
        InputError: The images of the product are copies of one another.
    """
    # What never differs tells nothing of how good parts do.
    differing = gaps[gaps > SAME]
    if len(differing) > 0:
        return TEMPERATURE_FACTOR * float(differing.square().median())
    raise InputError(
        f"all good images of category {name} are copies of one another, so that nothing can be "
        "learned of how good parts differ; take every image of another part"
    )


def position_weight(
    features: Rows,
    image: NDArray[np.integer],
    position: NDArray[np.integer],
    folds: NDArray[np.int64],
    rng: np.random.Generator,
) -> float:
    """Say what one patch of displacement costs, λ of `inspection.scoring.locate`.

    λ = 0.75 · g / δ², g the median gap of a good patch to its like in other images, δ the median
    displacement, at least 1 patch. So parts that lie in a fixture are compared place by place, and
    parts that lie anywhere are not: δ is 1.4 patches for our transistors, 2 for hazelnuts, 3 for
    turned screws, 12 for boards that each show another place. Transistors' AUPRO rises from 87 to
    93 % with λ = 0.18; screws lose a point of it with 0.06: `docs/decisions/0007`.

    Args:
        features: Patches of good images, (n, D).
        image: (n,), which image each is of.
        position: (n, 2), row and column in its map.
        folds: Fold of each image; a patch finds its like only in other folds.
        rng: Draws patches.
    """
    numbers = rng.choice(len(image), min(len(image), ASKED + SHOWN), replace=False)
    # In order, as they are read from disk.
    asked, shown = (np.sort(some) for some in np.split(numbers, [min(ASKED, len(numbers) // 2)]))
    queries, rows = (torch.from_numpy(features[some]) for some in (asked, shown))
    fold_of = [torch.from_numpy(folds[image[some]]) for some in (asked, shown)]
    gaps, index = nearest(queries, rows, 1, excluded=fold_of[0][:, None] == fold_of[1][None, :])
    like = shown[index[:, 0].numpy()]
    moved = position[asked].astype(np.int64) - position[like]
    differing = gaps[:, 0].numpy() > SAME
    if not differing.any():
        return 0.0
    displacement = float(np.median(np.linalg.norm(moved[differing], axis=1)))
    gap = float(gaps[:, 0][torch.from_numpy(differing)].median())
    return POSITION_SHARE * gap / max(1.0, displacement) ** 2
