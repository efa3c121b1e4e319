"""Learns the router: what good images of a product look like as a whole, and how far they reach."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from inspection.routing import Router, descriptor
from inspection.views import recognised_by, views_of
from trainer.calibrate import FOLDS, folds_of
from trainer.features import FeatureStore

PROTOTYPES = 8
"""Prototypes of each product, at most; 1, 4, 8 and 16 routed all our test images rightly."""

ROUNDS = 25
"""Most rounds of k-means; it usually settles in fewer than 10."""

REACH_FACTOR = 1.5
"""Reach over the distance of the farthest good image that the prototypes had not seen. Of our 538
test images nobody's were 23 with 1, 2 with 1.5, none with 2; of foreign ones, each category being
left out in turn, taken in were none, 9, and 70."""


def learn_router(stores: Mapping[str, FeatureStore], rng: np.random.Generator) -> Router:
    """Choose prototypes of every category, and measure reaches on images held out by folds.

    Args:
        stores: Patch features of good training images, by category.
        rng: Draws where k-means begins.
    """
    prototypes, product, reach = [], [], []
    for number, store in enumerate(stores.values()):
        described = np.stack([_described(store, i) for i in range(len(store.images))])
        centres = k_means(described, PROTOTYPES, rng)
        prototypes.append(centres)
        product.append(np.full(len(centres), number, np.int32))
        reach.append(REACH_FACTOR * _farthest_unseen(described, rng))
    return Router(
        products=tuple(stores),
        prototypes=np.concatenate(prototypes).astype(np.float32),
        product=np.concatenate(product),
        reach=np.array(reach, np.float32),
    )


def _described(store: FeatureStore, image: int) -> NDArray[np.float64]:
    """Describe an image as a frame is described on the line, (E,)."""
    shape = store.shapes[image]
    patches = store.patches_of(image).reshape(*shape, -1)
    seen = [
        patches[view.rows, view.columns].reshape(-1, patches.shape[-1])
        for view in recognised_by(views_of(shape, store.spec))
    ]
    return descriptor(np.concatenate(seen))


def k_means(
    points: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Find centres by Lloyd's rounds from points drawn at random: (n, E) → (min(count, n), E).

    A centre that no point is nearest to stays where it is.

    Source: Lloyd, IEEE Transactions on Information Theory 28, 1982.
    """
    drawn = rng.choice(len(points), min(count, len(points)), replace=False)
    centres: NDArray[np.float64] = points[drawn].copy()
    settled = np.full(len(points), -1)
    for _ in range(ROUNDS):
        nearest = _gaps(points, centres).argmin(axis=1)
        if np.array_equal(nearest, settled):
            break
        settled = nearest
        for number in np.unique(nearest):
            centres[number] = points[nearest == number].mean(axis=0)
    return centres


def _farthest_unseen(described: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Distance of the good image that lies farthest from the prototypes of the other folds."""
    folds = folds_of(len(described))
    return max(
        float(
            _gaps(described[folds == fold], k_means(described[folds != fold], PROTOTYPES, rng))
            .min(axis=1)
            .max()
        )
        for fold in range(FOLDS)
    )


def _gaps(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances, (n, E) and (R, E) → (n, R); one centre at a time, or it would take n·R·E."""
    return np.stack([np.linalg.norm(points - centre, axis=1) for centre in centres], axis=1)
