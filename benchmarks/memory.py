"""Memory, time and bank rows of a fit, by number of images and of categories.

    python -m benchmarks.memory [--runs 1000x1 5000x1 250x20] [--size 256]

Every run draws its images into a temporary folder, IMAGES of each of CATEGORIES, and fits them with
`dualbank-train fit` in a process of its own, by the default settings. `peak_rss_mb` is what the
kernel says of that process. It counts pages of mapped files too, which the features on disk are and
which the kernel takes back when it needs them; so the peaks of anonymous memory and of file pages
are sampled beside it, where the system tells them (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.recording import record
from trainer.bundle_folder import open_bundle

SAMPLE_S = 0.2
"""Time between two looks at the memory of the fit."""


def main() -> int:
    """Draw, fit, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", default=["1000x1", "5000x1", "250x20"])
    parser.add_argument("--size", type=int, default=256, help="side of the images in px")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    for run in args.runs:
        images, categories = map(int, run.split("x"))
        with tempfile.TemporaryDirectory(prefix="dualbank-memory-") as scratch:
            _draw(Path(scratch) / "data", images, categories, args.size)
            told = _fit(Path(scratch) / "data", Path(scratch) / "bundle")
        figures[run] = {"images": images * categories, "categories": categories, **told}
        print(run, json.dumps(figures[run], indent=1), flush=True)
        # After every run: the next may take an hour.
        print(record("memory", {"size_px": args.size, "runs": figures}), flush=True)
    return 0


def _draw(folder: Path, images: int, categories: int, size_px: int) -> None:
    """Write good parts of every category: crops of one texture, of varying exposure, with noise."""
    for number in range(categories):
        rng = np.random.default_rng(number)
        good = folder / f"texture-{number:03}" / "train" / "good"
        good.mkdir(parents=True)
        ground = _texture(2 * size_px, rng)
        for i in range(images):
            top, left = rng.integers(0, size_px, 2)
            crop = ground[top : top + size_px, left : left + size_px]
            pixels = crop * rng.uniform(0.8, 1.2) + rng.normal(0, 4, crop.shape)
            cv2.imwrite(str(good / f"{i:05}.png"), np.clip(pixels, 0, 255).astype(np.uint8))


def _texture(size_px: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(S, S, 3) smooth noise of many scales."""
    texture: NDArray[np.float32] = np.full((size_px, size_px, 3), 128, np.float32)
    for cells in (4, 8, 16, 32, 64, 128):
        noise = rng.normal(0, 24, (cells, cells, 3)).astype(np.float32)
        texture += cv2.resize(noise, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return texture


def _fit(data: Path, bundle: Path) -> dict[str, Any]:
    # Of this interpreter and this source tree, whatever else is installed.
    command = [sys.executable, "-m", "trainer.cli", "fit", str(data), "--out", str(bundle)]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        fit = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        peaks = {"anonymous": 0.0, "file": 0.0}
        pid, status, usage = os.wait4(fit.pid, os.WNOHANG)
        while pid == 0:
            for kind, now_mb in _resident_mb(fit.pid).items():
                peaks[kind] = max(peaks[kind], now_mb)
            time.sleep(SAMPLE_S)
            pid, status, usage = os.wait4(fit.pid, os.WNOHANG)
        seconds = time.perf_counter() - started
        errors.seek(0)
        lines = [line.strip() for line in errors.read().decode().splitlines()]
    if status != 0:
        raise RuntimeError("the fit failed: " + "\n".join(lines))
    return {
        "seconds": round(seconds),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime),
        # Linux counts in KiB, macOS in bytes.
        "peak_rss_mb": round(usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)),
        "peak_anonymous_mb": round(peaks["anonymous"]),
        "peak_file_mb": round(peaks["file"]),
        "bank_rows": int(open_bundle(bundle).normal.valid.sum()),
        "progress": [" ".join(word for word in line.split() if "━" not in word) for line in lines],
    }


def _resident_mb(pid: int) -> dict[str, float]:
    """Read anonymous memory and file pages of a process; nothing where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    sizes = {
        name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)
    }
    if not sizes:
        return {}
    anonymous = sizes["Anonymous"]
    return {"anonymous": anonymous / 1024, "file": (sizes["Rss"] - anonymous) / 1024}


if __name__ == "__main__":
    sys.exit(main())
