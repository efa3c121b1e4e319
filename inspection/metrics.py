"""How well one score an image tells defects from good parts, exactly.

A higher score means more anomalous, and, as everywhere in `inspection`, a part is rejected when
its score is *above* the threshold. Maps are measured in `inspection.pixel_metrics`, and how far a
figure may be off in `inspection.bootstrap`; promises about parts not yet seen belong to the
calibration.
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
Weights = NDArray[np.number[Any]]


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
    return float(auroc_of_counts(good, defect))


def average_precision(scores: Scores, is_defect: NDArray[np.bool_]) -> float:
    """Precision averaged over the defects, each at the threshold that just catches it.

    The step-wise sum, without interpolation: what scikit-learn's `average_precision_score` gives.
    Arguments and errors are those of `auroc`; the result is in (0, 1].
    """
    _, good, defect = _count_per_score(scores, is_defect)
    return float(average_precision_of_counts(good, defect))


def roc_curve(
    scores: Scores, is_defect: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of good parts and of defects above every threshold there is, from none to all.

    Arguments and errors are those of `auroc`, which is the area below the straight lines between
    the points.

    Returns:
        (U + 1,) false-positive rates and (U + 1,) recalls for U distinct scores; both ascend from
        0 to 1.
    """
    _, good, defect = _count_per_score(scores, is_defect)
    rates = [np.concatenate(([0.0], np.cumsum(each) / each.sum())) for each in (good, defect)]
    return rates[0], rates[1]


def precision_recall_curve(
    scores: Scores, is_defect: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision at every threshold there is, from the highest score down.

    Arguments and errors are those of `auroc`. Between two points the curve is a step, and
    `average_precision` the area below: precision is that of the point with the higher recall.

    Returns:
        (U,) recalls, ascending to 1, and (U,) precisions in [0, 1], for U distinct scores.
    """
    _, good, defect = _count_per_score(scores, is_defect)
    caught, rejected = np.cumsum(defect), np.cumsum(good)
    return caught / caught[-1], caught / (caught + rejected)


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


def auroc_of_counts(good: Weights, defect: Weights) -> NDArray[np.float64]:
    """Compute `auroc` from how many parts have each distinct score, the highest score first.

    Args:
        good: (…, U) counts, or sums of weights; each row is measured by itself.
        defect: (…, U).

    Returns:
        (…,) in [0, 1]; NaN where a row has no good parts or no defects.
    """
    # A good part loses to every defect above it, and half to those beside it.
    above = np.cumsum(defect, axis=-1) - 0.5 * defect
    pairs = good.sum(axis=-1, dtype=np.float64) * defect.sum(axis=-1, dtype=np.float64)
    return _ratio((good * above).sum(axis=-1), pairs)


def average_precision_of_counts(good: Weights, defect: Weights) -> NDArray[np.float64]:
    """Compute `average_precision` from counts; otherwise as `auroc_of_counts`."""
    caught = np.cumsum(defect, axis=-1, dtype=np.float64)
    # Where nothing has been rejected yet there is no defect either, so that 0 adds nothing.
    precision = np.nan_to_num(_ratio(caught, caught + np.cumsum(good, axis=-1)))
    return _ratio((defect * precision).sum(axis=-1), caught[..., -1])


def _ratio(part: Weights, whole: Weights) -> NDArray[np.float64]:
    """Divide, and give NaN for 0 / 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.true_divide(part, whole))


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
    check_both_classes(len(is_defect) - defects, defects, "parts")
    return values, is_defect


def _check_flags(name: str, flags: NDArray[Any]) -> None:
    # 0 and 1 are refused with the rest: ~ on integers is not `not`, and -1 means good elsewhere.
    if flags.dtype != np.bool_:
        raise InputError(f"expected {name} as bool, got {flags.dtype}; compare to make it bool")


def check_both_classes(good: int, defect: int, unit: str) -> None:
    """Refuse what cannot be measured: parts or pixels of one kind only."""
    if good == 0 or defect == 0:
        raise InputError(
            f"expected at least one good and one defect among the {unit}, "
            f"got {good} good and {defect} defect; add some of the kind that is missing"
        )
