"""Frames half-way along the route, for tests of one stage."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from edge.admission import Origin
from edge.health import Stopwatch
from edge.outcome import Arrival, Receipt
from edge.scorer import PreparedFrame, Question, Scored
from inspection.bundle import Bundle
from inspection.messages import Frame, FrameHeader
from tests.bundles import good_frame


def prepared_frame(shape: tuple[int, int] = (32, 32)) -> PreparedFrame:
    """A good bolt, ready for the scorer."""
    image = good_frame()
    header = FrameHeader(
        camera="c", session="s", seq=0, encoding="raw", shape=list(image.shape), product="bolt"
    )
    stopwatch = Stopwatch(time.monotonic_ns, time.monotonic_ns())
    receipt = Receipt(
        header.frame_name, header.product, stopwatch, time.time_ns(), None, Origin("frames")
    )
    arrival = Arrival(receipt, Frame(header, memoryview(image.tobytes())))
    return PreparedFrame(arrival, Question(image, True, "bolt"), shape)


def scored_as_bolt(bundle: Bundle, anomaly_map: NDArray[np.float32], score: float) -> Scored:
    """What a scorer might have said of it."""
    return Scored(anomaly_map, score, bundle.route("bolt"), bundle)
