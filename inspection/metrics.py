"""How well scores tell defects from good parts: per image exactly, per pixel in bounded memory.

A higher score means more anomalous, and, as everywhere in `inspection`, a part is rejected when
its score is *above* the threshold. Nothing here finds connected regions, reads masks or draws
curves; promises about parts not yet seen belong to the calibration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.errors import InputError

Scores = NDArray[np.floating[Any]]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BestF1:
    """The best F1 that any threshold reaches, and that threshold.

    Attributes:
        value: F1 of the defects, in (0, 1].
        threshold: Rejecting every score above it gives `value`. It is the highest score that is
            still let through, hence one of the scores that came, unchanged by a trip through
            their dtype; -inf when rejecting every part is best.
    """

    value: float
    threshold: float


def auroc(scores: Scores, is_defect: NDArray[np.bool_]) -> float:
    """Chance that a random defect scores above a random good part; a tie counts one half.

    Args:
        scores: (N,) of any float dtype; may hold infinities, not NaN.
        is_defect: (N,) bool.

    Returns:
        In [0, 1]; 0.5 for scores that say nothing.

    Raises:
        InputError: Shapes or dtypes are wrong, a score is NaN, or a class is missing.

    Source: Mann-Whitney U with mid-ranks; Hanley & McNeil, Radiology 1982.
    """
    _, good, defect = _count_per_score(scores, is_defect)
    return _auroc(good, defect)


def average_precision(scores: Scores, is_defect: NDArray[np.bool_]) -> float:
    """Precision averaged over the defects, each at the threshold that just catches it.

    The step-wise sum, without interpolation: what scikit-learn's `average_precision_score` gives.
    Arguments and errors are those of `auroc`; the result is in (0, 1].
    """
    _, good, defect = _count_per_score(scores, is_defect)
    return _average_precision(good, defect)


def f1_max(scores: Scores, is_defect: NDArray[np.bool_]) -> BestF1:
    """Find the threshold of best F1; of equally good ones the highest, which rejects least.

    The threshold has seen the labels it is judged on: report it as an upper limit, and set
    stations by calibration. Arguments and errors are those of `auroc`.
    """
    distinct, good, defect = _count_per_score(scores, is_defect)
    caught, rejected = np.cumsum(defect), np.cumsum(good)

    f1 = 2 * caught / (caught + rejected + caught[-1])
    best = int(np.argmax(f1))  # the first maximum; distinct scores descend

    let_through = distinct[best + 1 :]
    threshold = float(let_through[0]) if len(let_through) else -math.inf
    return BestF1(value=float(f1[best]), threshold=threshold)


def frr_at_recall(scores: Scores, is_defect: NDArray[np.bool_], recall: float) -> float:
    """Smallest share of good parts rejected by a threshold that catches enough defects.

    Args:
        scores: (N,) of any float dtype; may hold infinities, not NaN.
        is_defect: (N,) bool.
        recall: Share of the defects to catch at least, 0 < recall <= 1.

    Returns:
        In [0, 1].

    Raises:
        InputError: As for `auroc`, or recall is out of range.
    """
    if not 0.0 < recall <= 1.0:
        raise InputError(
            f"recall must be in (0, 1], got {recall:g}; give a share, not a percentage"
        )
    _, good, defect = _count_per_score(scores, is_defect)
    caught, rejected = np.cumsum(defect), np.cumsum(good)

    # Shares are compared, not counts: 0.07 * 100 is 7.000000000000001 and would ask for 8 of
    # 100 defects, while 7 / 100 is the float that 0.07 denotes.
    enough = int(np.argmax(caught / caught[-1] >= recall))  # the first that suffices
    return float(rejected[enough] / rejected[-1])


def false_reject_rate(passed: NDArray[np.bool_], is_defect: NDArray[np.bool_]) -> float:
    """Share of the good parts that did not pass, in [0, 1].

    Args:
        passed: (N,) bool, whether the line let the part through.
        is_defect: (N,) bool.

    Raises:
        InputError: Shapes or dtypes are wrong, or a class is missing.
    """
    passed, is_defect = _check_parts(passed, is_defect)
    _check_flags("passed", passed)
    return float(np.mean(~passed[~is_defect]))


def escape_rate(passed: NDArray[np.bool_], is_defect: NDArray[np.bool_]) -> float:
    """Share of the defects that passed, in [0, 1]; as for `false_reject_rate` otherwise."""
    passed, is_defect = _check_parts(passed, is_defect)
    _check_flags("passed", passed)
    return float(np.mean(passed[is_defect]))


class PixelCurves:
    """Pixel metrics of any number of anomaly maps, from three histograms of `bins` values each.

    Memory does not grow with the maps: 1.5 MiB at 65536 bins. A 1024 x 1024 map is added in
    9 ms, or 14 ms if every pixel is a defect (measured, median of 15, one core).

    Scores in one bin become ties, and scores in different bins keep their order, so results are
    those of the exact metric on binned scores. With g and d the good and the defect pixels of a
    bin, G and D their totals, and n the pixels in that bin and all above, they differ from the
    exact metric on the scores themselves by at most

        auroc              sum(g * d) / (2 * G * D), thus at most max(g) / (2 * G)
        average_precision  sum(d / D * max(g, d) / n)
        aupro              max(g) / (G * max_fpr)

    and not at all where every bin holds one distinct score. A range far wider than the scores
    spends its bins on nothing: take low and high from the maps.
    """

    def __init__(self, low: float, high: float, bins: int = 65536) -> None:
        """Start with no maps.

        Args:
            low: The lowest score that may come.
            high: The highest score that may come; it belongs to the last bin.
            bins: How many bins of equal width share [low, high].

        Raises:
            InputError: The range is empty or not finite, or bins < 1.
        """
        if not (low < high and math.isfinite(high - low)):
            raise InputError(f"expected a finite range low < high, got [{low:g}, {high:g}]")
        if bins < 1:
            raise InputError(f"expected at least 1 bin, got {bins}; 65536 suits most maps")
        self._low = float(low)
        self._high = float(high)
        self._bins = bins
        self._good: Counts = np.zeros(bins, np.int64)
        self._defect: Counts = np.zeros(bins, np.int64)
        # Sum over regions of (the region's histogram / its area): each region adds 1 in all.
        self._overlap: NDArray[np.float64] = np.zeros(bins, np.float64)

    def add(self, anomaly_map: Scores, regions: NDArray[np.integer[Any]]) -> None:
        """Count the pixels of one map. A map that is refused leaves the counts as they were.

        Args:
            anomaly_map: (H, W) float32 or another float dtype, every score in [low, high].
            regions: (H, W) int32 or another integer dtype: 0 for a good pixel, 1..R for the
                connected defect region it belongs to, no number left out. R = 0 is a good part.

        Raises:
            InputError: Shapes or dtypes are wrong, a score is NaN or outside [low, high], or
                the regions are not numbered 1..R.
        """
        bin_of = self._quantise(anomaly_map)
        if regions.shape != anomaly_map.shape:
            raise InputError(
                f"expected regions of the map's shape {anomaly_map.shape}, got {regions.shape}; "
                "resize one to the other"
            )
        area = _region_areas(regions)

        bin_of, region_of = bin_of.ravel(), regions.ravel()  # (H, W) -> (H * W,)
        is_good = region_of == 0
        self._good += np.bincount(bin_of[is_good], minlength=self._bins)
        bin_of, region_of = bin_of[~is_good], region_of[~is_good]
        self._defect += np.bincount(bin_of, minlength=self._bins)
        self._overlap += np.bincount(bin_of, weights=1.0 / area[region_of], minlength=self._bins)

    def auroc(self) -> float:
        """`auroc` over all pixels of all maps, within the bound above.

        Raises:
            InputError: No good pixel or no defect pixel has been added.
        """
        good, defect, _ = self._descending()
        return _auroc(good, defect)

    def average_precision(self) -> float:
        """`average_precision` over all pixels of all maps; errors as for `auroc`."""
        good, defect, _ = self._descending()
        return _average_precision(good, defect)

    def aupro(self, max_fpr: float = 0.3) -> float:
        """Area under per-region overlap against false-positive rate, up to max_fpr.

        Overlap is the share of a region above the threshold, averaged over all regions of all
        maps: a scratch of 30 pixels weighs as much as a stain of 30 000. The false-positive
        rate is over all good pixels, those of good parts included.

        Args:
            max_fpr: Where to stop, 0 < max_fpr <= 1; the curve is linear between thresholds.

        Returns:
            The area divided by max_fpr, in [0, 1]; a constant map gets max_fpr / 2.

        Raises:
            InputError: As for `auroc`, or max_fpr is out of range.

        Source: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021.
        """
        if not 0.0 < max_fpr <= 1.0:
            raise InputError(f"max_fpr must be in (0, 1], got {max_fpr:g}; 0.3 is customary")
        good, _, overlap = self._descending()
        rejected, overlap = np.cumsum(good), np.cumsum(overlap)
        # The last overlap is the number of regions, but for rounding; divided by itself it is 1.
        fpr = np.concatenate(([0.0], rejected / rejected[-1]))
        pro = np.concatenate(([0.0], overlap / overlap[-1]))
        return min(1.0, _area_up_to(max_fpr, fpr, pro) / max_fpr)  # rounding may pass 1 by an ulp

    def _quantise(self, anomaly_map: Scores) -> NDArray[np.intp]:
        """(H, W) float -> (H, W) bin of each pixel, 0..bins-1, in the order of the scores."""
        if anomaly_map.ndim != 2 or anomaly_map.size == 0:
            raise InputError(
                f"expected a map (H, W) with pixels, got shape {anomaly_map.shape}; add maps singly"
            )
        lowest, highest = float(anomaly_map.min()), float(anomaly_map.max())
        # Clamping would turn a range chosen too narrow into silent ties. NaN fails this too.
        if not (self._low <= lowest and highest <= self._high):
            raise InputError(
                f"expected scores in [{self._low:g}, {self._high:g}], got {lowest:g}..{highest:g}; "
                "build PixelCurves with a range that holds every map"
            )
        # In float64: bin 65535 overflows float16, and float32 moves its edges by 1/256 bin.
        position = anomaly_map.astype(np.float64)
        position -= self._low
        position *= self._bins / (self._high - self._low)
        return np.minimum(position.astype(np.intp), self._bins - 1)  # high itself: the last bin

    def _descending(self) -> tuple[Counts, Counts, NDArray[np.float64]]:
        """Good, defect and overlap histograms, the highest scores first."""
        _check_both_classes(int(self._good.sum()), int(self._defect.sum()), "pixels")
        return self._good[::-1], self._defect[::-1], self._overlap[::-1]


def _auroc(good: Counts, defect: Counts) -> float:
    """From the counts per distinct score, highest first; a good part loses to defects above it."""
    above = np.cumsum(defect) - 0.5 * defect
    return float(np.dot(good, above) / (float(good.sum()) * float(defect.sum())))


def _average_precision(good: Counts, defect: Counts) -> float:
    """From the counts per distinct score, highest first; empty bins are no thresholds."""
    catches = defect > 0
    caught, rejected = np.cumsum(defect)[catches], np.cumsum(good)[catches]
    return float(np.dot(defect[catches], caught / (caught + rejected)) / caught[-1])


def _area_up_to(limit: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Trapezoids under (x, y) from x = 0 to limit <= max(x); x ascends and may repeat."""
    end = int(np.searchsorted(x, limit, side="right"))  # x[end - 1] <= limit < x[end]
    y_limit = np.interp(limit, x[end - 1 : end + 1], y[end - 1 : end + 1])
    x, y = np.append(x[:end], limit), np.append(y[:end], y_limit)
    return float(np.dot(np.diff(x), y[1:] + y[:-1]) / 2)


def _count_per_score(scores: Scores, is_defect: NDArray[np.bool_]) -> tuple[Scores, Counts, Counts]:
    """Distinct scores, highest first, and how many good parts and defects have each."""
    scores, is_defect = _check_parts(scores, is_defect)
    if unusable := int(np.isnan(scores).sum()):
        raise InputError(
            f"expected scores that can be ordered, got {unusable} NaN of {len(scores)}; "
            "find the stage that could not answer, or leave those parts out and say so"
        )
    distinct, index = np.unique(scores, return_inverse=True)
    good = np.bincount(index[~is_defect], minlength=len(distinct))
    defect = np.bincount(index[is_defect], minlength=len(distinct))
    return distinct[::-1], good[::-1], defect[::-1]


def _check_parts(
    values: NDArray[Any], is_defect: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    values, is_defect = np.asarray(values), np.asarray(is_defect)
    if values.ndim != 1 or values.shape != is_defect.shape:
        raise InputError(
            "expected one value and one label per part, both of shape (N,), "
            f"got {values.shape} and {is_defect.shape}"
        )
    _check_flags("is_defect", is_defect)
    defects = int(is_defect.sum())
    _check_both_classes(len(is_defect) - defects, defects, "parts")
    return values, is_defect


def _check_flags(name: str, flags: NDArray[Any]) -> None:
    # 0 and 1 are refused with the rest: ~ on integers is not `not`, and -1 means good elsewhere.
    if flags.dtype != np.bool_:
        raise InputError(f"expected {name} as bool, got {flags.dtype}; compare to make it bool")


def _check_both_classes(good: int, defect: int, unit: str) -> None:
    if good == 0 or defect == 0:
        raise InputError(
            f"expected at least one good and one defect among the {unit}, "
            f"got {good} good and {defect} defect; add some of the kind that is missing"
        )


def _region_areas(regions: NDArray[np.integer[Any]]) -> Counts:
    """Pixels of each region, indexed by its number; [0] is the good pixels."""
    if regions.dtype.kind not in "iu":
        raise InputError(
            f"expected regions as integers, got {regions.dtype}; number the connected regions "
            "of the mask first"
        )
    first, last = int(regions.min()), int(regions.max())
    # A number beyond the pixel count cannot be gapless; bincount would allocate up to it.
    if first >= 0 and last <= regions.size:
        area = np.bincount(regions.ravel().astype(np.intp))
        if area[1:].all():
            return area
    raise InputError(
        f"expected regions numbered 0 (good), 1..R with none left out, got {first}..{last} "
        "with a gap or below 0; number the regions after resizing and cropping"
    )
