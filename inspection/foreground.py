"""Where a product is inspected: a patch that is left out scores 0, whatever it shows.

How a mask image becomes patches is `trainer.foreground`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from inspection.bank import safetensors_metadata
from inspection.errors import BundleError, InputError

Foreground = NDArray[np.uint8]
"""Two-dimensional uint8: 1 where a patch is inspected, 0 where it is not."""


def everywhere(grid: tuple[int, int]) -> Foreground:
    """Inspect every patch: what a product without a mask has."""
    return np.ones(grid, np.uint8)


def laid_over(foreground: Foreground, shape: tuple[int, int]) -> Foreground:
    """Stretch a foreground over a map of (Mh, Mw): a patch is inspected if any cell under it is.

    Frames of one product may differ in size, and so may their maps if frames are not stretched.
    """
    if foreground.shape == shape:
        return foreground
    for axis, patches in enumerate(shape):
        cells = foreground.shape[axis]
        spans = [(i * cells // patches, -(-(i + 1) * cells // patches)) for i in range(patches)]
        foreground = np.stack(
            [foreground.take(range(*span), axis).max(axis) for span in spans], axis
        )
    return foreground


def check_foreground(foreground: NDArray[np.generic]) -> None:
    """Refuse what is no foreground, or leaves nothing to inspect.

    Raises:
        InputError: Not (Gh, Gw) uint8, a value other than 0 and 1, or all 0.
    """
    if foreground.ndim != 2 or foreground.dtype != np.uint8:
        raise InputError(
            f"a foreground must be (Gh, Gw) uint8, got {foreground.shape} {foreground.dtype}"
        )
    if not np.isin(foreground, (0, 1)).all():
        raise InputError("a foreground holds 0 and 1 only; another value was found")
    if not foreground.any():
        raise InputError("a foreground must leave at least one patch to inspect; this one is all 0")


def foregrounds_to_bytes(foregrounds: Mapping[str, Foreground]) -> bytes:
    """Write the foreground of every product as safetensors; they are numbered in order."""
    arrays = {str(i): np.ascontiguousarray(each) for i, each in enumerate(foregrounds.values())}
    names = json.dumps({"products": list(foregrounds)})
    return bytes(safetensors.numpy.save(arrays, metadata={"names": names}))


def foregrounds_from_bytes(data: bytes) -> dict[str, Foreground]:
    """Read what `foregrounds_to_bytes` wrote. Arrays are read-only.

    Raises:
        BundleError: Not foregrounds: damaged, incomplete, or one that `check_foreground` refuses.
    """
    try:
        arrays = safetensors.numpy.load(data)
        products = json.loads(safetensors_metadata(data)["names"])["products"]
        if not all(isinstance(name, str) for name in products):
            raise ValueError(f"products must be texts, got {products}")
        if len(set(products)) < len(products) or len(products) != len(arrays):
            raise ValueError(f"{len(arrays)} foregrounds of the products {products}")
        foregrounds: dict[str, Foreground] = {
            product: arrays[str(i)] for i, product in enumerate(products)
        }
        for foreground in foregrounds.values():
            check_foreground(foreground)
            foreground.setflags(write=False)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"these are not foregrounds: {error}") from error
    return foregrounds
