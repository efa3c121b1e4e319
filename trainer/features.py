"""Patch features of many images, kept on disk, so that memory does not grow with the data set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.errors import InputError
from inspection.frame_checks import FrameMeasures, measure
from inspection.preprocessing import Preprocessing, map_shape, prepare
from inspection.views import over_views
from trainer.augment import AS_THEY_ARE, Augmentation
from trainer.dataset import read_image, read_prepared, resize
from trainer.trunk import Trunk

Advance = Callable[[int], None]
"""Told how much of a long piece of work is done since it was last told."""


class Patches(Protocol):
    """Features of patches one after the other; an array (n, D) float16 is such."""

    def __len__(self) -> int:
        """n."""
        ...

    def __getitem__(self, chosen: slice | NDArray[np.integer], /) -> NDArray[np.float16]:
        """(m, D)."""
        ...


@dataclass(frozen=True, slots=True)
class PatchesOnDisk:
    """Features in a file, mapped only while they are read.

    Pages of a file that stays mapped count as memory of the process: 4.3 GB for 5,000 images.

    Attributes:
        file: (n, D) float16, row by row.
        dimensions: D.
    """

    file: Path
    dimensions: int

    def __len__(self) -> int:
        """n."""
        return self.file.stat().st_size // (2 * self.dimensions)

    def __getitem__(self, chosen: slice | NDArray[np.integer], /) -> NDArray[np.float16]:
        """(m, D), a copy."""
        mapped = np.memmap(self.file, np.float16, "r").reshape(-1, self.dimensions)
        return np.array(mapped[chosen])


@dataclass(frozen=True)
class FeatureStore:
    """Patch features of a list of images and of copies of them, on disk.

    Entries are the images first, then copies of them all, and so on: entry e is of image e modulo
    their number.

    Attributes:
        images: Their files.
        spec: How they were prepared.
        shapes: (Mh, Mw) of each entry's map.
        features: (patches, D) float16, those of an entry together and row by row; gone when the
            store is closed. Half precision moves a patch by 2e-4 of its length, far below the
            distance between parts.
        measures: Of each image as the camera gave it; of copies there are none.
    """

    images: tuple[Path, ...]
    spec: Preprocessing
    shapes: tuple[tuple[int, int], ...]
    features: Patches
    measures: tuple[FrameMeasures, ...]

    def patches_of(self, entry: int) -> NDArray[np.float16]:
        """Give the patches of one entry, (Mh · Mw, D) float16."""
        height, width = self.shapes[entry]
        start = self.starts[entry]
        return self.features[start : start + height * width]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(entries,): number of the first patch of each."""
        sizes = np.array([height * width for height, width in self.shapes])
        return np.asarray(np.cumsum(sizes) - sizes, np.int64)


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
    entries = len(images) * (1 + augmentation.copies)
    with TemporaryDirectory(prefix="dualbank-features-") as folder:
        file = Path(folder) / "features.f16"
        height, width = map_shape(read_image(images[0]).shape, spec)
        _check_room(Path(folder), entries * height * width * trunk.dimensions * 2)
        shapes, measures = [], []
        with file.open("wb") as out:
            for number in range(entries):
                if number < len(images):
                    image = read_image(images[number])
                    measures.append(measure(image, spec))
                    canvas = prepare(image, spec, resize)
                else:
                    canvas = read_prepared(images[number % len(images)], spec)
                    canvas = augmentation.copy(canvas, [seed, number])
                features = frame_features(trunk, canvas, spec)
                shapes.append((features.shape[0], features.shape[1]))
                features.astype(np.float16).tofile(out)
                advance(1)
        found = PatchesOnDisk(file, trunk.dimensions)
        yield FeatureStore(tuple(images), spec, tuple(shapes), found, tuple(measures))


def frame_features(
    trunk: Trunk, canvas: NDArray[np.uint8], spec: Preprocessing
) -> NDArray[np.float32]:
    """Compute the patch features of a prepared frame, (8 · Mh, 8 · Mw, 3) uint8 → (Mh, Mw, D).

    Views go through the trunk one by one. Eight at once are no faster on a CPU: 53 ms of its time a
    frame of 256 px, against 32 ms.
    """
    return over_views(
        canvas, spec, lambda pixels, _: extract(trunk, pixels[None])[0].reshape(*spec.grid, -1)
    )


def extract(trunk: Trunk, views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run the trunk on what it sees, (B, S, S, 3) uint8 → (B, P, D) float32."""
    with torch.inference_mode():
        return np.asarray(trunk(torch.from_numpy(views)).numpy())


def _check_room(folder: Path, needed_bytes: int) -> None:
    """Refuse to begin on a disk that is too full, as far as the first image tells."""
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"patch features need {needed_bytes / 1e9:.1f} GB in {folder.parent}, but only "
            f"{free_bytes / 1e9:.1f} GB are free; set TMPDIR to a larger disk"
        )
