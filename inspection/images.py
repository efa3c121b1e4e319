"""What an encoded image claims to be, read from its header: nothing is decoded or allocated here.

A decoder believes what it is given. OpenCV allocates what a 100-byte header or a chunk announces,
and fills the missing half of a truncated JPEG with grey, which would then be scored. Both are
refused first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from inspection.errors import ImageError
from inspection.wire import Buffer

JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
JPEG_END = b"\xff\xd9"

# EXIF, ICC and comments take a few dozen; without a bound, 64 MiB of empty ones cost seconds.
MAX_JPEG_SEGMENTS = 1024

MAX_JPEG_SCANS = 64
"""A progressive JPEG has about 10. Each costs the decoder a walk over the whole image, and the
sender 17 bytes: without a bound, 64 MiB of them hold it for hours (measured: 2 ms each at 5 MP)."""

MAX_PNG_CHUNKS = 65_536
"""64 MiB in chunks of 8 KiB, as libpng writes them, are 8,192."""

_FRAME_BYTES = 10
"""Of a frame header, from its marker to the number of its components."""

_FILL = 0xFF
_START_OF_SCAN = 0xDA
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})

# Inside a scan 0xFF is followed by 0x00 or a restart; before a marker it may be repeated.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")

# Bit depths that each PNG colour type allows.
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header of a whole JPEG or PNG says.

    Attributes:
        format: As in the wire field `encoding`.
        height_px: At least 1.
        width_px: At least 1.
        most_channels: No decoder gives more; a PNG may gain alpha from a palette.
        bytes_per_sample: 1, or 2 for a PNG of 16 bits.
    """

    format: Literal["jpeg", "png"]
    height_px: int
    width_px: int
    most_channels: int
    bytes_per_sample: int

    @property
    def decoded_bytes(self) -> int:
        """Most bytes that the decoded image takes."""
        return self.height_px * self.width_px * self.most_channels * self.bytes_per_sample


def probe(data: Buffer) -> ImageInfo:
    """Read the header of a JPEG or PNG and check that its end is there.

    Raises:
        ImageError: Neither JPEG nor PNG, a header that makes no sense, or truncated.
    """
    view = memoryview(data).cast("B")
    kind = image_format(view)
    if kind is None:
        raise ImageError(f"expected a JPEG or PNG, got {len(view)} bytes of something else")
    info, header_end = _jpeg_info(view) if kind == "jpeg" else _png_info(view)
    if kind == "png":
        _check_chunks(view)
        return info
    _check_scans(view, header_end - _FRAME_BYTES)
    # The end is nearly always where one looks first. Behind it some cameras put notes of their own.
    if view[-len(JPEG_END) :] != JPEG_END and not re.search(JPEG_END, view[header_end:]):
        raise _truncated("JPEG", view)
    return info


def image_format(data: Buffer) -> Literal["jpeg", "png"] | None:
    """Tell by the first bytes what an image is; None for anything else."""
    if bytes(data[: len(JPEG_START)]) == JPEG_START:
        return "jpeg"
    if bytes(data[: len(PNG_START)]) == PNG_START:
        return "png"
    return None


def _jpeg_info(view: memoryview) -> tuple[ImageInfo, int]:
    """Walk the segments up to the frame header, SOFn; also gives the place behind it.

    Source: ITU-T T.81, annex B.
    """
    at = len(JPEG_START)
    for _ in range(MAX_JPEG_SEGMENTS):
        if at + 4 > len(view) or view[at] != 0xFF:
            raise ImageError(f"the JPEG has no marker at byte {at}; it is damaged")
        marker = view[at + 1]
        if marker == _FILL:
            at += 1
            continue
        if marker in _BARE_MARKERS:
            at += 2
            continue
        if marker in _FRAME_MARKERS:
            return _jpeg_frame(view[at + 4 : at + 10]), at + _FRAME_BYTES
        if marker == _START_OF_SCAN:
            break
        at += 2 + max(2, int.from_bytes(view[at + 2 : at + 4], "big"))
    raise ImageError(f"the JPEG has no frame header among its first {MAX_JPEG_SEGMENTS} segments")


def _check_scans(view: memoryview, at: int) -> None:
    """Walk from a segment to the end of the image, as the decoder will, and count scans."""
    scans = 0
    for _ in range(MAX_JPEG_SEGMENTS):
        found = _MARKER.search(view, at)
        if found is None or view[found.end() - 1] == JPEG_END[1]:
            return
        at = found.end()
        marker = view[at - 1]
        scans += marker == _START_OF_SCAN
        if scans > MAX_JPEG_SCANS:
            raise ImageError(f"the JPEG has more than {MAX_JPEG_SCANS} scans; send it with fewer")
        if marker not in _BARE_MARKERS:
            at += max(2, int.from_bytes(view[at : at + 2], "big"))
    raise ImageError(f"the JPEG has more than {MAX_JPEG_SEGMENTS} segments after its frame header")


def _jpeg_frame(view: memoryview) -> ImageInfo:
    """Read precision, height, width and components, the six bytes after SOFn and its length."""
    if len(view) < 6:
        raise ImageError("the JPEG ends inside its frame header")
    precision, components = view[0], view[5]
    height, width = int.from_bytes(view[1:3], "big"), int.from_bytes(view[3:5], "big")
    if not height or not width:
        raise ImageError(f"the JPEG says it is {width} x {height} px")
    if precision != 8:
        raise ImageError(f"expected a JPEG of 8 bits, got {precision}; send PNG or raw pixels")
    if components not in (1, 3, 4):
        raise ImageError(f"expected a JPEG of 1, 3 or 4 components, got {components}")
    return ImageInfo("jpeg", height, width, components, 1)


def _check_chunks(view: memoryview) -> None:
    """Walk the chunks to the last: none may announce more than there is.

    OpenCV allocates, and fills with zeros, what a chunk announces: 2 GB for a file of 3 kB.
    """
    at = len(PNG_START)
    for _ in range(MAX_PNG_CHUNKS):
        kind = bytes(view[at + 4 : at + 8])
        at += 12 + int.from_bytes(view[at : at + 4], "big")
        if at > len(view):
            raise _truncated("PNG", view)
        if kind == b"IEND":
            return
    raise ImageError(f"the PNG has more than {MAX_PNG_CHUNKS} chunks")


def _truncated(kind: str, view: memoryview) -> ImageError:
    return ImageError(
        f"the {kind} is truncated: its end marker is missing after {len(view)} bytes; "
        "send the file whole"
    )


def _png_info(view: memoryview) -> tuple[ImageInfo, int]:
    """Read IHDR, which the format wants first; also gives the place behind it."""
    if bytes(view[8:16]) != b"\x00\x00\x00\rIHDR" or len(view) < 33:
        raise ImageError("the PNG does not begin with its header, IHDR; it is damaged")
    width, height = int.from_bytes(view[16:20], "big"), int.from_bytes(view[20:24], "big")
    depth, colour = view[24], view[25]
    if not 0 < height < 1 << 31 or not 0 < width < 1 << 31:
        raise ImageError(f"the PNG says it is {width} x {height} px")
    if depth not in _PNG_DEPTHS.get(colour, ()):
        raise ImageError(f"the PNG says colour type {colour} with {depth} bits, which there is not")
    return ImageInfo("png", height, width, 4, 2 if depth == 16 else 1), 33
