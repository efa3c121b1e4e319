"""A search of a bank, whoever answers it, and how the answers are timed and compared.

Ours gives the K nearest rows *and* attention over them. Others find rows only, or attend to the
whole bank; what they are asked is written beside them. Nothing here needs more than numpy and
torch: a machine with a GPU may have no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inspection.scoring import Scoring

LEAST_S = 0.02
"""How long one timed stretch takes at least: shorter ones are asked several times."""

CHECKED = 64
"""Patches whose neighbours are compared with float64."""


@dataclass(frozen=True, slots=True)
class Case:
    """One search; rows and patches are drawn around common centres, as a coreset lies.

    Attributes:
        patches: (B, P, D) float32.
        rows: (N, D) float32.
        scoring: K and temperature.
    """

    patches: NDArray[np.float32]
    rows: NDArray[np.float32]
    scoring: Scoring

    @property
    def flat(self) -> NDArray[np.float32]:
        """(M, D)."""
        return self.patches.reshape(-1, self.patches.shape[-1])

    @property
    def operations(self) -> int:
        """Floating-point operations of the product alone: 2 · M · N · D."""
        return 2 * len(self.flat) * self.rows.size

    def fewest_bytes(self, element: int) -> int:
        """Bytes that must pass through memory: both operands once, the answers once."""
        m, d = self.flat.shape
        return int(
            element * (self.flat.size + self.rows.size) + m * (8 * self.scoring.k + 4 * d + 4)
        )


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to answer a case.

    Attributes:
        name: Of the table.
        run: Asks once; on a GPU it only puts the work there.
        wait: Until everything that was asked is answered.
        neighbours: (M, K) rows of the last answer, in any order; None if it finds none.
    """

    name: str
    run: Callable[[], object]
    wait: Callable[[], object]
    neighbours: Callable[[], NDArray[np.int64] | None]


def draw_case(frames: int, patches: int, rows: int, dimensions: int, k: int, seed: int = 0) -> Case:
    """Draw patches and rows around 64 centres: neighbours are near, and many nearly alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(64, dimensions))
    kinds = (frames * patches, rows)
    asked, known = (
        (centres[rng.integers(0, 64, n)] + 0.5 * rng.normal(size=(n, dimensions))).astype("f4")
        for n in kinds
    )
    scale = np.float32(dimensions**-0.5)  # lengths near 1, whatever D is
    return Case(
        (scale * asked).reshape(frames, patches, dimensions), scale * known, Scoring(k, 0.05)
    )


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


def in_torch(
    patches: torch.Tensor, rows: torch.Tensor, k: int, wait: Callable[[], Any], precision: str
) -> list[Contestant]:
    """Distances + top-K, then product + top-K, of (M, D) patches and (N, D) rows, both there."""
    last: dict[str, torch.Tensor] = {}

    def by_distance() -> None:
        last["cdist"] = torch.cdist(patches, rows).topk(k, largest=False).indices

    norms = rows.float().square().sum(1).to(rows.dtype)

    def by_product() -> None:
        partial = torch.addmm(norms, patches, rows.T, alpha=-2.0)
        last["product"] = partial.topk(k, largest=False).indices

    return [
        Contestant(
            f"torch.cdist + topk, {precision}", by_distance, wait, lambda: _host(last["cdist"])
        ),
        Contestant(
            f"matrix product + topk, torch, {precision}",
            by_product,
            wait,
            lambda: _host(last["product"]),
        ),
    ]


def _host(rows: torch.Tensor) -> NDArray[np.int64]:
    return np.asarray(rows.cpu().numpy(), np.int64)
