"""What a bundle said of every test image: figures, intervals and the report all start from here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inspection.verdicts import Judgement, Verdict
from trainer.dataset import Sample


@dataclass(frozen=True, slots=True)
class Recognised:
    """What comes of an image whose product nobody names.

    Attributes:
        product: What it looks like; None if it looks like none.
        score: Standardised, by the route of that product.
    """

    product: str | None
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class ImageResult:
    """What was said of one test image.

    Attributes:
        sample: Its file, its defect type or None, its mask or None.
        shape: (H, W) of the image, px.
        judgement: Standardised score, p-value and verdict by the route of its product.
        anomaly_map: (Gh, Gw) float32, in units of feature distance.
        recognised: Where its product is not named; None in a bundle of one product.
    """

    sample: Sample
    shape: tuple[int, int]
    judgement: Judgement
    anomaly_map: NDArray[np.float32]
    recognised: Recognised | None

    @property
    def passed(self) -> bool:
        """Whether the line lets the part go on."""
        return self.judgement.decision.verdict is Verdict.PASS


@dataclass(frozen=True, slots=True, eq=False)
class CategoryResults:
    """What was said of the test images of one product, n of them.

    Attributes:
        name: The product.
        has_masks: Whether its defects are outlined pixel by pixel.
        images: In the order of the data set.
        left_out: Test images that were not looked at because a bundle has learned from them.
    """

    name: str
    has_masks: bool
    images: tuple[ImageResult, ...]
    left_out: tuple[Sample, ...]

    @property
    def scores(self) -> NDArray[np.float64]:
        """(n,) standardised image scores."""
        return np.array([image.judgement.score for image in self.images], np.float64)

    @property
    def defects(self) -> NDArray[np.bool_]:
        """(n,) whether the part is defective."""
        return np.array([image.sample.defect is not None for image in self.images], np.bool_)

    @property
    def passed(self) -> NDArray[np.bool_]:
        """(n,) whether the line lets the part go on."""
        return np.array([image.passed for image in self.images], np.bool_)

    @property
    def has_both_kinds(self) -> bool:
        """Whether there are good and defective images, without which nothing can be measured."""
        return bool(self.defects.any() and not self.defects.all())

    def of_type(self, defect: str) -> NDArray[np.bool_]:
        """(n,) whether the part has a defect of one type."""
        return np.array([image.sample.defect == defect for image in self.images], np.bool_)

    @property
    def types(self) -> tuple[str, ...]:
        """Defect types, in order of names."""
        found = {image.sample.defect for image in self.images}
        return tuple(sorted(defect for defect in found if defect is not None))
