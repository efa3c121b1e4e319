"""The bank scan on a GPU: ours in every precision, beside torch and faiss, and beside the roof.

Called by `benchmarks.gpu`. Patches lie on the device already, as they do behind a network; one
answer is the K nearest rows, and for ours attention over them too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from benchmarks.scan_check import PRECISIONS, asked, bank_of, read_answers
from benchmarks.scan_contestants import (
    Case,
    Contestant,
    compared,
    draw_case,
    in_torch,
    timed,
)
from edge.bank_rows import Precision
from edge.device import Device

CASES = (
    *((1, 1024, 16384, D, 8) for D in (256, 512, 768, 1024, 1536)),
    *((B, 1024, 16384, D, 8) for B in (4, 8) for D in (512, 1024)),
    (1, 1024, 2048, 424, 12),
)
"""(B, P, N, D, K): those of the bars, larger batches, and the default model."""

ROWS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
"""N at P = 1,024, D = 512, K = 8: is the cost linear in N?"""

ROOF_SIDE = 8192

COPIED_BYTES = 1 << 30


def measured(device: Device, rounds: int) -> dict[str, Any]:
    """Time every case, and our precision of choice over N."""
    rate, bandwidth = _roof(rounds)
    figures: dict[str, Any] = {
        "torch": torch.__version__,
        "bf16_product_flop_per_s": round(rate),
        "copy_bytes_per_s": round(bandwidth),
        "cases": [],
    }
    for shape in CASES:
        case = draw_case(*shape)
        with ExitStack() as held:
            contestants = [
                held.enter_context(_opened(device, case, precision)) for precision in PRECISIONS
            ]
            answer = compared(case, [*contestants, *_in_torch_on_gpu(case)], rounds, rate)
        floor = max(case.operations / rate, case.fewest_bytes(2) / bandwidth)
        answer["floor_ms"] = round(1e3 * floor, 4)
        figures["cases"].append({"shape": dict(zip("BPNDK", shape, strict=True)), **answer})
    figures["by_rows"] = {str(n): _alone(device, n, rounds) for n in ROWS}
    return figures


def _alone(device: Device, rows: int, rounds: int) -> float:
    """Milliseconds of one FP16 search among so many rows."""
    with _opened(device, draw_case(1, 1024, rows, 512, 8), "f16") as contestant:
        return round(1e3 * timed([contestant], rounds)[contestant.name], 4)


@contextmanager
def _opened(device: Device, case: Case, precision: Precision) -> Iterator[Contestant]:
    """Hold our search of a case open, as a contestant."""
    position = np.zeros((case.patches.shape[1], 2), np.int64)
    bank = bank_of(case.rows, np.ones(len(case.rows), np.bool_))
    with asked(device, case.patches, bank, case.scoring, precision, position) as it:
        yield Contestant(
            f"ours, {precision}, with attention",
            lambda: it.scan.scan(it.stream),
            it.stream.synchronize,
            lambda: read_answers(device, it.scan, it.stream)[0]["neighbours"].astype(np.int64),
        )


def _roof(rounds: int) -> tuple[float, float]:
    """Measure operations a second of a large bf16 product, and bytes a second of a large copy."""
    left, right = (
        torch.randn(ROOF_SIDE, ROOF_SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2)
    )
    source = torch.empty(COPIED_BYTES, device="cuda", dtype=torch.uint8)
    target, wait = torch.empty_like(source), torch.cuda.synchronize
    seconds = timed(
        [
            Contestant("product", lambda: left @ right, wait, lambda: None),
            Contestant("copy", lambda: target.copy_(source), wait, lambda: None),
        ],
        rounds,
    )
    return 2 * ROOF_SIDE**3 / seconds["product"], 2 * COPIED_BYTES / seconds["copy"]


def _in_torch_on_gpu(case: Case) -> list[Contestant]:
    """torch on a GPU: distances + top-K in FP32, product + top-K and attention in FP16."""
    patches = torch.from_numpy(case.flat).cuda()
    rows = torch.from_numpy(case.rows).cuda()
    wait = torch.cuda.synchronize
    half, half_rows = patches.half(), rows.half()
    found = in_torch(patches, rows, case.scoring.k, wait, "FP32")
    found += in_torch(half, half_rows, case.scoring.k, wait, "FP16")[1:]
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
    if importlib.util.find_spec("faiss"):
        found += _in_faiss(patches, rows, case.scoring.k)
    return found


def _in_faiss(patches: torch.Tensor, rows: torch.Tensor, k: int) -> list[Contestant]:
    """faiss by brute force, FP32, on the GPU all the way; nothing if it is built for CPUs."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        return []
    # Lets faiss take torch's tensors, and wait for their stream.
    import faiss.contrib.torch_utils

    resources = faiss.StandardGpuResources()
    last: list[torch.Tensor] = []

    def search() -> None:
        last[:] = [faiss.knn_gpu(resources, patches, rows, k)[1]]

    return [
        Contestant(
            "faiss knn_gpu, FP32",
            search,
            torch.cuda.synchronize,
            lambda: np.asarray(last[0].cpu().numpy(), np.int64),
        )
    ]
