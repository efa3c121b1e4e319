"""What half precision costs in accuracy, measured without a GPU.

    python -m benchmarks.half_precision DATA [--bundle BUNDLE]

One bundle of all categories, seed 0 and default settings, or the one that is given, judges every
test image twice: with its trunk in FP32, and with the trunk that `dualbank-deploy build` compiles
for FP16. ONNX Runtime computes both on the CPU, where it rounds every intermediate result to half
precision as a GPU does, though sums within an operator may be wider. Banks, heads and scan are the
same, in FP32.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import record
from deploy.precision import in_half
from inspection.bundle import ANY_PRODUCT, FULL, TRUNK, Bundle, digest
from inspection.engines import TOLERANCE
from inspection.golden import agreement, golden_from_bytes
from inspection.manifest import FileEntry
from inspection.metrics import auroc
from trainer.bundle_folder import open_bundle
from trainer.dataset import find_categories
from trainer.evaluate import inspect_tests
from trainer.export import export_full
from trainer.progress import Progress
from trainer.results import CategoryResults
from trainer.runtime import Runtime


def main() -> int:
    """Fit unless there is a bundle, judge twice, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.bundle or Path(scratch) / "bundle"
        if asked.bundle is None:
            words = ("trainer.cli", "fit", asked.data, "--out", folder, "--seed", 0, "--quiet")
            subprocess.run([sys.executable, "-m", *map(str, words)], check=True)
        full = open_bundle(folder)
        half = halved(full)
        categories = find_categories(asked.data)
        results = [
            inspect_tests(Runtime(bundle), categories, Progress(shown=False))
            for bundle in (full, half)
        ]
        figures = {
            "categories": {
                one.name: compared(one, other) for one, other in zip(*results, strict=True)
            },
            "golden": golden_errors(half),
        }
    figures["mean"] = {
        name: round(float(np.mean([each[name] for each in figures["categories"].values()])), 4)
        for name in ("auroc_fp32", "auroc_fp16")
    }
    print(record("half_precision", figures))
    return 0


def halved(bundle: Bundle) -> Bundle:
    """Give the bundle with its trunk in half precision, in memory."""
    top = bundle.routes[ANY_PRODUCT].scoring.top_patches(bundle.preprocessing.patches)
    k = bundle.manifest.scoring.k
    graph = export_full(in_half(TRUNK, bundle.file(TRUNK)), k, top, bundle.preprocessing)
    entry = FileEntry(sha256=digest(graph), size_bytes=len(graph))
    files = {**bundle.manifest.files, FULL: entry}

    def read(path: str) -> bytes:
        return graph if path == entry.path else bundle._read(path)

    manifest = bundle.manifest.model_copy(update={"files": files})
    return dataclasses.replace(bundle, manifest=manifest, _read=read)


def compared(full: CategoryResults, half: CategoryResults) -> dict[str, Any]:
    """Compare what two precisions say of the same test images of one category."""
    moved = np.abs(half.scores - full.scores)
    map_errors = [
        float(np.abs(b.anomaly_map - a.anomaly_map).max() / np.abs(a.anomaly_map).max())
        for a, b in zip(full.images, half.images, strict=True)
    ]
    verdicts = [
        a.judgement.decision.verdict is not b.judgement.decision.verdict
        for a, b in zip(full.images, half.images, strict=True)
    ]
    return {
        "images": len(full.images),
        "auroc_fp32": round(auroc(full.scores, full.defects), 5),
        "auroc_fp16": round(auroc(half.scores, half.defects), 5),
        # In robust standard deviations of good parts, as thresholds are.
        "score_moved_median": float(f"{np.median(moved):.2g}"),
        "score_moved_max": float(f"{moved.max():.2g}"),
        "map_error_max": float(f"{max(map_errors):.2g}"),
        "other_verdicts": int(np.sum(verdicts)),
    }


def golden_errors(half: Bundle) -> dict[str, Any]:
    """Ask the golden frames, as the gate of a build does."""
    runtime = Runtime(half)
    found: Sequence[Any] = [
        agreement(
            golden,
            (answer := runtime.inspect(golden.prepared, half.route(golden.product))).anomaly_map,
            answer.score,
            half.route(golden.product),
            TOLERANCE["fp16"],
        )
        for golden in golden_from_bytes(half.file("golden.safetensors"))
    ]
    return {
        "frames": len(found),
        "score_error_max": float(f"{max(each.score_error for each in found):.2g}"),
        "map_error_max": float(f"{max(each.map_error for each in found):.2g}"),
        "other_verdicts": sum(not each.same_verdict for each in found),
        "tolerance": TOLERANCE["fp16"]._asdict(),
        "hold": all(each.holds for each in found),
    }


if __name__ == "__main__":
    sys.exit(main())
