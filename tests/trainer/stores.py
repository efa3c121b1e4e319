"""Feature stores made of numbers instead of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspection.preprocessing import Preprocessing
from trainer.features import FeatureStore


def store_of(features: NDArray[np.floating]) -> FeatureStore:
    """Hold (images, 16, D) as the features of images that were stretched to 32 × 32 px."""
    spec, images = Preprocessing(32), tuple(Path(f"{i}.png") for i in range(len(features)))
    flat = features.reshape(-1, features.shape[2]).astype(np.float16)
    return FeatureStore(images, spec, (spec.grid,) * len(images), flat)
