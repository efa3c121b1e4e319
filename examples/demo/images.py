"""Images for whoever has no data set at hand: links to those of an installed package."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from inspection.errors import DatasetError

TRAIN, TEST_GOOD, TEST_DEFECTIVE = 240, 80, 80
"""Images of each kind of cell. Cells that experts were unsure of are left out."""

BLOCK = 8
"""Consecutive cells come from one module, so they go to train or test together."""


def elpv_folder(folder: Path) -> Path:
    """Lay out electroluminescence images of solar cells as two categories, mono and poly.

    Nothing is copied: the folder holds links into the installed package.

    Raises:
        DatasetError: The package is not installed.

    Source: the package `elpv-dataset`, CC BY-NC-SA 4.0; Deitsch et al., Solar Energy 185, 2019.
    """
    try:
        import elpv_dataset
    except ImportError as error:
        raise DatasetError(
            "the images of the demonstration are not installed; pip install elpv-dataset, or give "
            "your own with DATA=…"
        ) from error
    root = Path(elpv_dataset.__file__).parent / "data"
    good: dict[str, list[Path]] = defaultdict(list)
    defective: dict[str, list[Path]] = defaultdict(list)
    for line in (root / "labels.csv").read_text().splitlines():
        name, probability, kind = line.split()
        if float(probability) == 0.0:
            good[kind].append(root / name)
        elif float(probability) == 1.0:
            defective[kind].append(root / name)
    for kind, cells in sorted(good.items()):
        blocks = [cells[i : i + BLOCK] for i in range(0, len(cells), BLOCK)]
        # Every fourth block tests, so that both parts span the whole of the data set.
        test = [cell for i, block in enumerate(blocks) if i % 4 == 3 for cell in block]
        train = [cell for i, block in enumerate(blocks) if i % 4 != 3 for cell in block]
        category = folder / f"solar_{kind}"
        _link(_spread(train, TRAIN), category / "train" / "good")
        _link(_spread(test, TEST_GOOD), category / "test" / "good")
        _link(_spread(defective[kind], TEST_DEFECTIVE), category / "test" / "defective")
    return folder


def _spread(images: Sequence[Path], count: int) -> list[Path]:
    """Take at most `count`, evenly over the list."""
    count = min(count, len(images))
    return [images[i * len(images) // count] for i in range(count)]


def _link(images: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for image in images:
        (folder / image.name).symlink_to(image)
