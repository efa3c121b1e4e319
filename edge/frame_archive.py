"""Finds frames again by the SHA-256 of their pixels, in any folder of image files.

A frame that came as JPEG or PNG is such a file, byte for byte; one that came raw is the array in a
.npy file, as the label queue writes it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inspection.errors import ImageError
from inspection.images import image_format

ARRAY = ".npy"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pixels:
    """What a camera has sent beside its header.

    Attributes:
        encoding: As on the wire; an image that is neither JPEG nor PNG is called JPEG, and no
            decoder will take it.
        shape: Of raw pixels; else None.
        dtype: Of raw pixels.
        data: The bytes.
    """

    encoding: Literal["raw", "jpeg", "png"]
    shape: list[int] | None
    dtype: Literal["uint8", "uint16"]
    data: bytes

    @property
    def sha256(self) -> str:
        """As in the verdict's `frame_sha256`."""
        return hashlib.sha256(self.data).hexdigest()


def find_frames(folder: Path, wanted: Collection[str]) -> dict[str, Path]:
    """Find files by the digest of their pixels, hex; every file below the folder may be read.

    What cannot be read is passed over: it cannot be shown to be a frame.

    Raises:
        ImageError: The folder is not there.
    """
    if not folder.is_dir():
        raise ImageError(f"there is no folder {folder} to look for frames in")
    missing, found = set(wanted), {}
    for path in _files(folder):
        if not missing:
            break
        if (digest := _digest_of(path)) in missing:
            missing.remove(digest)
            found[digest] = path
    return found


def read_pixels(path: Path) -> Pixels:
    """Read a file as a camera would have sent it.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        if path.suffix == ARRAY:
            array = _array(path)
            dtype: Literal["uint8", "uint16"] = "uint8" if array.itemsize == 1 else "uint16"
            return Pixels("raw", list(array.shape), dtype, _little_endian(array).tobytes())
        data = path.read_bytes()
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"cannot read the frame {path}: {error}") from error
    return Pixels(image_format(data) or "jpeg", None, "uint8", data)


def _digest_of(path: Path) -> str | None:
    """SHA-256 of the pixels in a file of any size, hex; None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        if path.suffix == ARRAY:
            digest.update(_little_endian(_array(path)).data)
        else:
            with path.open("rb") as opened:
                while chunk := opened.read(CHUNK_BYTES):
                    digest.update(chunk)
    except (OSError, ValueError, EOFError):
        return None
    return digest.hexdigest()


def _array(path: Path) -> NDArray[Any]:
    # Mapped, so that a header cannot announce more than the file has.
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.name not in ("uint8", "uint16"):
        raise ValueError(f"expected samples of uint8 or uint16, got {array.dtype}")
    return array


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))
