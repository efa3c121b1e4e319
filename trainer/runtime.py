"""A bundle run by ONNX Runtime, as the station runs it: what is evaluated is what is shipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from inspection.bundle import FULL, TRUNK, Bundle, Feeds, Route
from inspection.views import recognised_patches


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the model says of a frame.

    Attributes:
        anomaly_map: (Mh, Mw) float32, in units of feature distance.
        score: Raw image score.
    """

    anomaly_map: NDArray[np.float32]
    score: float


class Runtime:
    """`full.onnx` of one bundle, on prepared frames: (8 · Mh, 8 · Mw, 3) uint8."""

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

    def inspect(self, prepared: NDArray[np.uint8], route: Route) -> Inspected:
        """Score a frame by a route of the bundle."""
        anomaly_map = self._over_views("anomaly_map", prepared, route)
        return Inspected(anomaly_map, self.bundle.image_score(anomaly_map, route))

    def patch_features(self, prepared: NDArray[np.uint8], route: Route) -> NDArray[np.float32]:
        """Give what the trunk sees in a frame, (Mh, Mw, D)."""
        return self._over_views("patch_features", prepared, route)

    def recognise(self, prepared: NDArray[np.uint8]) -> Route:
        """Choose the route of a frame whose product nobody knows."""
        route, spec = self.bundle.route(None), self.bundle.preprocessing
        if route.category is not None:
            return route  # the only product
        return self.bundle.recognise(recognised_patches(prepared, spec, self._trunk_features))

    def _trunk_features(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        (features,) = self._trunk.run(["patch_features"], {"frames": pixels[None]})
        return np.asarray(features).reshape(*self.bundle.preprocessing.grid, -1)

    def _over_views(
        self, output: str, prepared: NDArray[np.uint8], route: Route
    ) -> NDArray[np.float32]:
        grid = self.bundle.preprocessing.grid

        def run(feeds: Feeds) -> NDArray[np.float32]:
            (answer,) = self._session.run([output], feeds)
            # (1, Gh, Gw) stays a map, (1, P, D) becomes (Gh, Gw, D).
            return np.asarray(answer).reshape(grid if output == "anomaly_map" else (*grid, -1))

        return self.bundle.over_views(prepared, route, run)
