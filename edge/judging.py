"""From a raw score to an outcome. The decision itself is `inspection.verdicts`'."""

from __future__ import annotations

import math

import numpy as np

from edge.outcome import Finding, Outcome
from edge.scorer import PreparedFrame, Scored
from inspection.bundle import Route
from inspection.verdicts import Verdict, find_regions, judge


def judge_frame(prepared: PreparedFrame, scored: Scored) -> Outcome:
    """Judge what the scorer gave, by the route and the bundle that it was scored by."""
    route, bundle, score = scored.route, scored.bundle, scored.score
    if not np.isfinite(scored.anomaly_map).all() or not math.isfinite(score):
        # Top-k over a NaN may step around it, and -inf would pass: neither says the part is good.
        score = math.nan
    judgement = judge(score, route.calibration, route.thresholds)
    with np.errstate(over="ignore"):
        standard = route.calibration.standardise(scored.anomaly_map.astype(np.float64)).astype(
            np.float32
        )
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
