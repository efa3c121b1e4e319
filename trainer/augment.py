"""Copies of good pictures that lie or shine otherwise, for a product of which there are few.

What a copy may look like must be what a good part may look like. Copies are candidates of the
normal bank; thresholds rest on the pictures as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.errors import InputError

COPIES = 3
"""Of each picture, every one drawn anew."""

GAIN = (0.8, 1.25)
"""Contrast of a copy over that of its picture."""

OFFSET = (-16.0, 16.0)
"""What is added to the grey values of a copy, of 255."""

KINDS = ("rotate", "turn", "brightness")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """In what copies differ from their picture; in nothing: there are none.

    Attributes:
        kinds: `rotate` by any angle, or by a quarter `turn`; `brightness`: contrast and exposure.
    """

    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(KINDS):
            raise InputError(
                f"cannot augment by {', '.join(sorted(unknown))}; expected some of "
                f"{', '.join(KINDS)}, with commas between"
            )

    @property
    def copies(self) -> int:
        """How many there are of each picture."""
        return COPIES if self.kinds else 0

    @property
    def turns(self) -> bool:
        """Whether copies lie otherwise than their picture."""
        return not {"rotate", "turn"}.isdisjoint(self.kinds)

    def copy(self, frame: NDArray[np.uint8], seed: Sequence[int]) -> NDArray[np.uint8]:
        """Draw a copy of a prepared frame, (S, S, 3) uint8; one seed gives one copy."""
        rng = np.random.default_rng(seed)
        if "rotate" in self.kinds:
            frame = rotated(frame, rng.uniform(0, 360))
        if "turn" in self.kinds:
            frame = np.rot90(frame, int(rng.integers(1, 4)))
        if "brightness" in self.kinds:
            frame = brightened(frame, np.exp(rng.uniform(*np.log(GAIN))), rng.uniform(*OFFSET))
        return np.ascontiguousarray(frame)


AS_THEY_ARE = Augmentation()
"""No copies."""


def rotated(frame: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn a frame about its middle, counter-clockwise; it goes on beyond its edges as mirrored.

    Mirrored and not stretched: stripes look like nothing that a camera sees, and a selection of
    what is far from everything else would fill the bank with them.
    """
    height, width = frame.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return np.asarray(
        cv2.warpAffine(
            frame,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )


def brightened(frame: NDArray[np.uint8], gain: float, offset: float) -> NDArray[np.uint8]:
    """Stretch grey values about the middle of their range by `gain`, and add `offset`."""
    values = (frame.astype(np.float32) - 127.5) * gain + 127.5 + offset
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
