"""Results of test images that nobody had to inspect: scores by hand, maps from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inspection.thresholds import Thresholds
from inspection.verdicts import Judgement, decide
from trainer.dataset import Sample
from trainer.results import CategoryResults, ImageResult, Recognised

THRESHOLDS = Thresholds(review=1.0, reject=2.0)


def judged(
    score: float, defect: str | None = None, recognised: Recognised | None = None, number: int = 0
) -> ImageResult:
    """A test image of 80 x 96 px; above 1 a person looks, above 2 the part is ejected."""
    kind = defect or "good"
    return ImageResult(
        sample=Sample(Path(f"{kind}/{number:03}.png"), defect),
        shape=(80, 96),
        judgement=Judgement(score, 0.5, decide(score, THRESHOLDS)),
        anomaly_map=np.random.default_rng(number).random((8, 8), np.float32),
        recognised=recognised,
    )


def results_of(
    name: str, good: Sequence[float], defective: Sequence[float], *types: str
) -> CategoryResults:
    """Results of one product from scores; the defects are of the types in turn."""
    types = types or ("scratch",)
    images = [judged(score, number=i) for i, score in enumerate(good)]
    images += [judged(score, types[i % len(types)], number=i) for i, score in enumerate(defective)]
    return CategoryResults(name, has_masks=False, images=tuple(images), left_out=())
