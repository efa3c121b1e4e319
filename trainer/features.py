"""Patch features of many images, kept on disk, so that memory does not grow with the data set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.errors import InputError
from inspection.preprocessing import Preprocessing
from trainer.dataset import read_prepared
from trainer.trunk import Trunk

BATCH = 8

Advance = Callable[[int], None]
"""Told how much of a long piece of work is done since it was last told."""


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """Patch features of a list of images, on disk.

    Attributes:
        images: Their files.
        features: (images, P, D) float16, a memory map: gone when the store is closed. Half
            precision moves a patch by 2e-4 of its length, far below the distance between parts.
    """

    images: tuple[Path, ...]
    features: NDArray[np.float16]

    def rows(self, image: NDArray[np.integer], patch: NDArray[np.integer]) -> NDArray[np.float32]:
        """Gather single patches, (n,) and (n,) → (n, D) float32."""
        return np.asarray(self.features[image, patch], np.float32)


@contextmanager
def feature_store(
    trunk: Trunk, images: Sequence[Path], spec: Preprocessing, advance: Advance
) -> Iterator[FeatureStore]:
    """Compute patch features of images and hold them until the block ends.

    Raises:
        DatasetError: An image cannot be used; it is named.
        InputError: The disk has no room for the features.
    """
    patches = spec.grid[0] * spec.grid[1]
    with TemporaryDirectory(prefix="dualbank-features-") as folder:
        _check_room(Path(folder), len(images) * patches * trunk.dimensions * 2)
        features = np.lib.format.open_memmap(
            Path(folder) / "features.npy",
            mode="w+",
            dtype=np.float16,
            shape=(len(images), patches, trunk.dimensions),
        )
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            features[start : start + len(batch)] = extract(
                trunk, np.stack([read_prepared(path, spec) for path in batch])
            )
            advance(len(batch))
        yield FeatureStore(tuple(images), features)


def _check_room(folder: Path, needed_bytes: int) -> None:
    """Refuse to begin on a full disk: writing to a memory map without room kills the process."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"patch features need {needed_bytes / 1e9:.1f} GB in {folder.parent}, but only "
            f"{free_bytes / 1e9:.1f} GB are free; set TMPDIR to a larger disk"
        )


def extract(trunk: Trunk, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run the trunk on prepared frames, (B, S, S, 3) uint8 → (B, P, D) float32."""
    with torch.inference_mode():
        return np.asarray(trunk(torch.from_numpy(frames)).numpy())
