"""Where our method leaves the published one: the same steps, done in one way or the other.

What each departure brings is in `docs/method.md`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to learn.

    Attributes:
        name: What the command line calls it.
        averages: Whether every map is averaged over 3 × 3 neighbours.
        balances: Whether the layers of a patch are brought to nearly equal length.
        locates: Whether positions count, see `inspection.scoring.locate`.
        rows_share: Normal rows as a share of the patches of the largest product; None for a number
            that does not grow with the images.
        hinge: Whether the head is fitted by hinge loss; by logistic loss otherwise.
    """

    name: str
    averages: bool
    balances: bool
    locates: bool
    rows_share: float | None
    hinge: bool


DUALBANK = Recipe(
    "dualbank", averages=False, balances=True, locates=True, rows_share=None, hinge=False
)

PAPER = Recipe("paper", averages=True, balances=False, locates=False, rows_share=0.02, hinge=True)
"""DMAD as published, Hu et al., arXiv 2403.12362, but that the abnormal side only raises, and that
a good patch does not meet its own image in a bank."""
