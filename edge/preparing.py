"""From a frame that has come to a question for the scorer: decoded, checked, resized."""

from __future__ import annotations

from collections.abc import Callable

from edge.decode import decode
from edge.outcome import Arrival
from edge.plausibility import Plausibility
from edge.scorer import PreparedFrame, Scorer, named_route


class Preparation:
    """What is done to every frame before the scorer has it; used in one thread."""

    def __init__(self, max_frame_bytes: int, scorer: Callable[[], Scorer]) -> None:
        """Do nothing yet.

        Args:
            max_frame_bytes: Most bytes that a decoded frame may take.
            scorer: Gives the one that the next frame is for.
        """
        self._max_frame_bytes = max_frame_bytes
        self._scorer = scorer
        self._plausible = Plausibility()

    def check_repetition(self, arrival: Arrival) -> None:
        """Look whether a live camera has sent these bytes just before.

        Of every frame and before anything else: one that is late is still the one before the next.

        Raises:
            NoScoreError: It has.
        """
        header, digest = arrival.frame.header, arrival.receipt.frame_sha256
        if digest is not None:
            self._plausible.check_digest(header.camera, header.live, digest)

    def prepared(self, arrival: Arrival) -> PreparedFrame:
        """Decode a frame, check it, and make it ready for the scorer.

        Raises:
            NoScoreError: Its product is unknown, it cannot be decoded, or it is no picture of a
                part.
        """
        header, stopwatch = arrival.frame.header, arrival.receipt.stopwatch
        # Once, so that a bundle that takes over meanwhile is not mixed with the one before.
        scorer = self._scorer()
        bundle = scorer.bundle
        route = named_route(header.product, bundle)  # before the work of decoding
        image = decode(arrival.frame, self._max_frame_bytes)
        stopwatch.lap("decode")
        self._plausible.check_image(header.camera, header.live, image, route, bundle.preprocessing)
        stopwatch.lap("check")
        question = scorer.question(image, header.product)
        stopwatch.lap("prepare")
        return PreparedFrame(arrival, question, (image.shape[0], image.shape[1]))
