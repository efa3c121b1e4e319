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
from trainer.augment import AS_THEY_ARE, Augmentation
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
        features: (entries, P, D) float16, a memory map: gone when the store is closed. The images
            first, then copies of them all, and so on: entry e is of image e modulo their number.
            Half precision moves a patch by 2e-4 of its length, far below the distance between
            parts.
    """

    images: tuple[Path, ...]
    features: NDArray[np.float16]

    def rows(self, entry: NDArray[np.integer], patch: NDArray[np.integer]) -> NDArray[np.float32]:
        """Gather single patches, (n,) and (n,) → (n, D) float32."""
        return np.asarray(self.features[entry, patch], np.float32)


@contextmanager
def feature_store(
    trunk: Trunk,
    images: Sequence[Path],
    spec: Preprocessing,
    advance: Advance,
    augmentation: Augmentation = AS_THEY_ARE,
    seed: int = 0,
) -> Iterator[FeatureStore]:
    """Compute patch features of images and their copies, and hold them until the block ends.

    Raises:
        DatasetError: An image cannot be used; it is named.
        InputError: The disk has no room for the features.
    """
    patches, entries = spec.grid[0] * spec.grid[1], len(images) * (1 + augmentation.copies)

    def entry(number: int) -> NDArray[np.uint8]:
        frame = read_prepared(images[number % len(images)], spec)
        return frame if number < len(images) else augmentation.copy(frame, [seed, number])

    with TemporaryDirectory(prefix="dualbank-features-") as folder:
        _check_room(Path(folder), entries * patches * trunk.dimensions * 2)
        features = np.lib.format.open_memmap(
            Path(folder) / "features.npy",
            mode="w+",
            dtype=np.float16,
            shape=(entries, patches, trunk.dimensions),
        )
        for start in range(0, entries, BATCH):
            batch = range(start, min(start + BATCH, entries))
            features[batch.start : batch.stop] = extract(
                trunk, np.stack([entry(number) for number in batch])
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
