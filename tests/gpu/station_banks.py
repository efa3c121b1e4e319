"""Banks and frames as a station has them, and what `inspection` says of them in float64."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from benchmarks.scan_check import read_answers
from edge.bank_rows import BankShape
from edge.bank_scan import ScanShape, open_scan
from edge.device import open_stream, page_locked
from edge.device_bank import open_bank
from inspection.bank import empty_bank
from inspection.retrieval import attend, nearest
from inspection.scoring import Scoring, locate

CATEGORIES = ("cable", "screw", "tile")
ROWS_EACH, D, GRID = 75, 21, (6, 11)
P = GRID[0] * GRID[1]
K = 4
SCORINGS: dict[str | None, Scoring] = {
    "cable": Scoring(K, D / 10, position_weight=0.3),
    "screw": Scoring(K, D / 5, position_weight=0.0),
    "tile": Scoring(K, D / 5, position_weight=0.1),
    # Frames of no known product.
    None: Scoring(K, D / 3, position_weight=0.02),
}
POSITION = np.stack(np.indices(GRID), axis=-1).reshape(P, 2)


def make_bank(seed: int, scale: float = 1.0):
    """Clusters of rows far from 0, nine tenths of them valid."""
    rng = np.random.default_rng(seed)
    bank = empty_bank(CATEGORIES, ROWS_EACH, D)
    n = len(bank.features)
    centres = 1.0 + scale * rng.standard_normal((9, D))
    features = centres[rng.integers(9, size=n)] + 0.3 * rng.standard_normal((n, D))
    return replace(
        bank,
        features=features.astype(np.float32),
        valid=rng.random(n) < 0.9,
        position=rng.integers(GRID[0], size=(n, 2)).astype(np.int32),
    )


def make_patches(frames: int, seed: int):
    """(B·P, D) float32."""
    rng = np.random.default_rng(seed)
    return (1.0 + rng.standard_normal((frames * P, D))).astype(np.float32)


def truth(bank, patches, category, placed: bool):
    """What `inspection.retrieval` says of a frame: neighbours, (P, D) residual, (P,) evidence."""
    rows, scoring = bank.rows_of(category), SCORINGS[category]
    features, asked = bank.features[rows], patches
    if placed:
        features = locate(features, bank.position[rows], scoring.position_weight)
        asked = locate(patches, POSITION, scoring.position_weight)
    found = nearest(asked, features, bank.valid[rows], K)
    gap = asked - attend(found, features, scoring.temperature)
    return found, gap[:, :D], np.linalg.norm(gap, axis=1)


def assert_answers(answers, banks, patches, categories, relative=1e-5):
    """Hold what was read to float64, frame by frame and bank by bank.

    Rows are drawn at random: two whose distances differ by less than FP32 tells apart, about 1e-6,
    do not come up among some thousand pairs, so that rows must be equal.
    """
    for i, (said, bank) in enumerate(zip(answers, banks, strict=True)):
        for frame, category in enumerate(categories):
            of = slice(frame * P, (frame + 1) * P)
            found, residual, evidence = truth(bank, patches[of], category, placed=i == 0)
            np.testing.assert_array_equal(said["neighbours"][of], found.rows)
            np.testing.assert_allclose(said["distances"][of], found.distances, rtol=1e-5)
            np.testing.assert_allclose(said["evidence"][of], evidence, rtol=relative)
            gaps = np.linalg.norm(said["residual"][of] - residual, axis=1)
            assert (gaps <= relative * evidence).all()


def wrong(answers, banks, patches, categories) -> bool:
    try:
        assert_answers(answers, banks, patches, categories)
    except AssertionError:
        return True
    return False


def copied_out(device, *arrays):
    """Arrays of device memory on the host."""
    with ExitStack() as held:
        stream = held.enter_context(open_stream(device))
        rooms = [held.enter_context(page_locked(device, a.shape, a.dtype)) for a in arrays]
        for room, array in zip(rooms, arrays, strict=True):
            device.copy_out(stream, room, array)
        stream.synchronize()
        return [room.copy() for room in rooms]


class Station:
    """Both banks on a device and slots that search them; closed with `held`."""

    def __init__(self, device, held: ExitStack, precision="f16", frames=1, slots=1, banks=2):
        self.device, self.frames = device, frames
        n = ROWS_EACH * len(CATEGORIES)
        self.loading = held.enter_context(open_stream(device))
        self.streams = [held.enter_context(open_stream(device)) for _ in range(slots)]
        self.banks = [
            held.enter_context(
                open_bank(device, BankShape(n, D, placed, precision, any_product=True))
            )
            for placed in (True, False)[:banks]
        ]
        shape = ScanShape(frames, P, K)
        self.scans = [
            held.enter_context(open_scan(device, self.banks, shape)) for _ in range(slots)
        ]
        self.given = [
            held.enter_context(page_locked(device, (frames * P, D), np.float32))
            for _ in range(slots)
        ]
        # Before anything goes, whatever a test has left running.
        for stream in (self.loading, *self.streams):
            held.callback(stream.synchronize)

    def load(self, *banks):
        """Replace the rows of every bank."""
        for on_device, bank in zip(self.banks, banks, strict=True):
            on_device.replace(self.loading, bank, SCORINGS)

    def ask(self, patches, categories, slot=0):
        """Send patches and put their search on the slot's stream."""
        self.scans[slot].aim(self.streams[slot], categories, POSITION)
        self.given[slot][:] = patches
        self.device.copy_in(self.streams[slot], self.scans[slot].patches, self.given[slot])
        self.scans[slot].scan(self.streams[slot])

    def read(self, slot=0):
        return read_answers(self.device, self.scans[slot], self.streams[slot])
