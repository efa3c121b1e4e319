"""Plays image files as a camera would have sent them: in order, at a rate, without drift."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.camera import Camera
from inspection.errors import ImageError, InputError
from inspection.images import image_format
from inspection.wire import Buffer

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

Encoding = Literal["as-is", "jpeg", "png", "raw"]

MAX_PART = 128
"""Longest `part` on the wire."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file to send.

    Attributes:
        path: Where it is.
        part: What the verdict will call it: its path below the folder that was named.
    """

    path: Path
    part: str


def find_images(paths: Sequence[Path]) -> list[ImageFile]:
    """List images: files as named, folders with everything below them, sorted; links are followed.

    Raises:
        InputError: A path is not there, or there is no image at all.
    """
    found: list[ImageFile] = []
    for path in paths:
        if path.is_dir():
            below = sorted(_walk(path), key=lambda file: file.relative_to(path).parts)
            found += [ImageFile(file, _part(file.relative_to(path))) for file in below]
        elif path.is_file():
            found.append(ImageFile(path, _part(Path(path.name))))
        else:
            raise InputError(f"{path} is neither a file nor a folder")
    if not found:
        raise InputError(
            f"no image in {', '.join(map(str, paths))}; looked for {', '.join(SUFFIXES)}"
        )
    return found


def play(
    camera: Camera,
    images: Sequence[ImageFile],
    rate_hz: float,
    *,
    count: int | None = None,
    loop: bool = False,
    encoding: Encoding = "as-is",
    deadline_ms: float | None = None,
) -> None:
    """Send images at a rate; `camera.sent` tells how far it came.

    Raises:
        ImageError: A file that must be decoded cannot be.
        CameraError: What was read is no frame.
    """
    files: Iterable[ImageFile] = itertools.cycle(images) if loop else images
    files = itertools.islice(files, count)
    for file, _ in zip(files, pace(rate_hz), strict=False):
        camera.send(load(file.path, encoding), part=file.part, deadline_ms=deadline_ms)


def pace(
    rate_hz: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Count from 0, each number at its time after the first: a late one does not delay the rest.

    Args:
        rate_hz: Numbers a second; 0 for as fast as they are taken.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.
    """
    start = clock()
    for number in itertools.count():
        if rate_hz > 0:
            early = start + number / rate_hz - clock()
            if early > 0:
                sleep(early)
        yield number


def load(path: Path, encoding: Encoding) -> NDArray[Any] | Buffer:
    """Read a file as it is to be sent: JPEG and PNG stay as they are, unless told otherwise.

    Raises:
        ImageError: It cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    if encoding == "as-is" and image_format(data):
        return data
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if decoded is None:
        raise ImageError(f"OpenCV cannot decode {path}; it is damaged or no image")
    image: NDArray[Any] = np.asarray(decoded)
    if encoding in ("as-is", "raw"):
        return _rgb(image)
    if encoding == "jpeg" and image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return bytes(cv2.imencode(f".{encoding}", image)[1])


def _rgb(image: NDArray[Any]) -> NDArray[Any]:
    """Turn OpenCV's BGR or BGRA into the wire's RGB or RGBA."""
    if image.ndim == 2:
        return image
    return image[:, :, [2, 1, 0, 3][: image.shape[2]]]


def _walk(folder: Path) -> Iterator[Path]:
    """Give images below a folder; a link to a folder above it is entered once, not for ever."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield Path(root, name)


def _part(path: Path) -> str:
    return path.as_posix()[-MAX_PART:]
