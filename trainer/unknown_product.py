"""What a bundle is worth where nobody names the product: who is recognised, at which cost?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.metrics import auroc
from trainer.runtime import Runtime


class UnknownProduct:
    """Collects test images, each routed by what it looks like; nothing to do for one product."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._wanted = runtime.bundle.route(None).category is None
        self._scores: list[float] = []
        self._right = self._none = 0

    def add(self, prepared: NDArray[np.uint8], product: str, standardised: float) -> None:
        """Take a prepared frame, (8 · Mh, 8 · Mw, 3) uint8.

        Args:
            prepared: The frame.
            product: Which it is of.
            standardised: Its score by the route of that product, which is not computed again.
        """
        if not self._wanted:
            return
        route = self._runtime.recognise(prepared)
        if route.category == product:
            self._right += 1
        else:
            self._none += route.category is None
            raw = self._runtime.inspect(prepared, route).score
            standardised = route.calibration.standardise(raw)
        self._scores.append(standardised)

    def report(self, defects: NDArray[np.bool_]) -> dict[str, Any]:
        """Give the part of a report that concerns unknown products; nothing for one product.

        Args:
            defects: (n,), of all images in the order in which they were added.

        Returns:
            `unknown_product`: shares of images that went to the right route, to that of another
            product, and to the route of no product, and the image AUROC of all products under one
            threshold; null without images of both kinds.
        """
        if not self._wanted or not self._scores:
            return {}
        count = len(self._scores)
        both = bool(defects.any() and not defects.all())
        return {
            "unknown_product": {
                "routed_right": self._right / count,
                "routed_wrong": (count - self._right - self._none) / count,
                "routed_nowhere": self._none / count,
                "image_auroc": auroc(np.array(self._scores), defects) if both else None,
            }
        }
