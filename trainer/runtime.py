"""A bundle run by ONNX Runtime, as the station runs it: what is evaluated is what is shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inspection.bundle import FULL, TRUNK, Bundle, Route


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the model says of a batch of prepared frames.

    Attributes:
        maps: (B, Gh, Gw) float32, in units of feature distance.
        scores: (B,) float32, raw image scores.
    """

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]


class Runtime:
    """`full.onnx` of one bundle."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session, self._trunk = (
            onnxruntime.InferenceSession(
                bundle.file(name), options, providers=["CPUExecutionProvider"]
            )
            for name in (FULL, TRUNK)
        )

    def inspect(self, frames: NDArray[np.uint8], route: Route) -> Inspected:
        """Score prepared frames of one product, (B, S, S, 3) uint8."""
        maps, scores = self._run(["anomaly_map", "image_score"], frames, route)
        return Inspected(maps, scores)

    def patch_features(self, frames: NDArray[np.uint8], route: Route) -> NDArray[np.float32]:
        """Give the trunk's features of prepared frames, (B, S, S, 3) uint8 → (B, P, D)."""
        return self._run(["patch_features"], frames, route)[0]

    def recognise(self, frame: NDArray[np.uint8]) -> Route:
        """Choose the route of a prepared frame, (S, S, 3) uint8, whose product nobody knows."""
        route = self.bundle.route(None)
        if route.category is not None:
            return route  # the only product
        (features,) = self._trunk.run(["patch_features"], {"frames": frame[None]})
        return self.bundle.recognise(features[0])

    def _run(
        self, outputs: Sequence[str], frames: NDArray[np.uint8], route: Route
    ) -> list[NDArray[np.float32]]:
        feeds = {"frames": frames, **self.bundle.bank_feeds(route)}
        found: list[NDArray[np.float32]] = self._session.run(list(outputs), feeds)
        return found
