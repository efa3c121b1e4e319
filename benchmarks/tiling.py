"""What letterbox and tiles bring beside a stretched frame, and what they cost.

    python -m benchmarks.tiling DATA [--seed 0]

Categories below DATA are fitted and evaluated alone, through the command line. Frames larger than
those of any data set are drawn by `benchmarks.large_frames`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.recording import record
from inspection.views import map_of_canvas, views_of
from trainer.bundle_folder import open_bundle
from trainer.dataset import Category, find_categories, read_prepared
from trainer.runtime import Runtime

WAYS = {
    "magnetic_tile": ("stretch", "letterbox"),
    "pcb": ("stretch", "tiles"),
    "screw": ("stretch", "tiles"),
}
"""What is compared on which category; a letterbox changes nothing where frames are square."""

TIMED = 4
"""Test images of a category that are timed."""


def main() -> int:
    """Fit, evaluate, time, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = _compared(args.data, Path(scratch), args.seed)
    print(record("tiling", {"categories": figures}))
    return 0


def _compared(data: Path, scratch: Path, seed: int) -> dict[str, Any]:
    found = {category.name.split("/")[-1]: category for category in find_categories(data)}
    figures: dict[str, Any] = {}
    for name, ways in WAYS.items():
        for way in ways:
            answer = _compare(found[name], way, scratch / f"{name}-{way}", seed)
            figures.setdefault(name, {})[way] = answer
            print(f"{name}, {way}: {json.dumps(answer)}", flush=True)
    return figures


def _compare(category: Category, way: str, bundle: Path, seed: int) -> dict[str, Any]:
    folder = category.train[0].parents[2]
    _train("fit", folder, "--out", bundle, "--seed", seed, "--fit", way, "--quiet")
    report = bundle.with_suffix(".json")
    _train("evaluate", folder, "--bundle", bundle, "--json", report, "--quiet")
    (row,) = json.loads(report.read_text())["categories"].values()
    runtime = Runtime(open_bundle(bundle))
    spec, route = runtime.bundle.preprocessing, runtime.bundle.route(None)
    frames = [read_prepared(sample.image, spec) for sample in category.test[:TIMED]]
    runtime.inspect(frames[0], route)  # the first run allocates
    started = time.process_time()
    for frame in frames:
        runtime.inspect(frame, route)
    return {
        "image_auroc": round(100 * row["image_auroc"], 2),
        "aupro": round(100 * row["aupro"], 2),
        "views": len(views_of(map_of_canvas(frames[0]), spec)),
        "cpu_ms": round((time.process_time() - started) / TIMED * 1e3, 1),
    }


def _train(*words: object) -> None:
    # Of this interpreter and this source tree, whatever else is installed.
    command = [sys.executable, "-m", "trainer.cli", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
