"""What a bundle is worth where nobody names the product: who is recognised, at which cost?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inspection.metrics import auroc
from trainer.results import CategoryResults, Recognised
from trainer.runtime import Runtime


def recognise(
    runtime: Runtime, prepared: NDArray[np.uint8], product: str, standardised: float
) -> Recognised | None:
    """Judge a prepared frame by the route of what it looks like; None in a bundle of one product.

    Args:
        runtime: Of the bundle.
        prepared: The frame, (S, S, 3) uint8.
        product: Which it is of.
        standardised: Its score by the route of that product, which is not computed again.
    """
    if runtime.bundle.route(None).category is not None:
        return None
    route = runtime.recognise(prepared)
    if route.category != product:
        raw = runtime.inspect(prepared[None], route).scores.astype(np.float64)
        standardised = float(route.calibration.standardise(raw)[0])
    return Recognised(route.category, standardised)


def recognised_scores(results: Sequence[CategoryResults]) -> NDArray[np.float64] | None:
    """(n,) standardised scores of all images where no product is named; None for one product."""
    found = [image.recognised for each in results for image in each.images]
    if not found or None in found:
        return None
    return np.array([each.score for each in found if each is not None], np.float64)


def unknown_product(results: Sequence[CategoryResults]) -> dict[str, Any]:
    """Give the part of a report that concerns unknown products; nothing for one product.

    Returns:
        `unknown_product`: shares of images that went to the right route, to that of another
        product, and to the route of no product, and the image AUROC of all products under one
        threshold; null without images of both kinds.
    """
    scores = recognised_scores(results)
    if scores is None:
        return {}
    went = [
        (image.recognised.product, each.name)
        for each in results
        for image in each.images
        if image.recognised is not None
    ]
    right = sum(product == name for product, name in went)
    nowhere = sum(product is None for product, _ in went)
    defects = np.concatenate([each.defects for each in results])
    both = bool(defects.any() and not defects.all())
    return {
        "unknown_product": {
            "routed_right": right / len(went),
            "routed_wrong": (len(went) - right - nowhere) / len(went),
            "routed_nowhere": nowhere / len(went),
            "image_auroc": auroc(scores, defects) if both else None,
        }
    }
