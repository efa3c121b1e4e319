"""A bundle of random rows in memory, as large as is asked: for timing, not for verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from inspection.bank import MemoryBank, empty_bank
from inspection.bundle import ANY_PRODUCT, Bundle, Route, digest
from inspection.foreground import everywhere
from inspection.manifest import FORMAT, Manifest, PreprocessingEntry, ScoringEntry
from inspection.routing import Router
from inspection.scoring import Head, Scoring, enhanced_length
from inspection.thresholds import Calibration, Thresholds

UNITS = 64


def made_up_bundle(side_px: int, dimensions: int, k: int, rows: int, product: str) -> Bundle:
    """Make a bundle of one product, whose abnormal side speaks too.

    Args:
        side_px: S.
        dimensions: D of its patches.
        k: K.
        rows: N of the normal bank; the abnormal one has a quarter.
        product: Its name.
    """
    rng = np.random.default_rng(0)
    Z = enhanced_length(dimensions, k)

    def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.standard_normal(shape).astype(np.float32)

    head = Head(normal(Z, UNITS) / np.float32(Z**0.5), normal(UNITS), normal(UNITS), 0.0)
    scoring = Scoring(k, 0.1, position_weight=0.01)
    side = side_px // 8

    def bank(count: int) -> MemoryBank:
        features = normal(count, dimensions) / np.float32(dimensions**0.5)
        position = rng.integers(0, side, (count, 2)).astype(np.int32)
        empty = empty_bank((product,), count, dimensions)
        return replace(empty, features=features, valid=np.ones(count, np.bool_), position=position)

    def route(category: str | None, weight: float) -> Route:
        calibration = Calibration(tuple(np.linspace(0.5, 1.0, 50)))
        return Route(category, scoring, weight, calibration, Thresholds(3.0, 6.0))

    def read(path: str) -> bytes:
        raise OSError(f"a bundle that was made up has no file {path}")

    return Bundle(
        id=digest(b"made up"),
        manifest=Manifest(
            format=FORMAT,
            parent=None,
            backbone="any",
            seed=0,
            preprocessing=PreprocessingEntry(size_px=side_px),
            scoring=ScoringEntry(k=k, top_fraction=scoring.top_fraction),
            routes={},
            files={},
        ),
        bank_id=digest(b"made up rows"),
        normal=bank(rows),
        abnormal=bank(rows // 4),
        heads={product: head},
        routes={product: route(product, 0.5), ANY_PRODUCT: route(None, 0.0)},
        router=Router(
            (product,),
            np.zeros((1, 2 * dimensions), np.float32),
            np.zeros(1, np.int32),
            np.ones(1, np.float32),
        ),
        foregrounds={product: everywhere((side, side))},
        _read=read,
    )
