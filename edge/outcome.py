"""What travels along the route: a receipt is owed one verdict, and an outcome pays it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.admission import Origin
from edge.health import Stopwatch
from inspection.bundle import Bundle
from inspection.errors import DualbankError
from inspection.messages import Frame, RegionEntry, VerdictMessage
from inspection.thresholds import Thresholds
from inspection.verdicts import Decision, Judgement, Reason, Region, Verdict
from inspection.wire import FrameName


class NoScoreError(DualbankError):
    """A frame cannot be scored; the reason and the text go into its verdict, UNKNOWN."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Receipt:
    """A named frame has arrived, and is owed exactly one recorded and published verdict.

    Attributes:
        name: What the verdict repeats.
        product: As the camera said.
        stopwatch: Runs since receipt.
        received_unix_ns: Wall clock, for the ledger and never for a latency.
        frame_sha256: Of the pixel part as it came, hex; None if it had none.
        origin: Where it came from.
    """

    name: FrameName
    product: str | None
    stopwatch: Stopwatch
    received_unix_ns: int
    frame_sha256: str | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Arrival:
    """A frame whose header has been checked; its pixels are a view of the message it came in.

    Attributes:
        receipt: What is owed for it.
        frame: Header and pixels.
        deadline_ms: Counted from receipt; None if there is none.
    """

    receipt: Receipt
    frame: Frame
    deadline_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What the scorer saw, judged.

    Attributes:
        judgement: Score and decision.
        thresholds: What the score was compared with.
        regions: Where, if anywhere.
        anomaly_map: (Mh, Mw) float32, standardised.
        frame: For the label queue; None on PASS, whose pixels nobody asks for again.
    """

    judgement: Judgement
    thresholds: Thresholds
    regions: tuple[Region, ...]
    anomaly_map: NDArray[np.float32]
    frame: Frame | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be recorded and published of one receipt.

    Attributes:
        receipt: Which frame.
        bundle_id: The bundle that judged, or that was loaded when nothing could.
        bank_id: Its evidence.
        decision: Verdict and reason.
        detail: Why there is no score, or what the frame was taken for, in words.
        finding: None exactly when the verdict is UNKNOWN.
    """

    receipt: Receipt
    bundle_id: str
    bank_id: str
    decision: Decision
    detail: str | None = None
    finding: Finding | None = None


def unknown(receipt: Receipt, bundle: Bundle, reason: Reason, detail: str) -> Outcome:
    """Answer a frame that was not scored."""
    decision = Decision(Verdict.UNKNOWN, reason)
    return Outcome(receipt, bundle.id, bundle.bank_id, decision, detail)


def message_of(outcome: Outcome, station_seq: int) -> VerdictMessage:
    """Write an outcome as it goes over the wire, with its latencies so far."""
    receipt, finding = outcome.receipt, outcome.finding
    return VerdictMessage(
        camera=receipt.name.camera,
        session=receipt.name.session,
        seq=receipt.name.seq,
        part=receipt.name.part,
        product=receipt.product,
        verdict=outcome.decision.verdict,
        reason=outcome.decision.reason,
        detail=outcome.detail,
        score=finding.judgement.score if finding else None,
        p_value=finding.judgement.p_value if finding else None,
        threshold=finding.thresholds.review if finding else None,
        reject_threshold=finding.thresholds.reject if finding else None,
        regions=tuple(_entry(region) for region in finding.regions) if finding else (),
        bundle=outcome.bundle_id,
        bank=outcome.bank_id,
        frame_sha256=receipt.frame_sha256,
        station_seq=station_seq,
        latency_ms=receipt.stopwatch.latency_ms(),
    )


def _entry(region: Region) -> RegionEntry:
    return RegionEntry(
        x_px=region.x_px,
        y_px=region.y_px,
        width_px=region.width_px,
        height_px=region.height_px,
        score=region.score,
    )
