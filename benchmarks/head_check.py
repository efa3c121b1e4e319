"""Patch scores on whatever device is open held to float64: search of both banks, heads, fusion."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bank_rows import BankShape
from edge.bank_scan import ScanShape, open_scan
from edge.device import Device, open_stream, page_locked
from edge.device_bank import open_bank
from edge.device_heads import HeadsShape, open_heads, open_judge
from inspection.bank import MemoryBank, empty_bank
from inspection.scoring import Head, Scoring, enhanced_length, patch_scores

SHAPES = (
    # P, rows a product, D, K, U
    (100, 90, 33, 3, 9),
    (1024, 2048, 424, 12, 64),
)

PRODUCTS: tuple[str | None, ...] = ("first", "second", None)
"""Of the frames of a batch."""

WEIGHTS = (0.5, 1.0, 0.0)

ERROR = 2e-4
"""Relative: FP32 sums over 1,300 columns and 64 units, and attention among FP32 rows."""


def held_to_float64(device: Device) -> list[dict[str, Any]]:
    """Judge a batch of every shape, and compare."""
    found = []
    for number, (P, N, D, K, U) in enumerate(SHAPES):
        rng = np.random.default_rng(number)
        side = int(np.ceil(P**0.5))
        position = np.stack(np.divmod(np.arange(P), side), axis=1)
        banks = (_bank(rng, N, D, side), _bank(rng, N // 4, D, side))
        heads = {name: _head(rng, D, K, U) for name in PRODUCTS if name}
        scorings = {
            name: Scoring(K, 0.1 + 0.1 * i, position_weight=0.02 * i)
            for i, name in enumerate(PRODUCTS)
        }
        patches = (rng.normal(size=(len(PRODUCTS), P, D)) / D**0.5).astype(np.float32)
        scores = _on_device(device, patches, banks, heads, scorings, position)
        truth = np.stack(
            [
                patch_scores(
                    patches[i],
                    position,
                    *banks,
                    heads[name or "first"],
                    scorings[name],
                    category=name,
                    weight=WEIGHTS[i],
                )
                for i, name in enumerate(PRODUCTS)
            ]
        )
        error = float(np.abs(scores / truth - 1).max())
        shape = {"P": P, "N": N, "D": D, "K": K, "U": U}
        found.append({"heads": shape, "score_error": error, "right": error <= ERROR})
    return found


def _bank(rng: np.random.Generator, rows: int, D: int, side: int) -> MemoryBank:
    bank = empty_bank(("first", "second"), rows, D)
    features = (rng.normal(size=bank.features.shape) / D**0.5).astype(np.float32)
    position = rng.integers(0, side, bank.position.shape).astype(np.int32)
    valid = np.ones(len(features), np.bool_)
    return replace(bank, features=features, position=position, valid=valid)


def _head(rng: np.random.Generator, D: int, K: int, U: int) -> Head:
    Z = enhanced_length(D, K)
    hidden, bias, output = (
        rng.normal(size=shape).astype(np.float32) for shape in ((Z, U), (U,), (U,))
    )
    # Most columns are alike for all patches: with outputs of both signs a head may say nothing.
    return Head(hidden, bias, np.abs(output), 0.1)


def _on_device(
    device: Device,
    patches: NDArray[np.float32],
    banks: tuple[MemoryBank, MemoryBank],
    heads: dict[str, Head],
    scorings: dict[str | None, Scoring],
    position: NDArray[np.integer],
) -> NDArray[np.float32]:
    """(B, P) scores of (B, P, D) patches."""
    B, P, D = patches.shape
    k, units = scorings[None].k, len(heads["first"].hidden_bias)
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        opened = [
            held.enter_context(
                open_bank(device, BankShape(len(bank.features), D, placed, any_product=True))
            )
            for bank, placed in zip(banks, (True, False), strict=True)
        ]
        there = held.enter_context(open_heads(device, HeadsShape(len(heads), D, k, units)))
        scan = held.enter_context(open_scan(device, opened, ScanShape(B, P, k)))
        judge = held.enter_context(open_judge(device, there, scan))
        given = held.enter_context(page_locked(device, (B * P, D), np.float32))
        answer = held.enter_context(page_locked(device, (B * P,), np.float32))
        held.callback(stream.synchronize)
        for on_device, bank in zip(opened, banks, strict=True):
            on_device.replace(stream, bank, scorings)
        there.replace(stream, heads)
        given[:] = patches.reshape(B * P, D)
        device.copy_in(stream, scan.patches, given)
        scan.aim(stream, PRODUCTS, position)
        judge.aim(stream, PRODUCTS, WEIGHTS, np.ones(P))
        scan.scan(stream)
        judge.judge(stream)
        device.copy_out(stream, answer, judge.scores)
        stream.synchronize()
        return np.array(answer).reshape(B, P)
