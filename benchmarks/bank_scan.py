"""How fast a bank is searched: ours beside what else could do it, and beside the roof.

    python -m benchmarks.bank_scan [--rounds 9]

On the CPU: ONNX Runtime (what a station without a GPU runs), torch, and faiss if it is installed.
On a GPU, with our kernels: `benchmarks.gpu`, that is `make gpu`. The roof is the rate of a large
matrix product in the same run; contestants take turns, and times are medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks.recording import record
from benchmarks.scan_contestants import (
    Case,
    Contestant,
    compared,
    draw_case,
    in_torch,
    timed,
)
from inspection.preprocessing import PATCH_PX, Preprocessing
from inspection.scoring import enhanced_length
from trainer.export import export_scan

CASES = ((1, 1024, 2048, 424, 12), (1, 1024, 16384, 512, 8), (1, 784, 4096, 1536, 1))
"""(B, P, N, D, K): the default model, the size of the bars, and that of published banks."""


def main() -> int:
    """Measure on the CPU, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    side = 1024
    square = torch.randn(side, side)
    roof = Contestant("product", lambda: square @ square, lambda: None, lambda: None)
    rate = 2 * side**3 / timed([roof], args.rounds)["product"]
    figures: dict[str, Any] = {"product_flop_per_s": round(rate), "cases": []}
    for shape in CASES:
        case = draw_case(*shape)
        answer = compared(case, on_cpu(case), args.rounds, rate)
        figures["cases"].append({"shape": dict(zip("BPNDK", shape, strict=True)), **answer})
        print(json.dumps(figures["cases"][-1], indent=1), flush=True)
    print(record("bank_scan", figures))
    return 0


def on_cpu(case: Case) -> list[Contestant]:
    """Whoever is installed, on all cores."""
    patches, rows = torch.from_numpy(case.flat), torch.from_numpy(case.rows)
    found = [
        onnx_scan(case),
        *in_torch(patches, rows, case.scoring.k, lambda: None, "FP32"),
    ]
    if importlib.util.find_spec("faiss"):
        found.append(_faiss(case))
    return found


def onnx_scan(case: Case) -> Contestant:
    """Search and attend by the part of `full.onnx` that searches: what a station runs on a CPU."""
    _, P, D = case.patches.shape
    side = PATCH_PX * round(P**0.5)
    scan = export_scan(D, case.scoring.k, case.scoring.top_patches(P), Preprocessing(side))
    session = onnxruntime.InferenceSession(scan, providers=["CPUExecutionProvider"])
    n, z = len(case.rows), enhanced_length(D, case.scoring.k)
    feeds = {
        "patches": case.patches,
        "places": np.zeros((*case.patches.shape[:2], 2), np.float32),
        "normal_rows": case.rows,
        "normal_valid": np.ones(n, np.bool_),
        "normal_places": np.zeros((n, 2), np.float32),
        "abnormal_rows": case.rows[:16],
        "abnormal_valid": np.ones(16, np.bool_),
        "temperature": np.array(case.scoring.temperature, np.float32),
        "abnormal_weight": np.array(0, np.float32),
        "hidden_weight": np.zeros((z, 4), np.float32),
        "hidden_bias": np.zeros(4, np.float32),
        "output_weight": np.zeros(4, np.float32),
        "output_bias": np.zeros(1, np.float32),
        "foreground": np.ones((side // PATCH_PX, side // PATCH_PX), np.float32),
    }
    return Contestant(
        "ours, ONNX Runtime, FP32, with attention",
        lambda: session.run(["anomaly_map"], feeds),
        lambda: None,
        lambda: None,
    )


def _faiss(case: Case) -> Contestant:
    import faiss

    index = faiss.IndexFlatL2(case.rows.shape[1])
    index.add(case.rows)
    last: list[NDArray[np.int64]] = []

    def search() -> None:
        last[:] = [index.search(case.flat, case.scoring.k)[1]]

    return Contestant("faiss IndexFlatL2, FP32", search, lambda: None, lambda: last[0])


if __name__ == "__main__":
    sys.exit(main())
