"""Runs the resize that `inspection.preprocessing` plans, on the CPU with OpenCV."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from math import gcd

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.preprocessing import Preprocessing, ResizePass, prepare

LARGE_PX = 1 << 19
"""Smaller frames take less than 1 ms: they are not worth a second thread."""


class Resizer:
    """Brings frames to their canvas, large ones with the help of a thread of its own.

    The canvas is `prepare_frame`'s, bit for bit, and so the one that the bundle was made with. The
    thread ends with this object. Any thread may ask.
    """

    def __init__(self) -> None:
        self._helper = ThreadPoolExecutor(1, "resize")
        # Begun here, because a thread stays as nice as the one that begins it.
        self._helper.submit(int).result()

    def canvas_of(self, image: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
        """Bring an (H, W, 3) RGB frame to its canvas; may be the image itself."""
        if not is_repeated(image):
            return prepare(image, spec, self._resize)
        return repeated(prepare(image[:, :, 0], spec, self._resize))

    def _resize(self, image: NDArray[np.uint8], step: ResizePass) -> NDArray[np.uint8]:
        rows, source_rows = _halves(image.shape[0], step)
        if image.shape[0] * image.shape[1] < LARGE_PX or not rows:
            return _resize(image, step)
        made = np.empty((step.height_px, step.width_px, *image.shape[2:]), np.uint8)
        upper = self._helper.submit(_shrink, image[:source_rows], made[:rows])
        _shrink(image[source_rows:], made[rows:])
        upper.result()
        return made


def prepare_frame(image: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
    """Bring an (H, W, 3) RGB frame to its canvas with OpenCV; may be the image itself."""
    return prepare(image, spec, _resize)


def is_repeated(image: NDArray[np.uint8]) -> bool:
    """Whether the channels of an (H, W, 3) frame are three views of one, as `decode` leaves it."""
    return image.strides[2] == 0


def repeated(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give an (H, W) channel as a contiguous (H, W, 3) frame; numpy would take 7 ms for 1080p."""
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)


def _resize(image: NDArray[np.uint8], step: ResizePass) -> NDArray[np.uint8]:
    filter_ = cv2.INTER_AREA if step.shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (step.width_px, step.height_px), interpolation=filter_))


def _shrink(image: NDArray[np.uint8], made: NDArray[np.uint8]) -> None:
    """Fill `made`, whole rows of a contiguous array."""
    cv2.resize(image, made.shape[1::-1], dst=made, interpolation=cv2.INTER_AREA)


def _halves(height_px: int, step: ResizePass) -> tuple[int, int]:
    """Say where a pass can be cut without any pixel changing.

    A row of the result has to begin where a row of the image does, and the weights of the lower
    half have to be the same floats as without the cut: OpenCV multiplies the row's number with the
    ratio of heights, which is exact for a ratio of few binary digits.

    Returns:
        Rows of the result in the upper half, and rows of the image that they are made of; 0, 0 if
        the pass cannot be cut.
    """
    whole = gcd(height_px, step.height_px)
    rows = step.height_px // whole
    ratio = 1.0 / (step.height_px / height_px)  # OpenCV's way
    exact = rows & (rows - 1) == 0 and ratio * rows == height_px // whole
    if not step.shrinks or whole < 2 or not exact:
        return 0, 0
    return whole // 2 * rows, whole // 2 * (height_px // whole)
