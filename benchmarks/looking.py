"""Test images measured in torch, without a bundle: for many models that share what is learned once.

Scores are those of torch, which every fit holds to the graph that ships, to 1e-4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.metrics import auroc
from inspection.pixel_metrics import PixelCurves
from inspection.scoring import image_score
from inspection.views import map_of_canvas
from trainer.dataset import Category, Sample, read_image, read_prepared
from trainer.evaluate import regions_of
from trainer.fit import look_at
from trainer.good_parts import GoodParts
from trainer.lessons import Seen
from trainer.pictures import full_size_map
from trainer.teaching import AbnormalSide


@dataclass(frozen=True, slots=True)
class LookedAt:
    """What the normal bank says of every test image of a category, kept on disk.

    Attributes:
        samples: The test images.
        shapes: (Mh, Mw) and (H, W) of each.
        folder: Holds the rest.
    """

    samples: tuple[Sample, ...]
    shapes: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    folder: Path

    def map_of(self, number: int, side: AbnormalSide | None, good: GoodParts, name: str) -> Any:
        """(Mh, Mw) float32 patch scores of one image, raised by a side or not."""
        parts = torch.load(self.folder / f"{number}.pt", weights_only=True)
        seen = Seen(*(part.float() for part in parts))
        scores = seen.evidence if side is None else side.raised(seen, good.scorings[name])
        return scores.numpy().reshape(self.shapes[number][0])


def look(good: GoodParts, category: Category, folder: Path) -> LookedAt:
    folder.mkdir()
    shapes = []
    for number, sample in enumerate(category.test):
        canvas = read_prepared(sample.image, good.spec)
        seen = look_at(good, category.name, canvas)
        parts = [getattr(seen, field.name).half() for field in dataclasses.fields(seen)]
        torch.save(parts, folder / f"{number}.pt")
        height, width, _ = read_image(sample.image).shape
        shapes.append((map_of_canvas(canvas), (height, width)))
    return LookedAt(category.test, tuple(shapes), folder)


def measure(
    good: GoodParts, looked: LookedAt, tested: Category, side: AbnormalSide | None
) -> dict[str, float | None]:
    """Image AUROC and AUPRO over the images that are left."""
    kept = [i for i, sample in enumerate(looked.samples) if sample in set(tested.test)]
    maps = [looked.map_of(i, side, good, tested.name) for i in kept]
    scores, defects = image_scores(good, looked, tested.name, kept, maps)
    aupro = None
    if tested.has_masks:
        low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
        curves = PixelCurves(low, high)
        for i, anomaly_map in zip(kept, maps, strict=True):
            shape = looked.shapes[i][1]
            large = np.clip(full_size_map(anomaly_map, good.spec, shape), low, high)
            curves.add(large, regions_of(looked.samples[i], shape))
        aupro = curves.aupro()
    return {"image_auroc": auroc(scores, defects), "aupro": aupro}


def image_scores(
    good: GoodParts, looked: LookedAt, name: str, kept: Sequence[int], maps: Sequence[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scoring, patches = good.scorings[name], good.spec.patches
    return (
        np.array([image_score(each, scoring, patches) for each in maps]),
        np.array([looked.samples[i].defect is not None for i in kept]),
    )
