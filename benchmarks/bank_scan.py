"""How fast a bank is searched: ours beside what else could do it, and beside the roof.

    python -m benchmarks.bank_scan [--rounds 9]

On the CPU: ONNX Runtime (what a station without a GPU runs), torch, and faiss if it is installed.
On a GPU, with our kernels: `benchmarks.gpu`, that is `make gpu`. The roof is the rate of a large
matrix product in the same run; contestants take turns, and times are medians.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recording import record
from benchmarks.scan_contestants import Case, Contestant, draw_case, on_cpu

CASES = ((1, 1024, 2048, 424, 12), (1, 1024, 16384, 512, 8), (1, 784, 4096, 1536, 1))
"""(B, P, N, D, K): the default model, the size of the bars, and that of published banks."""

LEAST_S = 0.02
"""How long one timed stretch takes at least: shorter ones are asked several times."""

CHECKED = 64
"""Patches whose neighbours are compared with float64."""


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


def compared(
    case: Case, contestants: Sequence[Contestant], rounds: int, rate: float
) -> dict[str, Any]:
    """Milliseconds of each, share of the roof, and share of right neighbours.

    Args:
        case: What is asked.
        contestants: Take turns.
        rounds: Turns of each.
        rate: Floating-point operations a second of a large product.
    """
    seconds = timed(contestants, rounds)
    right = {each.name: _right(case, each.neighbours()) for each in contestants}
    return {
        "gflop": round(case.operations / 1e9, 3),
        "ways": {
            name: {
                "ms": round(1e3 * took, 4),
                "share_of_product_rate": round(case.operations / took / rate, 4),
                "right_neighbours": right[name],
            }
            for name, took in seconds.items()
        },
    }


def timed(contestants: Sequence[Contestant], rounds: int) -> dict[str, float]:
    """Seconds of one answer of each: the median over rounds in which they take turns."""
    repeats: dict[str, int] = {}
    for each in contestants:
        each.run()
        each.wait()
        once = max(_stretch(each, 1), 1e-6)
        repeats[each.name] = max(1, round(LEAST_S / once))
    taken: dict[str, list[float]] = {each.name: [] for each in contestants}
    for _ in range(rounds):
        for each in contestants:
            taken[each.name].append(_stretch(each, repeats[each.name]))
    return {name: median(values) for name, values in taken.items()}


def _stretch(contestant: Contestant, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        contestant.run()
    contestant.wait()
    return (time.perf_counter() - started) / repeats


def _right(case: Case, found: NDArray[np.int64] | None) -> float | None:
    """Share of the K nearest rows, by float64, that were found; None if none was asked for."""
    if found is None:
        return None
    k, rows = case.scoring.k, case.rows.astype(np.float64)
    checked = np.linspace(0, len(case.flat) - 1, CHECKED).astype(int)
    hits = 0
    for m in checked:
        gaps = np.square(case.flat[m].astype(np.float64) - rows).sum(axis=1)
        hits += len(set(np.argsort(gaps, kind="stable")[:k]) & set(found[m].tolist()))
    return round(hits / (k * len(checked)), 4)


if __name__ == "__main__":
    sys.exit(main())
