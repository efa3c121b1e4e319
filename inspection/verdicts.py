"""What is said of a part, and where on it. Pure decisions: no threshold is chosen here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from inspection.thresholds import Calibration, Thresholds


class Verdict(str, Enum):
    """What the line does with a part. Only PASS lets it go on; UNKNOWN always has a reason."""

    PASS = "PASS"
    REVIEW = "REVIEW"
    FAIL = "FAIL"
    UNKNOWN = "UNKNOWN"


class Reason(str, Enum):
    """Why a verdict is not PASS: the whole vocabulary of the wire field `reason`."""

    SCORE_ABOVE_REVIEW = "score_above_review"
    SCORE_ABOVE_REJECT = "score_above_reject"
    SCORE_NOT_A_NUMBER = "score_not_a_number"
    BAD_HEADER = "bad_header"
    BAD_PAYLOAD = "bad_payload"
    BAD_IMAGE = "bad_image"
    FRAME_TOO_LARGE = "frame_too_large"
    UNKNOWN_PRODUCT = "unknown_product"
    TOO_DARK = "too_dark"
    OVEREXPOSED = "overexposed"
    BLURRED = "blurred"
    FROZEN = "frozen"
    REPEATED = "repeated"
    NAME_REUSED = "name_reused"
    FRAME_LOST = "frame_lost"
    BACKLOG_FULL = "backlog_full"
    DEADLINE_PASSED = "deadline_passed"
    SCORER_FAILED = "scorer_failed"
    STATION_STOPPING = "station_stopping"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and why."""

    verdict: Verdict
    reason: Reason | None


def decide(score: float, thresholds: Thresholds) -> Decision:
    """Judge an image score: higher is worse, and a score on a threshold takes the milder side.

    A score that is not a number is no evidence that the part is good: a person looks.
    """
    if math.isnan(score):
        return Decision(Verdict.REVIEW, Reason.SCORE_NOT_A_NUMBER)
    if score > thresholds.reject:
        return Decision(Verdict.FAIL, Reason.SCORE_ABOVE_REJECT)
    if score > thresholds.review:
        return Decision(Verdict.REVIEW, Reason.SCORE_ABOVE_REVIEW)
    return Decision(Verdict.PASS, None)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a raw image score means for one product.

    Attributes:
        score: Standardised: robust σ above the median good part.
        p_value: Share of good parts that look at least as bad; NaN where the score is.
        decision: Verdict and reason.
    """

    score: float
    p_value: float
    decision: Decision


def judge(raw: float, calibration: Calibration, thresholds: Thresholds) -> Judgement:
    """Standardise a raw image score and decide; every program judges through this function."""
    score = calibration.standardise(raw)
    p_value = calibration.p_value(raw) if not math.isnan(raw) else math.nan
    return Judgement(score, p_value, decide(score, thresholds))


@dataclass(frozen=True, slots=True)
class Region:
    """A suspicious place, in pixels of the frame as the camera sent it.

    Attributes:
        x_px: Left edge.
        y_px: Upper edge.
        width_px: At least 1.
        height_px: At least 1.
        score: Highest patch score inside.
    """

    x_px: int
    y_px: int
    width_px: int
    height_px: int
    score: float


def find_regions(
    anomaly_map: NDArray[np.floating],
    level: float,
    frame_shape: tuple[int, ...],
    most: int = 16,
) -> tuple[Region, ...]:
    """Box the connected patches above a level, worst first.

    Args:
        anomaly_map: (Mh, Mw) patch scores; they lie over the whole frame.
        level: A patch above it is suspicious, in units of the map.
        frame_shape: (H, W, …) of the frame as sent, px.
        most: How many boxes at the most, so that a message stays small.
    """
    grid_rows, grid_columns = anomaly_map.shape
    height_px, width_px = frame_shape[:2]
    left = anomaly_map > level
    regions = []
    for start in zip(*np.nonzero(left), strict=True):
        if not left[start]:
            continue
        cells = _flood(left, (int(start[0]), int(start[1])))
        rows, columns = [row for row, _ in cells], [column for _, column in cells]
        top, bottom = (
            min(rows) * height_px // grid_rows,
            -(-(max(rows) + 1) * height_px // grid_rows),
        )
        x = min(columns) * width_px // grid_columns
        right = -(-(max(columns) + 1) * width_px // grid_columns)
        worst = max(float(anomaly_map[cell]) for cell in cells)
        regions.append(Region(x, top, right - x, bottom - top, worst))
    return tuple(sorted(regions, key=lambda region: -region.score)[:most])


def _flood(left: NDArray[np.bool_], start: tuple[int, int]) -> list[tuple[int, int]]:
    """Take the 8-connected cells around `start` out of `left` and list them."""
    left[start] = False
    cells = [start]
    for row, column in cells:
        for r in range(max(row - 1, 0), min(row + 2, left.shape[0])):
            for c in range(max(column - 1, 0), min(column + 2, left.shape[1])):
                if left[r, c]:
                    left[r, c] = False
                    cells.append((r, c))
    return cells
