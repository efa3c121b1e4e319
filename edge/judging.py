"""From a raw score to an outcome. The decision itself is `inspection.verdicts`'."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edge.outcome import Finding, Outcome, PreparedFrame
from inspection.bundle import Bundle, Route
from inspection.verdicts import Verdict, find_regions, judge


def judge_frame(
    prepared: PreparedFrame, anomaly_map: NDArray[np.float32], score: float, bundle: Bundle
) -> Outcome:
    """Judge what the scorer gave, by the route of the frame's product.

    Args:
        prepared: The frame that was scored.
        anomaly_map: (Mh, Mw), raw.
        score: Raw image score; with a map that is not finite it counts as NaN.
        bundle: Whose scorer it was.
    """
    route = prepared.route
    if not np.isfinite(anomaly_map).all() or not math.isfinite(score):
        # Top-k over a NaN may step around it, and -inf would pass: neither says the part is good.
        score = math.nan
    judgement = judge(score, route.calibration, route.thresholds)
    with np.errstate(over="ignore"):
        standard = route.calibration.standardise(anomaly_map.astype(np.float64)).astype(np.float32)
    flagged = judgement.decision.verdict is not Verdict.PASS
    finding = Finding(
        judgement=judgement,
        thresholds=route.thresholds,
        regions=find_regions(standard, route.thresholds.review, prepared.shape) if flagged else (),
        anomaly_map=standard,
        frame=prepared.arrival.frame if flagged else None,
    )
    return Outcome(
        receipt=prepared.arrival.receipt,
        bundle_id=bundle.id,
        bank_id=bundle.bank_id,
        decision=judgement.decision,
        detail=_taken_for(route) if prepared.arrival.receipt.product is None else None,
        finding=finding,
    )


def _taken_for(route: Route) -> str:
    """Say in words which route judged a frame that named no product."""
    if route.category is None:
        return "no product was named, and it looks like none; judged by the rows of all"
    return f"no product was named; judged as {route.category!r}"
