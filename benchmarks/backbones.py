"""What another backbone brings, and what it costs.

    python -m benchmarks.backbones DATA [--weights DIR] [--onnx FILE] [--seed 0]

For each backbone: one bundle of every category below DATA, fitted and evaluated through the command
line, and the time of its trunk for one frame on one thread. DIR holds what `dualbank-train weights
get` wrote; what is not there is fetched. FILE is a backbone in ONNX.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.recording import record
from inspection.bundle import TRUNK
from trainer import weights
from trainer.backbones.published import PUBLISHED
from trainer.bundle_folder import open_bundle

BACKBONES = ("efficientnet-lite0", "efficientnet-lite2", "resnet50-keras")

ROUNDS = 20
"""Timed frames of each trunk; trunks take turns, so that a busy moment meets all of them."""


def main() -> int:
    """Fit, evaluate, time, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, default=Path("weights"))
    parser.add_argument("--onnx", help="FILE or FILE#OUTPUT,OUTPUT of one more backbone")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chosen = [*BACKBONES, *([f"onnx:{args.onnx}"] if args.onnx else [])]
    figures: dict[str, Any] = {}
    trunks = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen:
            folder = Path(scratch) / f"bundle-{len(figures)}"
            report = _fit_and_evaluate(name, args.data, args.weights, args.seed, folder)
            bundle = open_bundle(folder)
            # A path says nothing on another machine; the manifest has the file's name alone.
            figures[bundle.manifest.backbone] = report
            report["dimensions"] = bundle.normal.features.shape[1]
            trunks[bundle.manifest.backbone] = _one_thread(bundle.file(TRUNK))
            size_px = bundle.manifest.preprocessing.size_px
            # After every backbone: the next may take a quarter of an hour.
            _time(figures, trunks, size_px)
            path = record("backbones", {"backbones": figures})
    for name in figures:
        told = {key: value for key, value in figures[name].items() if key != "categories"}
        print(f"{name}: {json.dumps(told)}")
    print(path)
    return 0


def _time(
    figures: dict[str, Any], trunks: dict[str, onnxruntime.InferenceSession], size_px: int
) -> None:
    for name, trunk_ms in _interleaved(trunks, size_px).items():
        figures[name]["trunk_ms"] = round(trunk_ms, 2)


def _fit_and_evaluate(
    name: str, data: Path, folder: Path, seed: int, bundle: Path
) -> dict[str, Any]:
    words: list[object] = ["--backbone", name]
    if name in PUBLISHED:
        file = folder / PUBLISHED[name].result
        words += ["--weights", file if file.is_file() else weights.get(name, folder)]
    started = time.perf_counter()
    _train("fit", data, "--out", bundle, "--seed", seed, *words)
    fit_s = time.perf_counter() - started
    report = bundle.with_suffix(".json")
    _train("evaluate", data, "--bundle", bundle, "--json", report)
    categories = json.loads(report.read_text())["categories"]
    aupro = [each["aupro"] for each in categories.values() if each["aupro"] is not None]
    return {
        "image_auroc": round(100 * mean(each["image_auroc"] for each in categories.values()), 2),
        # Of the categories whose defects are outlined.
        "aupro": round(100 * mean(aupro), 2) if aupro else None,
        "fit_s": round(fit_s, 1),
        "categories": {
            name: {figure: each[figure] for figure in ("image_auroc", "aupro")}
            for name, each in categories.items()
        },
    }


def _train(*words: object) -> None:
    # Of this interpreter and this source tree, whatever else is installed.
    subprocess.run([sys.executable, "-m", "trainer.cli", *map(str, words)], check=True)


def _one_thread(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _interleaved(trunks: dict[str, onnxruntime.InferenceSession], size_px: int) -> dict[str, float]:
    """Median milliseconds of each trunk for one frame, the first round left out."""
    shape = (1, size_px, size_px, 3)
    frame: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    taken: dict[str, list[float]] = {name: [] for name in trunks}
    for _ in range(ROUNDS + 1):
        for name, session in trunks.items():
            started = time.perf_counter()
            session.run(["patch_features"], {"frames": frame})
            taken[name].append(1000 * (time.perf_counter() - started))
    return {name: median(times[1:]) for name, times in taken.items()}


if __name__ == "__main__":
    sys.exit(main())
