"""Frames for trunks, drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE_PX = 64


def drawn_frames(count: int, seed: int = 0, side_px: int = SIDE_PX) -> NDArray[np.uint8]:
    """(count, side, side, 3): blocks of colour with noise, so that every layer has work."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, side_px // 8, side_px // 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.asarray(np.clip(blocks + rng.normal(0, 6, blocks.shape), 0, 255), np.uint8)
