"""Golden frames: images whose answer is known, so that every runtime can prove itself on them.

They travel in the bundle. The trainer refuses to write a bundle whose runtimes disagree on them,
and the station asks again on its own machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from inspection.bank import safetensors_metadata
from inspection.bundle import Bundle, Route
from inspection.errors import BundleError, InputError
from inspection.scoring import patch_scores
from inspection.verdicts import judge


class Tolerance(NamedTuple):
    """How far a runtime may be from a golden answer, relatively.

    Attributes:
        score: Of the image score.
        map: Of any patch, relative to the map's highest value. Where half precision is meant it is
            wider: a patch that says little may be further off than the mean of those that count.
    """

    score: float
    map: float


RELATIVE_TOLERANCE = 1e-4
"""How far two float32 runtimes may be apart on the same prepared frame, relative to the score."""

EXACT = Tolerance(RELATIVE_TOLERANCE, RELATIVE_TOLERANCE)


@dataclass(frozen=True, slots=True)
class GoldenFrame:
    """A frame with its expected answer.

    Attributes:
        product: Whose route judges it; None for the route of unknown products.
        frame: (H, W, 3) uint8 RGB, as the camera gave it.
        prepared: (8 · Mh, 8 · Mw, 3) uint8, after preprocessing.
        anomaly_map: (Mh, Mw) float32, in units of feature distance.
        score: Raw image score.
    """

    product: str | None
    frame: NDArray[np.uint8]
    prepared: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32]
    score: float

    def __post_init__(self) -> None:
        for name, array, channels, dtype in (
            ("frame", self.frame, (3,), np.uint8),
            ("prepared", self.prepared, (3,), np.uint8),
            ("anomaly_map", self.anomaly_map, (), np.float32),
        ):
            if array.ndim != 2 + len(channels) or array.shape[2:] != channels or not array.size:
                raise InputError(f"a golden {name} has the wrong shape, {array.shape}")
            if array.dtype != dtype:
                raise InputError(f"a golden {name} must be {np.dtype(dtype)}, got {array.dtype}")


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close one runtime came to a golden frame's answer.

    Attributes:
        score_error: |score − expected| / expected.
        map_error: Largest difference between the maps, relative to the map's highest value.
        same_verdict: Whether the verdicts are identical.
        tolerance: What the errors may be.
    """

    score_error: float
    map_error: float
    same_verdict: bool
    tolerance: Tolerance = EXACT

    @property
    def holds(self) -> bool:
        """Whether score, map and verdict all agree; an error that is not a number does not."""
        return (
            self.same_verdict
            and self.score_error <= self.tolerance.score
            and self.map_error <= self.tolerance.map
        )


def agreement(
    golden: GoldenFrame,
    anomaly_map: NDArray[np.floating],
    score: float,
    route: Route,
    tolerance: Tolerance = EXACT,
) -> Agreement:
    """Compare a runtime's answer with the golden one; maps of other shapes are infinitely apart.

    The verdicts compared are what both scores come to by the route, so a bundle with other
    thresholds keeps its golden frames.
    """
    map_error = math.inf
    if anomaly_map.shape == golden.anomaly_map.shape:
        highest = max(float(np.abs(golden.anomaly_map).max()), 1e-12)
        map_error = float(np.abs(anomaly_map - golden.anomaly_map).max()) / highest
    decisions = [
        judge(raw, route.calibration, route.thresholds).decision for raw in (score, golden.score)
    ]
    return Agreement(
        score_error=abs(score - golden.score) / max(abs(golden.score), 1e-12),
        map_error=map_error,
        same_verdict=decisions[0] == decisions[1],
        tolerance=tolerance,
    )


def oracle_agreement(
    bundle: Bundle, golden: GoldenFrame, patches: NDArray[np.floating]
) -> Agreement:
    """Ask plain numpy for the golden answer, on the features (Mh, Mw, D) that a runtime found."""
    route = bundle.route(golden.product)
    shape = golden.anomaly_map.shape
    scores = patch_scores(
        patches.reshape(-1, patches.shape[-1]),  # (Mh, Mw, D) → (Mh · Mw, D)
        np.argwhere(np.ones(shape, np.bool_)),
        bundle.normal,
        bundle.abnormal,
        bundle.head(route),
        route.scoring,
        category=route.category,
        weight=route.abnormal_weight,
        foreground=bundle.foreground(route, (shape[0], shape[1])),
    )
    return agreement(golden, scores.reshape(shape), bundle.image_score(scores, route), route)


def golden_to_bytes(frames: Sequence[GoldenFrame]) -> bytes:
    """Write golden frames as safetensors."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for i, golden in enumerate(frames):
        arrays[f"{i}.frame"] = np.ascontiguousarray(golden.frame)
        arrays[f"{i}.prepared"] = np.ascontiguousarray(golden.prepared)
        arrays[f"{i}.anomaly_map"] = np.ascontiguousarray(golden.anomaly_map)
    answers = [{"product": golden.product, "score": golden.score} for golden in frames]
    return bytes(safetensors.numpy.save(arrays, metadata={"answers": json.dumps(answers)}))


def golden_from_bytes(data: bytes) -> tuple[GoldenFrame, ...]:
    """Read what `golden_to_bytes` wrote.

    Raises:
        BundleError: Not golden frames, or none at all.
    """
    try:
        arrays = safetensors.numpy.load(data)
        answers = json.loads(safetensors_metadata(data)["answers"])
        frames = tuple(
            GoldenFrame(
                product=answer["product"],
                frame=arrays[f"{i}.frame"],
                prepared=arrays[f"{i}.prepared"],
                anomaly_map=arrays[f"{i}.anomaly_map"],
                score=float(answer["score"]),
            )
            for i, answer in enumerate(answers)
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"these are not golden frames: {error}") from error
    if not frames:
        raise BundleError("a bundle needs at least one golden frame, this one has none")
    return frames
