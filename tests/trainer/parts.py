"""Drawn parts, good and damaged, and folders of them in both layouts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

HEIGHT_PX, WIDTH_PX = 80, 96
"""Neither square nor a multiple of the network's input."""

PRODUCTS = ("bolt", "washer")


def good_part(product: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(80, 96, 3) uint8 RGB: a part a little off its place on a noisy ground."""
    ground, colour = (
        ((90, 90, 100), (170, 160, 120)) if product == "bolt" else ((60,) * 3, (140,) * 3)
    )
    frame = np.full((HEIGHT_PX, WIDTH_PX, 3), ground, np.uint8)
    centre = (WIDTH_PX // 2 + int(rng.integers(-2, 3)), HEIGHT_PX // 2 + int(rng.integers(-2, 3)))
    cv2.circle(frame, centre, 28, colour, -1 if product == "bolt" else 9)
    noise = rng.normal(0, 4, frame.shape)
    return np.asarray(np.clip(frame + noise, 0, 255), np.uint8)


def damage(
    frame: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scratch a part so that nobody can miss it; gives the frame and its mask of 0 and 255."""
    x, y = int(rng.integers(24, 56)), int(rng.integers(24, 40))
    mask = np.zeros(frame.shape[:2], np.uint8)
    cv2.line(mask, (x, y), (x + 16, y + 14), 255, 5)
    damaged = frame.copy()
    damaged[mask > 0] = (255, 30, 30)
    return damaged, mask


def write_image(path: Path, rgb: NDArray[np.generic]) -> Path:
    """Write an image, RGB or grey, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rgb[:, :, ::-1] if rgb.ndim == 3 else rgb
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())
    return path


def write_category(
    folder: Path, product: str, *, train: int = 10, test: int = 6, seed: int = 0, masks: bool = True
) -> Path:
    """Write a category in the MVTec layout: `test` good parts and as many damaged ones."""
    rng = np.random.default_rng([seed, PRODUCTS.index(product)])
    for i in range(train):
        write_image(folder / "train" / "good" / f"{i:03}.png", good_part(product, rng))
    for i in range(test):
        write_image(folder / "test" / "good" / f"{i:03}.png", good_part(product, rng))
        damaged, mask = damage(good_part(product, rng), rng)
        write_image(folder / "test" / "scratch" / f"{i:03}.png", damaged)
        if masks:
            write_image(folder / "ground_truth" / "scratch" / f"{i:03}_mask.png", mask)
    return folder


def touch(folder: Path, *names: str) -> Path:
    """Make empty files, for what lists folders and opens nothing; returns the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder
