"""Our bank scan held to float64 on whatever device is open: rows, distances, attention, evidence.

Rows may differ from those of float64 only where two squared distances differ by less than the bound
of `edge/kernels/answer.cuh`; an int8 bank is compared with what its int8 rows say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bank_rows import BankShape, Precision
from edge.bank_scan import Answers, BankScan, ScanShape, open_scan
from edge.device import Device, open_stream, page_locked
from edge.device_bank import open_bank
from edge.streams import Stream
from inspection.bank import MemoryBank, empty_bank
from inspection.retrieval import attend, nearest
from inspection.scoring import Scoring, locate

PRECISIONS: tuple[Precision, ...] = ("f32", "f16", "bf16", "s8")

SHAPES = (
    # B, P, N, D, K: awkward on purpose, then those that are run
    (1, 1, 16, 8, 1),
    (2, 37, 101, 33, 5),
    (3, 130, 700, 129, 16),
    (1, 1024, 2048, 424, 12),
    (2, 784, 4096, 1536, 8),
)

ATTENTION = {"f32": 1e-5, "f16": 2e-3, "bf16": 2e-3, "s8": 2e-3}
"""Relative error of the rebuilt patches, at most."""

CHECKED = 96


def bank_of(rows: NDArray[np.float32], valid: NDArray[np.bool_], seed: int = 0) -> MemoryBank:
    """Make a bank of one category, its rows somewhere on a grid of 32 × 32."""
    position = np.random.default_rng(seed).integers(0, 32, (len(rows), 2)).astype(np.int32)
    return replace(
        empty_bank(("part",), *rows.shape), features=rows, valid=valid, position=position
    )


@dataclass(frozen=True, slots=True)
class Asked:
    """A search that is open, and the stream it runs on."""

    scan: BankScan
    stream: Stream


@contextmanager
def asked(
    device: Device,
    patches: NDArray[np.float32],
    bank: MemoryBank,
    scoring: Scoring,
    precision: Precision,
    position: NDArray[np.integer],
) -> Iterator[Asked]:
    """Hold a search of one bank with its patches, (B, P, D), on the device."""
    B, P, D = patches.shape
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        shape = BankShape(len(bank.features), D, placed=True, precision=precision)
        on_device = held.enter_context(open_bank(device, shape))
        scan = held.enter_context(open_scan(device, [on_device], ScanShape(B, P, scoring.k)))
        room = held.enter_context(page_locked(device, (B * P, D), np.float32))
        held.callback(stream.synchronize)
        on_device.replace(stream, bank, {"part": scoring})
        room[:] = patches.reshape(B * P, D)
        device.copy_in(stream, scan.patches, room)
        scan.aim(stream, ["part"] * B, position)
        stream.synchronize()
        yield Asked(scan, stream)


def held_to_float64(device: Device) -> list[dict[str, Any]]:
    """Search every shape in every precision that the chip knows, and compare."""
    found = []
    for number, (B, P, N, D, K) in enumerate(SHAPES):
        rng = np.random.default_rng(number)
        patches = (rng.normal(size=(B, P, D)) / D**0.5).astype(np.float32)
        rows = (rng.normal(size=(N, D)) / D**0.5).astype(np.float32)
        rows[N // 2] = rows[0]  # equal rows stand in the order of their numbers
        valid = np.ones(N, np.bool_)
        valid[rng.choice(N, N // 10, replace=False)] = False
        bank, scoring = bank_of(rows, valid, number), Scoring(K, 0.1, position_weight=0.02)
        position = rng.integers(0, 32, (P, 2))
        for precision in PRECISIONS:
            if precision == "bf16" and device.capability < (8, 0):
                continue
            with asked(device, patches, bank, scoring, precision, position) as it:
                it.scan.scan(it.stream)
                (answer,) = read_answers(device, it.scan, it.stream)
            shape = {"B": B, "P": P, "N": N, "D": D, "K": K}
            compared = _compared(answer, patches, bank, scoring, position, precision)
            found.append({"precision": precision, **shape, **compared})
    return found


def read_answers(device: Device, scan: BankScan, stream: Stream) -> list[dict[str, NDArray[Any]]]:
    """Copy what every bank said to the host and block until it is there."""
    with ExitStack() as held:
        arrays = [
            {name: getattr(answers, name) for name in Answers.__slots__} for answers in scan.answers
        ]
        rooms = [
            {
                name: held.enter_context(page_locked(device, array.shape, array.dtype))
                for name, array in each.items()
            }
            for each in arrays
        ]
        # Before the room goes, even when something below fails: copies may be on their way.
        held.callback(stream.synchronize)
        stream.wait_for(scan.done)
        for each, room in zip(arrays, rooms, strict=True):
            for name, array in each.items():
                device.copy_out(stream, room[name], array)
        stream.synchronize()
        return [{name: array.copy() for name, array in room.items()} for room in rooms]


def _compared(
    answer: dict[str, NDArray[Any]],
    patches: NDArray[np.float32],
    bank: MemoryBank,
    scoring: Scoring,
    position: NDArray[np.integer],
    precision: Precision,
) -> dict[str, Any]:
    B, P, D = patches.shape
    weight = scoring.position_weight
    # In float32, as they lie on the device.
    known = locate(bank.features, bank.position, weight).astype(np.float32)
    if precision == "s8":
        known = as_int8(known, bank.valid)
    places = np.tile(position, (B, 1))
    located = locate(patches.reshape(B * P, D), places, weight).astype(np.float32)
    picked = np.linspace(0, B * P - 1, min(CHECKED, B * P)).astype(int)
    truth = nearest(located[picked], known, bank.valid, scoring.k)
    rows = answer["neighbours"][picked]
    gap = located[picked][:, None].astype(np.float64) - known[rows].astype(np.float64)
    squared = np.square(gap).sum(axis=2)
    bound = 2 * (-(-(D + 2) // 32) + 8) * 2.0**-24
    # Where another row was found than by float64, it must be as near, but for the bound.
    excess = squared / np.maximum(np.square(truth.distances), 1e-30) - 1
    differs = rows != truth.rows
    memory = attend(truth, known, scoring.temperature)
    residual = located[picked].astype(np.float64) - memory
    error = np.linalg.norm(answer["residual"][picked] - residual[:, :D], axis=1)
    scale = np.linalg.norm(memory, axis=1)
    evidence = np.linalg.norm(residual, axis=1)
    figures = {
        "rows_that_differ": int(differs.sum()),
        "largest_excess": float(np.abs(excess[differs]).max()) if differs.any() else 0.0,
        "attention_error": float((error / scale).max()),
        "evidence_error": float(np.abs(answer["evidence"][picked] / evidence - 1).max()),
        "searched_exhaustively": B * P if precision == "f32" else int(answer["uncertified"][0]),
    }
    right = (
        figures["largest_excess"] <= bound
        and figures["attention_error"] <= ATTENTION[precision]
        and figures["evidence_error"] <= ATTENTION[precision]
    )
    return {**figures, "right": bool(right)}


def as_int8(rows: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Round rows as an int8 bank does: mean + scale · code, (N, W)."""
    mean = rows[valid].mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = rows - mean
    scale = np.abs(centred).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(centred / np.where(scale > 0, scale, 1))
    return np.asarray(mean + scale * codes, np.float32)
