"""What a fit may be told; the same for every product."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from inspection.errors import InputError
from inspection.preprocessing import PATCH_PX, Fit, Preprocessing
from inspection.scoring import Scoring
from trainer.augment import AS_THEY_ARE, Augmentation
from trainer.backbones.catalogue import DEFAULT
from trainer.backbones.resnet import WIDE_RESNET50_2
from trainer.recipe import DUALBANK, PAPER, Recipe


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Checked at once; the defaults are what BENCHMARKS.md reports.

    Attributes:
        size_px: Side of the network input; of a tile, if frames are cut into tiles.
        fit: How frames come to fit it, see `inspection.preprocessing.Preprocessing`.
        overlap_px: Of tiles; None for a quarter of their side.
        shrink: Of tiles.
        rows_each: Normal rows of each category.
        abnormal_rows_each: Abnormal rows of each category.
        k: Neighbours for the attention.
        top_fraction: Share of the patches whose mean is the image score.
        abnormal_weight: How much the abnormal side may raise a patch. None for what
            cross-validation says where defects are labelled, and 0 where none are: pseudo-abnormal
            rows alone were measured to make rankings worse, never better.
        seed: Of every random draw.
        backbone: As `trainer.backbones.catalogue.load_backbone` takes it.
        weights: Checkpoint of the backbone; None for that of the installed package.
        recipe: Ours, or the published one: `PAPER_SETTINGS` has what goes with it.
        augmentation: In what copies of good pictures differ, that the normal bank learns from too.
    """

    size_px: int = 256
    fit: Fit = "stretch"
    overlap_px: int | None = None
    shrink: int = 1
    rows_each: int = 2048
    abnormal_rows_each: int = 512
    k: int = 12
    top_fraction: float = 0.01
    abnormal_weight: float | None = None
    seed: int = 0
    backbone: str = DEFAULT
    weights: Path | None = None
    recipe: Recipe = DUALBANK
    augmentation: Augmentation = AS_THEY_ARE

    def __post_init__(self) -> None:
        if self.rows_each < 16 or self.abnormal_rows_each < 16 or not 1 <= self.k <= 16:
            raise InputError(
                "expected at least 16 rows a category in both banks and 1 <= k <= 16, got "
                f"{self.rows_each}, {self.abnormal_rows_each} and {self.k}"
            )
        if self.abnormal_weight is not None and not 0 <= self.abnormal_weight < math.inf:
            raise InputError(
                f"abnormal_weight must be 0 or more and finite, got {self.abnormal_weight}"
            )
        if not 0 <= self.seed < 1 << 63:
            raise InputError(f"expected a seed from 0 to 2^63 - 1, got {self.seed}")
        # What they refuse is better refused now than after hours.
        _ = self.preprocessing
        Scoring(self.k, 1.0, self.top_fraction)

    @property
    def preprocessing(self) -> Preprocessing:
        """How frames are prepared."""
        overlap_px = self.overlap_px
        if overlap_px is None:
            # A patch 32 px from the border of a tile is off by 0.16 of what the middle of a larger
            # one makes of it, against 0.41 to its neighbour; at the border it is 0.51.
            overlap_px = self.size_px // 32 * PATCH_PX if self.fit == "tiles" else 0
        return Preprocessing(self.size_px, self.fit, overlap_px, self.shrink)


PAPER_SETTINGS = FitSettings(recipe=PAPER, backbone=WIDE_RESNET50_2.name, k=1, abnormal_weight=1.0)

SETTINGS = {each.recipe.name: each for each in (FitSettings(), PAPER_SETTINGS)}
"""What a fit starts from, by the name of its recipe."""
