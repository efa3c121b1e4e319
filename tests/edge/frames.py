"""Frames half-way along the route, for tests of one stage."""

from __future__ import annotations

import time

from edge.health import Stopwatch
from edge.outcome import Arrival, PreparedFrame, Receipt
from inspection.bundle import Bundle
from inspection.messages import Frame, FrameHeader
from tests.bundles import good_frame


def prepared_frame(bundle: Bundle, shape: tuple[int, int] = (32, 32)) -> PreparedFrame:
    """A good bolt, ready for the scorer."""
    image = good_frame()
    header = FrameHeader(
        camera="c", session="s", seq=0, encoding="raw", shape=list(image.shape), product="bolt"
    )
    stopwatch = Stopwatch(time.monotonic_ns, time.monotonic_ns())
    receipt = Receipt(header.frame_name, header.product, stopwatch, time.time_ns())
    arrival = Arrival(receipt, Frame(header, memoryview(image.tobytes())))
    return PreparedFrame(arrival, bundle.route("bolt"), image, shape)
