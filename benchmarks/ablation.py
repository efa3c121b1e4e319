"""What each step of the method brings: the same fit with one step done otherwise.

    python -m benchmarks.ablation DATA [--only NAME …]

One seed, default backbone, good parts only, product known. The published recipe is measured by its
normal bank, which is what ranks where no defect is labelled.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.looking import look, measure
from benchmarks.recording import record
from trainer.dataset import Category, find_categories
from trainer.good_parts import learn_good_parts
from trainer.progress import Progress
from trainer.recipe import DUALBANK, PAPER
from trainer.settings import FitSettings

OURS = FitSettings()

VARIANTS = {
    "ours": OURS,
    "without positions": replace(OURS, recipe=replace(DUALBANK, locates=False)),
    "with 3 × 3 averages": replace(OURS, recipe=replace(DUALBANK, averages=True)),
    "layers as long as they are": replace(OURS, recipe=replace(DUALBANK, balances=False)),
    "one neighbour": replace(OURS, k=1),
    "384 px": replace(OURS, size_px=384),
    "the published recipe": replace(OURS, recipe=PAPER, k=1),
}


def main() -> int:
    """Learn, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    args = parser.parse_args()
    categories = find_categories(args.data)
    figures: dict[str, Any] = {}
    for name in args.only:
        figures[name] = _measured(categories, VARIANTS[name])
        print(name, {key: figures[name][key] for key in ("image_auroc", "aupro")}, flush=True)
        path = record("ablation", {"variants": figures})
    print(path)
    return 0


def _measured(categories: Sequence[Category], settings: FitSettings) -> dict[str, Any]:
    with (
        learn_good_parts(categories, settings, Progress(shown=False), {}) as good,
        tempfile.TemporaryDirectory() as scratch,
    ):
        rows = {
            each.name: measure(good, look(good, each, Path(scratch) / str(i)), each, None)
            for i, each in enumerate(categories)
        }
    outlined = [row["aupro"] for row in rows.values() if row["aupro"] is not None]
    return {
        "image_auroc": round(100 * mean(row["image_auroc"] or 0.0 for row in rows.values()), 2),
        "aupro": round(100 * mean(outlined), 2) if outlined else None,
        "categories": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
