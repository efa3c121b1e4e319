"""Pictures for a report: a part, and the part with its map, small and inside the page."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from inspection.bundle import Route
from inspection.verdicts import Region, find_regions
from trainer.dataset import read_image, read_mask
from trainer.pictures import overlay
from trainer.results import ImageResult

LONGEST_PX = 320
"""Longer side of a picture: about 20 kB each as JPEG, so that eighty of them stay below 3 MB."""

JPEG_QUALITY = 80

OUTLINE = (86, 180, 233)
"""Of a mask, RGB: a blue that no map has, with a black seam on every ground."""


def exhibit(result: ImageResult, route: Route) -> tuple[str, str]:
    """Give two pictures of a test image as data URIs: alone, and with map, regions and mask.

    Args:
        result: Of the image.
        route: That judged it.

    Raises:
        DatasetError: The image or its mask cannot be used.
    """
    image = read_image(result.sample.image)
    scale = min(1.0, LONGEST_PX / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    standardised = route.calibration.standardise(result.anomaly_map)
    regions: tuple[Region, ...] = ()
    if not result.passed:
        regions = find_regions(standardised, route.thresholds.review, small.shape)
    verdict = result.judgement.decision.verdict
    drawn = overlay(small, standardised, route.thresholds, regions, verdict)
    if result.sample.mask is not None:
        _outline(drawn, read_mask(result.sample.mask, result.shape))
    return _data_uri(small), _data_uri(drawn)


def _outline(drawn: NDArray[np.uint8], mask: NDArray[np.bool_]) -> None:
    """Draw the edge of a mask, (H, W) of the whole image, into a picture."""
    # By area, so that a defect thinner than a pixel of the picture is still there.
    shares = cv2.resize(mask.astype(np.float32), drawn.shape[1::-1], interpolation=cv2.INTER_AREA)
    inside = (shares > 0).astype(np.uint8)
    edges, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, edges, -1, (0, 0, 0), 4)
    cv2.drawContours(drawn, edges, -1, OUTLINE, 2)


def _data_uri(rgb: NDArray[np.uint8]) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    data = cv2.imencode(".jpg", rgb[:, :, ::-1], quality)[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
