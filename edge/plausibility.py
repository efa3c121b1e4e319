"""Whether a frame can be true: what each camera sent last, and what the bundle says of good frames.

A camera that hangs, a lamp that fails and a lens that slips all give images that a scorer would
judge. The measures and the limits are `inspection.frame_checks`'; this module remembers.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.outcome import NoScoreError
from inspection.bundle import Route
from inspection.frame_checks import FrameMeasures, check, measure
from inspection.preprocessing import Preprocessing
from inspection.verdicts import Reason

MOST_CAMERAS = 256
"""How many are remembered, 2 KB each: whoever invents camera names takes no more memory."""


@dataclass(slots=True)
class _Last:
    """Of a camera's last frame.

    Attributes:
        digest: SHA-256 of its pixel part as it came, hex.
        measures: Of the last one that was decoded.
    """

    digest: str = ""
    measures: FrameMeasures | None = None


class Plausibility:
    """Compares frames with limits, and with the frame before of the same camera.

    Every frame counts as the next one's frame before, whatever its product and its verdict. It is
    told of them in the order in which they came, each name once: a frame that is delivered again
    is no repeated one. Of more than `most_cameras` the one that sent nothing for longest is
    forgotten, so that its next frame has none before it. One thread asks.
    """

    def __init__(self, most_cameras: int = MOST_CAMERAS) -> None:
        self._most_cameras = most_cameras
        self._last: OrderedDict[str, _Last] = OrderedDict()

    def check_digest(self, camera: str, live: bool, digest: str) -> None:
        """Compare a frame's bytes with those before, which takes no decoding.

        Args:
            camera: Who sent it.
            live: Whether its pixels are new, as the camera said: a file may be played twice.
            digest: SHA-256 of the pixel part, hex.

        Raises:
            NoScoreError: A live camera sent the same bytes twice in a row.
        """
        last = self._last_of(camera)
        before, last.digest = last.digest, digest
        if live and digest == before:
            raise NoScoreError(
                Reason.REPEATED,
                f"its bytes are those of the frame before, SHA-256 {digest[:12]}…; look at the "
                "camera, or send live = false if they are meant",
            )

    def check_image(
        self,
        camera: str,
        live: bool,
        image: NDArray[np.uint8],
        route: Route,
        spec: Preprocessing,
    ) -> None:
        """Measure a decoded frame and compare it with the limits of its route, if it has any.

        Args:
            camera: Who sent it.
            live: As in `check_digest`; others are not compared with the frame before.
            image: (H, W, 3) uint8 RGB; nothing of it is kept.
            route: By which it is to be judged.
            spec: The bundle's preprocessing.

        Raises:
            NoScoreError: It is too dark, overexposed, blurred or frozen; the text has the measure
                and the limit.
        """
        if route.limits is None:
            return
        measures, last = measure(image, spec), self._last_of(camera)
        before, last.measures = last.measures, measures
        found = check(measures, before if live else None, route.limits)
        if found is not None:
            raise NoScoreError(*found)

    def _last_of(self, camera: str) -> _Last:
        last = self._last.setdefault(camera, _Last())
        self._last.move_to_end(camera)
        if len(self._last) > self._most_cameras:
            self._last.popitem(last=False)
        return last
