"""Who can search a bank, on the CPU and beside us on a GPU: each asked for what it can do best.

Ours: the K nearest rows *and* attention over them. Others find rows only, or attend to the whole
bank; what they are asked is written beside them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from inspection.preprocessing import PATCH_PX, Preprocessing
from inspection.scoring import Scoring, enhanced_length
from trainer.export import export_scan


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


def on_cpu(case: Case) -> list[Contestant]:
    """Whoever is installed, on all cores."""
    patches, rows = torch.from_numpy(case.flat), torch.from_numpy(case.rows)
    found = [
        onnx_scan(case),
        *_in_torch(patches, rows, case.scoring.k, lambda: None, "FP32"),
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


def on_torch_gpu(case: Case) -> list[Contestant]:
    """torch on a GPU: distances + top-K in FP32, product + top-K and attention in FP16."""
    patches = torch.from_numpy(case.flat).cuda()
    rows = torch.from_numpy(case.rows).cuda()
    wait = torch.cuda.synchronize
    half, half_rows = patches.half(), rows.half()
    found = _in_torch(patches, rows, case.scoring.k, wait, "FP32")
    found += _in_torch(half, half_rows, case.scoring.k, wait, "FP16")[1:]
    queries = half.reshape(1, 1, *half.shape)
    known = half_rows.reshape(1, 1, *half_rows.shape)
    attention = torch.nn.functional.scaled_dot_product_attention
    scale = 2.0 / case.scoring.temperature
    found.append(
        Contestant(
            "attention to all rows, scaled_dot_product_attention, FP16",
            lambda: attention(queries, known, known, scale=scale),
            wait,
            lambda: None,
        )
    )
    return found


def _in_torch(
    patches: torch.Tensor, rows: torch.Tensor, k: int, wait: Callable[[], Any], precision: str
) -> list[Contestant]:
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


def _faiss(case: Case) -> Contestant:
    import faiss

    index = faiss.IndexFlatL2(case.rows.shape[1])
    index.add(case.rows)
    last: list[NDArray[np.int64]] = []

    def search() -> None:
        last[:] = [index.search(case.flat, case.scoring.k)[1]]

    return Contestant("faiss IndexFlatL2, FP32", search, lambda: None, lambda: last[0])


def _host(rows: torch.Tensor) -> NDArray[np.int64]:
    return np.asarray(rows.cpu().numpy(), np.int64)
