"""Runs the resize that `inspection.preprocessing` plans, on the CPU with OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.preprocessing import Preprocessing, ResizePass, prepare


def prepare_frame(image: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
    """Bring an (H, W, 3) RGB frame to its canvas with OpenCV; may be the image itself."""
    return prepare(image, spec, _resize)


def _resize(image: NDArray[np.uint8], step: ResizePass) -> NDArray[np.uint8]:
    filter_ = cv2.INTER_AREA if step.shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (step.width_px, step.height_px), interpolation=filter_))
