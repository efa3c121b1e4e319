"""A search of one or two banks by the kernels, step by step as the host does it, and the truth.

Letters: N bank rows, B frames, P patches a frame, D dimensions, W columns with places.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge.kernels import arguments
from inspection.retrieval import Neighbours, attend, nearest
from tests.gpu.kernels_on_cpu import Buffers, record

UNIT = 2.0**-24
"""u: what FP32 rounds by, relatively."""


@dataclass
class Question:
    """One bank and what is asked of it.

    Attributes:
        bank: (N, W) float32 located rows.
        valid: (N,) bool.
        ranges: (B, 2) first row and rows of each frame.
        patches: (B, P, D) float32, or float16.
        places: (B, P, 2) float32, or None where places do not count.
        splits: S.
    """

    bank: np.ndarray
    valid: np.ndarray
    ranges: np.ndarray
    patches: np.ndarray
    places: np.ndarray | None
    k: int = 3
    temperature: float | np.ndarray = 0.5  # of all frames, or (B,)
    splits: int = 1

    def temperature_of(self, frame):
        return float(np.broadcast_to(self.temperature, len(self.patches))[frame])

    @property
    def located(self):
        """(B, P, W) float32 patches with their places."""
        parts = [self.patches.astype(np.float32)]
        return np.concatenate([*parts, *([] if self.places is None else [self.places])], axis=2)


@dataclass
class Answers:
    """What the kernels said; arrays as in `edge/kernels/README.md`, by frame."""

    distances: np.ndarray
    neighbours: np.ndarray
    residual: np.ndarray
    evidence: np.ndarray
    uncertified: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    approx: np.ndarray | None = None
    candidates: np.ndarray | None = None
    bounds: np.ndarray | None = None
    query_bounds: np.ndarray | None = None
    searched: np.ndarray | None = None  # (N, W) the rows that were searched: int8 changes them


def example(B, P, N, D, *, k=3, splits=1, places=True, seed=0, valid=1.0):
    """A question as a line would ask it: clusters of rows, patches between them, far from 0."""
    rng = np.random.default_rng(seed)
    centres = 1.0 + rng.standard_normal((8, D))

    def near(count):
        noise = 0.3 * rng.standard_normal((count, D))
        return (centres[rng.integers(8, size=count)] + noise).astype(np.float32)

    bank, patches, where = near(N), near(B * P).reshape(B, P, D), None
    if places:
        rows = 0.1 * rng.integers(28, size=(N, 2))
        bank = np.concatenate([bank, rows], axis=1).astype(np.float32)
        where = (0.1 * rng.integers(28, size=(B, P, 2))).astype(np.float32)
    may_be_found = rng.random(N) < valid
    may_be_found[rng.permutation(N)[:k]] = True
    ranges = np.tile([[0, N]], (B, 1))
    return Question(bank, may_be_found, ranges, patches, where, k, D / 5, splits)


class OneSearch:
    """The buffers of one question, and the struct that points at them."""

    def __init__(self, kernels, buffers: Buffers, question: Question, kind: str) -> None:
        self.kernels, self.buffers, self.question, self.kind = kernels, buffers, question, kind
        B, P, D = question.patches.shape
        N, W = question.bank.shape
        self.padded = arguments.padded_width(W)
        hold, empty = buffers.hold, buffers.empty
        sound = question.valid & np.isfinite(question.bank).all(axis=1)
        chosen = question.bank[sound].astype(np.float64)
        mean = chosen.mean(axis=0) if len(chosen) else np.zeros(W)
        M, S, k = B * P, question.splits, question.k
        self.arrays = {
            "located": hold(question.bank),
            "valid": hold(question.valid.astype(np.uint8)),
            "mean": hold(mean.astype(np.float32)),
            "rows": empty((N, self.padded), np.int8 if kind == "s8" else np.uint16),
            "norms": empty(N, np.float32),
            "scale": empty(N, np.float32),
            "bounds": hold(np.zeros(2, np.float32)),
            "first": hold(question.ranges[:, 0].astype(np.int32)),
            "count": hold(question.ranges[:, 1].astype(np.int32)),
            "temperature": hold(np.full(B, question.temperature, np.float32)),
            "patches": hold(question.patches),
            "places": None if question.places is None else hold(question.places),
            "queries": empty((M, self.padded), np.uint16),
            "query_bounds": empty((M, 2), np.float32),
            "approx": empty((M, S, 32), np.float32),
            "candidates": empty((M, S, 32), np.int32),
            "uncertified": empty(1 + M, np.int32),
            "distances": empty((M, k), np.float32),
            "neighbours": empty((M, k), np.int32),
            "residual": empty((M, D), np.float32),
            "evidence": empty(M, np.float32),
        }
        self.struct = record(
            arguments.SEARCH,
            **self.arrays,
            dimensions=D,
            padded=self.padded,
            splits=S,
            k=k,
        )

    def prepare(self):
        names = ("located", "valid", "mean", "rows", "norms", "scale", "bounds")
        N, W = self.question.bank.shape
        task = record(
            arguments.PREPARE_ROWS,
            **{name: self.arrays[name] for name in names},
            n=N,
            width=W,
            padded=self.padded,
        )
        self.kernels.launch(f"prepare_rows_{self.kind}", task, (-(-N // 8),), (256,))

    def searched(self):
        """(N, W) float32 rows that the answers are about."""
        if self.kind != "s8":
            return self.question.bank
        codes = self.arrays["rows"][:, int8_columns(self.padded)].astype(np.float64)
        codes = codes[:, : self.question.bank.shape[1]]
        scaled = self.arrays["scale"][:, None].astype(np.float64) * codes
        return (scaled + self.arrays["mean"]).astype(np.float32)

    def answers(self) -> Answers:
        a, (B, P, _) = self.arrays, self.question.patches.shape
        listed = a["uncertified"][1 : 1 + max(a["uncertified"][0], 0)]
        by_frame = {
            name: a[name].reshape(B, P, *a[name].shape[1:]).copy()
            for name in ("distances", "neighbours", "residual", "evidence")
        }
        of_search = {
            name: a[name].reshape(B, P, *a[name].shape[1:]).copy()
            for name in ("approx", "candidates", "query_bounds")
        }
        return Answers(
            **by_frame,
            **of_search,
            uncertified=listed.copy(),
            bounds=a["bounds"],
            searched=self.searched(),
        )


def search(kernels, *questions: Question, kind: str = "f16", exhaustively: bool = False):
    """Ask one or two questions of the same patches in one launch; answers in the same order."""
    buffers = Buffers()
    searches = [OneSearch(kernels, buffers, question, kind) for question in questions]
    B, P, _ = questions[0].patches.shape
    task = record(
        arguments.SEARCHES,
        searches=len(searches),
        frames=B,
        patches=P,
        every_patch=int(exhaustively),
        half_patches=int(questions[0].patches.dtype == np.float16),
    )
    for i, one in enumerate(searches):
        task["search"][i] = one.struct
    slow, warps, both = ("s8" if kind == "s8" else "f32"), -(-B * P // 8), len(searches)
    if not exhaustively or kind == "s8":
        for one in searches:
            one.prepare()
    if not exhaustively:
        tile, splits = kernels.tile, max(question.splits for question in questions)
        queries = "bf16" if kind == "bf16" else "f16"
        grid = (-(-P // tile.patches), splits, B * both)
        kernels.launch(f"prepare_queries_{queries}", task, (warps, both), (256,))
        scan = (f"scan_{kind}", task, grid, (tile.threads,), tile.shared_bytes)
        kernels.launch_watched(buffers, *scan)
        kernels.launch(f"finish_{slow}", task, (warps, both), (256,))
    kernels.launch(f"exhaustive_{slow}", task, (3, both), (512,))
    buffers.check()
    return [one.answers() for one in searches]


def approx_error(question: Question, answers: Answers) -> np.ndarray:
    """(B, P) ε of `finish.cuh`, in float64."""
    X, row_error = answers.bounds.astype(np.float64)
    Q, query_error = np.moveaxis(answers.query_bounds.astype(np.float64), -1, 0)
    wide = arguments.padded_width(question.bank.shape[1])
    rounding = query_error * X + (Q + query_error) * row_error
    sums = 2.6 * UNIT * wide * (Q + query_error) * (X + row_error)
    return 2 * rounding + 2 * sums + (wide / 32 + 12) * UNIT * X**2 + 4 * UNIT * Q * X


def int8_columns(padded: int) -> np.ndarray:
    """Where each column of an int8 row lies."""
    k = np.arange(padded)
    return k // 16 * 16 + k % 8 // 2 * 4 + k % 16 // 8 * 2 + k % 2


def truth(question: Question, searched: np.ndarray, frame: int):
    """(Neighbours, (P, W) residual) of a frame in float64."""
    first, count = question.ranges[frame]
    rows = searched[first : first + count]
    patches = question.located[frame].astype(np.float64)
    found = nearest(patches, rows, question.valid[first : first + count], question.k)
    return found, patches - attend(found, rows, question.temperature_of(frame))


def order_bound(width: int) -> float:
    """How much two rows' squared distances must differ, relatively, to be found in true order."""
    return 2 * (-(-width // 32) + 8) * UNIT


def assert_true(question: Question, answers: Answers, frames=None, relative=1e-5) -> None:
    """Hold the answers of all or some frames to float64 brute force.

    Order and distances keep the bound of `answer.cuh`. Attention weights are as wrong as squared
    distances over τ, and a residual is Σ w_j (q − x_j), whose terms may cancel: it is held to a
    share of the farthest neighbour's distance.
    """
    width, D = question.bank.shape[1], question.patches.shape[2]
    for frame in range(len(question.patches)) if frames is None else frames:
        found, residual = truth(question, answers.searched, frame)
        first = question.ranges[frame, 0]
        rows = answers.neighbours[frame]
        assert (rows >= 0).all()
        patches = question.located[frame].astype(np.float64)
        gaps = patches[:, None] - answers.searched[first + rows].astype(np.float64)
        squared = np.square(gaps).sum(axis=2)
        # Whoever stands in a place is as near as who should, but for the bound; and exactly equal
        # rows stand in the order of their numbers.
        slack = order_bound(width) * np.square(found.distances) + 1e-30
        assert (np.abs(squared - np.square(found.distances)) <= slack).all()
        tied = squared[:, 1:] == squared[:, :-1]
        assert (rows[:, 1:] > rows[:, :-1])[tied].all()
        np.testing.assert_allclose(
            answers.distances[frame], found.distances, rtol=order_bound(width), atol=1e-18
        )
        same = Neighbours(np.sqrt(squared), rows.astype(np.int64))
        searched = answers.searched[first : first + question.ranges[frame, 1]]
        expected = patches - attend(same, searched, question.temperature_of(frame))
        off = np.linalg.norm(answers.residual[frame] - expected[:, :D], axis=1)
        assert (off <= relative * found.distances[:, -1]).all()
        off = np.abs(answers.evidence[frame] - np.linalg.norm(residual, axis=1))
        assert (off <= relative * found.distances[:, -1]).all()
