"""Feature stores and evidence made of numbers instead of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspection.preprocessing import Preprocessing
from trainer.banks import Evidence
from trainer.features import FeatureStore

D = 5
"""Dimensions of `tagged` evidence."""


def store_of(features: NDArray[np.floating]) -> FeatureStore:
    """Hold (images, 16, D) as the features of images that were stretched to 32 × 32 px."""
    spec, images = Preprocessing(32), tuple(Path(f"{i}.png") for i in range(len(features)))
    flat = features.reshape(-1, features.shape[2]).astype(np.float16)
    return FeatureStore(images, spec, (spec.grid,) * len(images), flat, ())


def tagged(images: int, patches: int, seed: int = 0) -> Evidence:
    """Features whose first dimension is the number of their image; positions do not count."""
    image, patch = np.divmod(np.arange(images * patches), patches)
    noise = np.random.default_rng(seed).random((len(image), D - 1))
    features = np.column_stack([image, noise]).astype(np.float32)
    position = np.stack([np.zeros_like(patch), patch], axis=1)
    return Evidence(features, image, position, 0.0, np.arange(len(image)))
