"""What large frames cost in time and memory, and whether a small defect on them is seen.

    python -m benchmarks.large_frames [--seed 0]

The frames are drawn: uneven grey with noise, and a dark spot of 6 px on the damaged ones.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.recording import record
from inspection.views import map_of_canvas, views_of
from trainer.bundle_folder import open_bundle
from trainer.dataset import read_image, read_prepared
from trainer.runtime import Runtime

LARGE = {"area": (3000, 4000), "line scan": (2000, 8000)}
"""(H, W) of the frames, px."""

SPOT_PX = 6
TRAIN, TEST = 4, 1
"""Frames to learn from, and good and damaged ones to score."""


def main() -> int:
    """Draw, fit, score, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = _measured(Path(scratch), args.seed)
    print(record("large_frames", {"frames": figures}))
    return 0


def _measured(scratch: Path, seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, shape in LARGE.items():
        folder = scratch / name
        spots = _draw(folder, shape, np.random.default_rng(seed))
        for way in ("stretch", "tiles"):
            bundle = scratch / f"{name} {way}"
            words = ("--fit", way, "--rows", "512", "--abnormal-rows", "64", "--quiet")
            fit_mb = _train("fit", folder, "--out", bundle, "--seed", seed, *words)
            # In a process of its own: a peak once reached is never left again.
            alone = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=alone) as process:
                answer = process.submit(_score, bundle, folder, spots).result()
            figures.setdefault(name, {})[way] = answer | {"fit_peak_mb": round(fit_mb)}
            print(f"{name}, {way}: {json.dumps(figures[name][way])}", flush=True)
    return figures


def _draw(folder: Path, shape: tuple[int, int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Write a category of drawn frames; gives (x, y) of the spot on each damaged one, px."""
    spots = []
    for kind, count in (("train/good", TRAIN), ("test/good", TEST), ("test/spot", TEST)):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            frame = _surface(shape, rng)
            if kind == "test/spot":
                spots.append(
                    (int(rng.integers(50, shape[1] - 50)), int(rng.integers(50, shape[0] - 50)))
                )
                cv2.circle(frame, spots[-1], SPOT_PX // 2, (40, 40, 40), -1)
            cv2.imwrite(str(folder / kind / f"{number}.png"), frame)
    return spots


def _surface(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    coarse = rng.normal(0, 12, (shape[0] // 100, shape[1] // 100)).astype(np.float32)
    uneven = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    grey = np.clip(140 + uneven + rng.normal(0, 4, shape).astype(np.float32), 0, 255)
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _score(folder: Path, data: Path, spots: list[tuple[int, int]]) -> dict[str, Any]:
    """Score the drawn test frames; how far memory rises above what a single view has taken."""
    runtime = Runtime(open_bundle(folder))
    spec, route = runtime.bundle.preprocessing, runtime.bundle.route(None)
    runtime.inspect(np.zeros((spec.size_px, spec.size_px, 3), np.uint8), route)
    scores, seen_at, cpu_ms = [], 0, []
    for path in [data / f"test/{kind}/{i}.png" for kind in ("good", "spot") for i in range(TEST)]:
        frame = read_prepared(path, spec)
        before_mb = _memory_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        started = time.process_time()
        seen = runtime.inspect(frame, route)
        cpu_ms.append((time.process_time() - started) * 1e3)
        scores.append(round(route.calibration.standardise(seen.score), 2))
        if len(scores) == 1:
            growth_mb = _memory_mb("VmHWM") - before_mb
        if path.parent.name == "spot":
            seen_at += _is_at(seen.anomaly_map, spots[int(path.stem)], read_image(path).shape)
    return {
        "good_scores": scores[:TEST],
        "spot_scores": scores[TEST:],
        "spots_at_the_highest_patch": seen_at,
        "views": len(views_of(map_of_canvas(frame), spec)),
        "cpu_ms": round(min(cpu_ms)),
        "frame_mb": round(frame.nbytes / 2**20, 1),
        "peak_growth_mb": round(growth_mb, 1),
    }


def _is_at(anomaly_map: NDArray[np.float32], spot: tuple[int, int], shape: tuple[int, ...]) -> bool:
    """Whether the spot, (x, y) px, lies in the highest patch or in one of its 8 neighbours."""
    row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    at_row = spot[1] * anomaly_map.shape[0] // shape[0]
    at_column = spot[0] * anomaly_map.shape[1] // shape[1]
    return bool(abs(row - at_row) <= 1 and abs(column - at_column) <= 1)


def _memory_mb(field: str) -> float:
    """Read VmRSS, what is held now, or VmHWM, its peak; Linux alone has them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _train(*words: object) -> float:
    """Run the command of this source tree; gives its peak memory, MB."""
    command = [sys.executable, "-m", "trainer.cli", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
