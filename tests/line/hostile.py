"""What a broken or hostile camera may send, and what the station owes it: a reason, or a count."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import cv2
import msgpack

from inspection.verdicts import Reason
from tests.bundles import good_frame

GOOD: dict[str, Any] = {
    "v": 1,
    "camera": "hostile",
    "session": "s",
    "seq": 7,
    "encoding": "raw",
    "shape": [32, 32, 3],
    "dtype": "uint8",
    "product": "bolt",
    "live": False,
}
PIXELS = good_frame().tobytes()
JPEG = cv2.imencode(".jpg", good_frame("bolt", 1, 64))[1].tobytes()
PNG = cv2.imencode(".png", good_frame("bolt", 1, 64))[1].tobytes()


_NUMBERS = itertools.count(7)


def header(**changes: Any) -> bytes:
    """The good header under a number of its own, with changes; None takes a field out."""
    numbered = {**GOOD, "seq": next(_NUMBERS), **changes}
    changed = {key: value for key, value in numbered.items() if value is not None}
    return bytes(msgpack.packb(changed))


def encoded(kind: str, **changes: Any) -> bytes:
    """The good header for an encoded image."""
    return header(**{"encoding": kind, "shape": None, **changes})


def png_of(width_px: int, height_px: int) -> bytes:
    """Give a PNG whose header announces a size that its few bytes cannot hold."""
    ihdr = b"IHDR" + width_px.to_bytes(4, "big") + height_px.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    return PNG[:8] + b"\0\0\0\r" + ihdr + zlib.crc32(ihdr).to_bytes(4, "big") + PNG[33:]


def jpeg_of(width_px: int, height_px: int) -> bytes:
    """Give a JPEG whose header announces another size."""
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + height_px.to_bytes(2, "big") + width_px.to_bytes(2, "big") + JPEG[at + 4 :]


HEADER, PAYLOAD, IMAGE = Reason.BAD_HEADER, Reason.BAD_PAYLOAD, Reason.BAD_IMAGE
LARGE, PRODUCT = Reason.FRAME_TOO_LARGE, Reason.UNKNOWN_PRODUCT

# What is sent, and the reason of its UNKNOWN; None where not even a name can be read.
HOSTILE: dict[str, tuple[list[bytes], Reason | None]] = {
    "nothing": ([b""], None),
    "two empty parts": ([b"", b""], None),
    "header alone": ([header()], HEADER),
    "three parts": ([header(), PIXELS, b"more"], HEADER),
    "a thousand parts": ([header(), *[b"x"] * 999], HEADER),
    "noise for a header": ([bytes(range(256)), PIXELS], None),
    "parts swapped": ([PIXELS, header()], None),
    "header beyond its limit": ([header(extra="x" * 9000), PIXELS], None),
    "four billion entries announced": ([b"\xdf\xff\xff\xff\xff", PIXELS], None),
    "four billion in a field": ([b"\x81\xa1v\xdd\xff\xff\xff\xff", PIXELS], None),
    "nested 4000 deep": ([b"\x91" * 4000 + b"\xc0", PIXELS], None),
    "a list": ([msgpack.packb([1, 2, 3]), PIXELS], None),
    "text": ([b"\xa5hello", PIXELS], None),
    "keys that are numbers": ([msgpack.packb({1: 2}), PIXELS], None),
    "text that is no UTF-8": ([b"\x81\xa6camera\xa2\xff\xfe", PIXELS], None),
    "an extension type": ([header(camera=msgpack.ExtType(5, b"x")), PIXELS], None),
    "no camera": ([header(camera=None), PIXELS], None),
    "camera of no letters": ([header(camera=""), PIXELS], None),
    "camera of 200 letters": ([header(camera="c" * 200), PIXELS], None),
    "camera is a number": ([header(camera=5), PIXELS], None),
    "negative seq": ([header(seq=-1), PIXELS], None),
    "seq is a fraction": ([header(seq=1.5), PIXELS], None),
    "seq beyond 63 bits": ([header(seq=(1 << 64) - 1), PIXELS], None),
    "another version": ([header(v=2), PIXELS], HEADER),
    "version is true": ([header(v="1"), PIXELS], HEADER),
    "unheard-of encoding": ([header(encoding="tiff"), PIXELS], HEADER),
    "deadline is not a number": ([header(deadline_ms=float("nan")), PIXELS], HEADER),
    "deadline is infinite": ([header(deadline_ms=float("inf")), PIXELS], HEADER),
    "deadline before receipt": ([header(deadline_ms=-5.0), PIXELS], HEADER),
    "part is a list": ([header(part=["a"]), PIXELS], HEADER),
    "raw without shape": ([header(shape=None), PIXELS], HEADER),
    "shape of one side": ([header(shape=[3072]), PIXELS], HEADER),
    "shape of four": ([header(shape=[32, 32, 3, 1]), PIXELS], HEADER),
    "shape with a zero": ([header(shape=[0, 32, 3]), b""], HEADER),
    "shape with a negative": ([header(shape=[-32, -32, 3]), PIXELS], HEADER),
    "two channels": ([header(shape=[32, 48, 2]), PIXELS], HEADER),
    "side beyond its limit": ([header(shape=[1 << 40, 32, 3]), PIXELS], HEADER),
    "frame beyond its limit": ([header(shape=[32768, 32768, 4]), PIXELS], LARGE),
    "unheard-of dtype": ([header(dtype="float64"), PIXELS], HEADER),
    "dtype of another size": ([header(dtype="uint16"), PIXELS], PAYLOAD),
    "one pixel short": ([header(), PIXELS[:-3]], PAYLOAD),
    "one pixel long": ([header(), PIXELS + b"123"], PAYLOAD),
    "no pixels": ([header(), b""], PAYLOAD),
    "sides too short": ([header(shape=[4, 4, 3]), b"x" * 48], IMAGE),
    "empty jpeg": ([encoded("jpeg"), b""], PAYLOAD),
    "jpeg of noise": ([encoded("jpeg"), bytes(range(256)) * 8], IMAGE),
    "jpeg cut in half": ([encoded("jpeg"), JPEG[: len(JPEG) // 2]], IMAGE),
    "jpeg that is its start and end": ([encoded("jpeg"), b"\xff\xd8\xff\xd9"], IMAGE),
    "jpeg with no frame": ([encoded("jpeg"), b"\xff\xd8" + b"\xff" * 99 + b"\xff\xd9"], IMAGE),
    "jpeg bomb": ([encoded("jpeg"), jpeg_of(65535, 65535)], LARGE),
    "jpeg of other sides": ([encoded("jpeg", shape=[10, 10]), JPEG], PAYLOAD),
    "png under the name of jpeg": ([encoded("jpeg"), PNG], PAYLOAD),
    "png cut in half": ([encoded("png"), PNG[: len(PNG) // 2]], IMAGE),
    "png with a broken middle": ([encoded("png"), PNG[:60] + b"\0" * 40 + PNG[100:]], IMAGE),
    "png bomb": ([encoded("png"), png_of(30000, 30000)], LARGE),
    "png wider than allowed": ([encoded("png"), png_of(40000, 8)], LARGE),
    "png of no width": ([encoded("png"), png_of(0, 8)], IMAGE),
    "product we never learned": ([header(product="spoon"), PIXELS], PRODUCT),
    "product for every one": ([header(product="*"), PIXELS], PRODUCT),
}
