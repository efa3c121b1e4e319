"""What half precision costs in accuracy, measured without a GPU.

    python -m benchmarks.half_precision DATA [--bundle BUNDLE]

One bundle of all categories, seed 0 and default settings, or the one that is given, judges every
test image twice: with its trunk in FP32, and with the trunk that `dualbank-deploy build` compiles
for FP16. ONNX Runtime computes both on the CPU. Of itself it would not round there: it computes
FP16 operators in FP32 and leaves out the casts between them, the graph's own included, so that only
the weights are in half precision. `rounded` writes out every rounding. Sums within an operator are
FP32, and no operators are joined, which on a GPU saves roundings. Banks, heads and scan are the
same, in FP32.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from onnx.shape_inference import infer_shapes

from benchmarks.recording import record
from deploy.precision import in_half
from inspection.bundle import ANY_PRODUCT, FULL, GOLDEN, TRUNK, Bundle, digest
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
                one.name: compared(one, other, _raw_score(full, one.name))
                for one, other in zip(*results, strict=True)
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
    """Give the bundle with its trunk in half precision, every rounding written out, in memory."""
    top = bundle.routes[ANY_PRODUCT].scoring.top_patches(bundle.preprocessing.patches)
    k = bundle.manifest.scoring.k
    trunk = rounded(in_half(TRUNK, bundle.file(TRUNK)))
    graph = export_full(trunk, k, top, bundle.preprocessing)
    entry = FileEntry(sha256=digest(graph), size_bytes=len(graph))
    files = {**bundle.manifest.files, FULL: entry}

    def read(path: str) -> bytes:
        return graph if path == entry.path else bundle._read(path)

    manifest = bundle.manifest.model_copy(update={"files": files})
    return dataclasses.replace(bundle, manifest=manifest, _read=read)


def rounded(half: bytes) -> bytes:
    """Write a graph in FP16 as one in FP32 that rounds each result which was FP16.

    A pair of casts that the graph itself has, FP32 → FP16 → FP32, ONNX Runtime keeps: it drops only
    those beside the casts that it inserts for operators without FP16 on the CPU.
    """
    model = onnx.load_from_string(half)
    graph, halves = model.graph, _halves(model)
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(weight).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(wide, weight.name))
    nodes = [each for node in graph.node for each in _in_full_then_rounded(node, halves)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _halves(model: ModelProto) -> set[str]:
    """Names of every float16 tensor that an operator computes."""
    values = infer_shapes(model).graph.value_info
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}


def _in_full_then_rounded(node: NodeProto, halves: set[str]) -> Iterator[NodeProto]:
    full = NodeProto.FromString(node.SerializeToString())
    if full.op_type == "Cast" and full.attribute[0].i == TensorProto.FLOAT16:
        full.attribute[0].i = TensorProto.FLOAT
    full.output[:] = [f"{name}/wide" if name in halves else name for name in node.output]
    yield full
    for name in halves.intersection(node.output):
        yield helper.make_node("Cast", [f"{name}/wide"], [f"{name}/half"], to=TensorProto.FLOAT16)
        yield helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT)


def _raw_score(bundle: Bundle, product: str) -> Callable[[NDArray[np.float32]], float]:
    route = bundle.route(product)
    return lambda anomaly_map: bundle.image_score(anomaly_map, route)


def compared(
    full: CategoryResults,
    half: CategoryResults,
    raw_score: Callable[[NDArray[np.float32]], float],
) -> dict[str, Any]:
    """Compare what two precisions say of the same test images of one category.

    Args:
        full: In FP32.
        half: In FP16.
        raw_score: Gives the image score of a map, in units of feature distance.
    """
    moved = np.abs(half.scores - full.scores)
    raw, raw_half = (
        np.array([raw_score(each.anomaly_map) for each in one.images]) for one in (full, half)
    )
    errors = np.abs(raw_half - raw) / raw
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
        # Relative to the raw score, as golden frames are held.
        "score_error_median": float(f"{np.median(errors):.2g}"),
        "score_error_max": float(f"{errors.max():.2g}"),
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
        for golden in golden_from_bytes(half.file(GOLDEN))
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
