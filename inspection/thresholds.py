"""Where PASS ends: thresholds from the scores of good parts, and how unusual a score is.

The promise made here is empirical. A bound with a confidence level is a later step's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from inspection.errors import InputError

FloatOrArray = TypeVar("FloatOrArray", float, NDArray[np.floating])


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores at which the verdict changes; a score on a threshold takes the milder side.

    Attributes:
        review: A higher score sends the part to a person.
        reject: A higher score ejects it; never below `review`.
    """

    review: float
    reject: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.review) and math.isfinite(self.reject)):
            raise InputError(f"thresholds must be finite, got {self.review} and {self.reject}")
        if not self.review <= self.reject:
            raise InputError(f"review ({self.review}) must not exceed reject ({self.reject})")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores of good parts that the bank had not seen, and the unit they set.

    Attributes:
        good_scores: Raw image scores, ascending; at least two, finite.
    """

    good_scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.good_scores) < 2 or not all(map(math.isfinite, self.good_scores)):
            raise InputError(
                "calibration needs the finite scores of at least 2 good parts outside the bank, "
                f"got {len(self.good_scores)}"
            )
        if list(self.good_scores) != sorted(self.good_scores):
            raise InputError("calibration scores must be ascending")

    @property
    def centre(self) -> float:
        """Median raw score of a good part."""
        return float(np.median(self.good_scores))

    @property
    def scale(self) -> float:
        """Robust standard deviation, 1.4826 · MAD, never below a thousandth of the centre."""
        spread = float(np.median(np.abs(np.asarray(self.good_scores) - self.centre)))
        return max(1.4826 * spread, 1e-3 * abs(self.centre), 1e-12)

    def standardise(self, raw: FloatOrArray) -> FloatOrArray:
        """Bring raw scores or maps to the unit of the wire: robust σ above the median good part.

        The unit is what makes one threshold mean the same for every product. The image score is a
        mean of patch scores, so map and score may be standardised alike.
        """
        return (raw - self.centre) / self.scale

    def p_value(self, raw: float) -> float:
        """Share of good parts that look at least as bad: (1 + #{s_i >= s}) / (n + 1).

        Source: conformal p-value, Vovk, Gammerman and Shafer, 2005; valid when good parts are
        exchangeable with those that calibrated.
        """
        n = len(self.good_scores)
        return (1 + n - int(np.searchsorted(self.good_scores, raw, "left"))) / (n + 1)

    def threshold(self, max_frr: float) -> float:
        """Find the smallest observed score that at most `max_frr` of good parts should exceed.

        With fewer than 1/max_frr − 1 parts the promise cannot be supported, and the largest score
        seen on a good part stands in; `statement` says so.

        Returns:
            A raw score.

        Raises:
            InputError: max_frr is not inside (0, 1).
        """
        if not 0 < max_frr < 1:
            raise InputError(f"a false-reject rate must lie between 0 and 1, got {max_frr}")
        n = len(self.good_scores)
        rank = math.ceil((n + 1) * (1 - max_frr) - 1e-9)
        return self.good_scores[min(max(rank, 1), n) - 1]

    def thresholds(self, review_frr: float, reject_frr: float) -> Thresholds:
        """Set both thresholds, in standardised units.

        Raises:
            InputError: reject_frr exceeds review_frr, or a rate is outside (0, 1).
        """
        if reject_frr > review_frr:
            raise InputError(
                f"reject_frr ({reject_frr:g}) must not exceed review_frr ({review_frr:g}): "
                "fewer good parts are ejected than looked at"
            )
        return Thresholds(
            review=self.standardise(self.threshold(review_frr)),
            reject=self.standardise(self.threshold(reject_frr)),
        )

    def statement(self, review_frr: float, reject_frr: float) -> str:
        """Say in a sentence what the thresholds rest on."""
        n = len(self.good_scores)
        said = [f"{n} good parts, each scored by a bank built without it"]
        for name, rate in (("review", review_frr), ("reject", reject_frr)):
            needed, share = math.ceil(1 / rate - 1e-9) - 1, f"{100 * rate:.3g}%"
            if n >= needed:
                said.append(f"{name}: {share} of them expected above")
            else:
                said.append(
                    f"{name}: the highest of them, because {share} needs {needed} good parts"
                )
        return "; ".join(said)


def calibration_of(scores: Sequence[float]) -> Calibration:
    """Sort raw scores of good parts into a `Calibration`."""
    return Calibration(tuple(sorted(float(score) for score in scores)))
