"""Messages that a broken or hostile peer may send, made from valid ones by a seeded generator.

What the station owes each is known beforehand: `named` reads the name of a frame without any of our
own code, and only pixels of a good part may pass. Pixels of good parts are sent whole or with their
end missing, never damaged elsewhere: damage may leave a good part good.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgpack
import numpy as np

from tests.bundles import bad_frame, good_frame
from tests.line.hostile import HOSTILE, PNG, jpeg_of, png_of

GOOD_SEEDS = (1, 2, 3, 4, 6, 7, 8, 9)
"""Of parts that pass in every encoding; the fifth is one for a person."""

NAMES = (
    "../../etc/passwd",
    "a/b",
    "nul\0inside",
    "line\nbreak",
    'quote"back\\slash',
    "{}%s%n",
    "\u202eright to left",
    "\U0001f4f7" * 128,
    " ",
    "'; DROP TABLE verdicts; --",
)
"""Of cameras: text that a path, a query, a log or a page might take for more than text."""

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1.5, 1 << 63, (1 << 64) - 1, -(1 << 63), float("nan")),
    *(float("inf"), "", "x", "x" * 129, "x" * 5000, b"", b"\xff\xfe", [], {}, [[]], {"": None}),
    *(list(range(300)), {str(n): n for n in range(300)}, msgpack.ExtType(5, b"x")),
    msgpack.Timestamp(0, 0),
)
"""Values for a field that wants another."""


def _encoded(kind: str, image: np.ndarray[Any, Any], *options: int) -> bytes:
    return bytes(cv2.imencode(kind, image[:, :, ::-1], options)[1])


def _files(images: list[np.ndarray[Any, Any]]) -> list[tuple[str, bytes]]:
    """Encoding and pixels of each, in every encoding."""
    return [
        *(("raw", image.tobytes()) for image in images),
        *(("png", _encoded(".png", image)) for image in images),
        *(("jpeg", _encoded(".jpg", image)) for image in images),
    ]


GOOD_FILES = _files([good_frame("bolt", seed) for seed in GOOD_SEEDS])
BAD_FILES = _files([bad_frame("bolt", seed) for seed in GOOD_SEEDS])


def digest(pixels: bytes) -> str:
    """As a verdict names the pixels that it is of."""
    return hashlib.sha256(pixels).hexdigest()


def _bomb(side_px: int) -> bytes:
    """A PNG whose few bytes hold a large image of one colour."""
    return _encoded(
        ".png", np.zeros((side_px, side_px, 3), np.uint8), cv2.IMWRITE_PNG_COMPRESSION, 9
    )


def many_scans(side_px: int, scans: int) -> bytes:
    """A progressive JPEG that goes over its image again and again, for 17 bytes each time."""
    image = np.full((side_px, side_px, 3), 105, np.uint8)
    whole = _encoded(".jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * scans + b"\xff\xd9"


def announcing_chunk(size: int) -> bytes:
    """A PNG whose pixels are announced to take more than they do."""
    at = PNG.index(b"IDAT") - 4
    return PNG[:at] + struct.pack(">I", size) + PNG[at + 4 :]


BOMBS = [
    ("png", _bomb(1500)),  # within the limit of the run: it is decoded
    ("png", _bomb(4000)),
    ("png", png_of(30000, 30000)),
    ("png", png_of(1 << 30, 1)),
    ("jpeg", jpeg_of(65535, 65535)),
    ("jpeg", jpeg_of(2000, 2000)),
    ("jpeg", many_scans(1500, 5000)),
    *(("png", announcing_chunk(size)) for size in (1 << 30, 0x7FFFFFFF, 0xFFFFFFFF)),
]


@dataclass(slots=True)
class Mutator:
    """Makes messages; the same seed makes the same.

    Attributes:
        camera: Of frames that keep their name.
        may_pass: Digests of pixel parts that decode to exactly those of a good frame.
    """

    chance: random.Random
    camera: str
    may_pass: set[str] = field(default_factory=lambda: {digest(file) for _, file in GOOD_FILES})
    _seq: int = 0

    def header(self, encoding: str, **changes: Any) -> dict[str, Any]:
        """A valid header under a number of its own."""
        self._seq += 1
        header: dict[str, Any] = {
            "v": 1,
            "camera": self.camera,
            "session": "s",
            "seq": self._seq,
            "encoding": encoding,
            "product": "bolt",
            "part": f"part {self.chance.randrange(50)}",
            "live": False,
        }
        if encoding == "raw":
            header |= {"shape": [32, 32, 3], "dtype": "uint8"}
        return header | changes

    def frame(self) -> list[bytes]:
        """One mutated frame message."""
        return self.chance.choice(_FRAMES)(self)

    def hello(self) -> list[bytes]:
        """One mutated hello: one part, whatever else."""
        some = [
            self.chance.choice((0, 7, 1 << 62, -1, 1 << 63))
            for _ in range(self.chance.randrange(5))
        ]
        document = {"v": 1, "camera": self.camera, "session": "s", "open": some}
        return [self.document(document)]

    def document(self, document: dict[str, Any]) -> bytes:
        """A msgpack map, mutated in what it says or how it is written."""
        kind = self.chance.randrange(8)
        if kind < 4:
            return pack(self._odd(document))
        if kind == 4:
            return self.chance.choice(_ANNOUNCED)
        if kind == 5:
            return self._nested()
        return self.damaged(pack(document))

    def json(self, document: dict[str, Any]) -> bytes:
        """A JSON object, likewise."""
        kind = self.chance.randrange(6)
        if kind < 3:
            changed = self._odd(document)
            return json.dumps(changed, default=repr).encode(errors="surrogatepass")
        if kind == 3:
            key = self.chance.choice(list(document))
            return (
                json.dumps(document)[:-1] + f', "{key}": {self.chance.choice(_ODD_JSON)}}}'
            ).encode()
        if kind == 4:
            depth = self.chance.choice((10, 500, 900, 960, 980, 990, 995, 4000))
            key = self.chance.choice(["msg", "shape", "dtype"])
            return f'{{"{key}":{"[" * depth}{"]" * depth}}}'.encode()
        return self.damaged(json.dumps(document).encode())

    def damaged(self, data: bytes) -> bytes:
        """Bits flipped, bytes cut out, doubled or put in, or the end missing."""
        chance, changed = self.chance, bytearray(data)
        kind = chance.randrange(5)
        at = chance.randrange(len(changed) + 1) if kind else 0
        if kind == 0:
            for _ in range(chance.randrange(1, 9)):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            del changed[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        else:
            changed[at:at] = changed[at : at + 20]
        return bytes(changed)

    def _odd(self, document: dict[str, Any]) -> dict[str, Any]:
        changed = dict(document)
        for _ in range(self.chance.choice((1, 1, 1, 2))):
            key = self.chance.choice(list(document))
            if self.chance.randrange(4):
                changed[key] = self.chance.choice(ODD)
            else:
                changed.pop(key, None)
        return changed

    def _nested(self) -> bytes:
        depth = self.chance.choice((5, 500, 1000, 1024, 4000))
        opening = self.chance.choice((b"\x91", b"\x81\xa1a"))
        return b"\x81\xa6camera" + opening * depth + b"\xc0"

    # Frames: one method a class.

    def _valid(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(GOOD_FILES + BAD_FILES)
        return [pack(self.header(encoding)), pixels]

    def _header_of_other_types(self) -> list[bytes]:
        # What the header says of the geometry stays with good pixels: raw in another shape would be
        # other pixels, which may look like a good part.
        encoding, pixels = self.chance.choice(GOOD_FILES + BAD_FILES)
        header = self.header(encoding)
        geometry = {key: header.pop(key) for key in ("shape", "dtype", "encoding") if key in header}
        return [pack(self._odd(header) | geometry), pixels]

    def _geometry(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(BAD_FILES)
        shape = self.chance.choice(
            (
                [32, 96],
                [96, 32, 1],
                [24, 32, 4],
                [32, 16, 3],
                [3072, 1],
                [1, 1],
                [32767, 32767, 4],
                [1 << 40, 1],
                [0, 0],
                [-32, -32, 3],
                [32, 32, 3, 1],
                [32.0, 32, 3],
                "32",
                [True, True],
            )
        )
        dtype = self.chance.choice(("uint8", "uint16", "float32", 8))
        other = self.chance.choice((encoding, "raw", "png", "jpeg", "gif", "none"))
        header = self.header(encoding) | {"shape": shape, "dtype": dtype, "encoding": other}
        return [pack(header), pixels]

    def _damaged_header(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(BAD_FILES)
        return [self.document(self.header(encoding)), pixels]

    def _damaged_pixels(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(BAD_FILES)
        if encoding == "raw":
            # Whole bytes more or less are found; flipped bits are another picture of a bad part.
            return [pack(self.header(encoding)), self.damaged(pixels)]
        return [pack(self.header(encoding)), self.damaged(pixels)]

    def _cut_pixels(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(GOOD_FILES)
        return [pack(self.header(encoding)), pixels[: self.chance.randrange(len(pixels))]]

    def _notes_behind(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(GOOD_FILES)
        pixels += self.chance.randbytes(self.chance.randrange(1, 200))
        if encoding != "raw":
            self.may_pass.add(digest(pixels))
        return [pack(self.header(encoding)), pixels]

    def _lost(self) -> list[bytes]:
        return [pack(self.header("none")), self.chance.choice((b"", b"x"))]

    def _reused(self) -> list[bytes]:
        """A name that was sent before, with the same or with other pixels."""
        encoding, pixels = self.chance.choice(GOOD_FILES[:4] + BAD_FILES[:4])
        header = self.header(encoding)
        self._seq -= 1
        header["seq"] = max(1, self._seq - self.chance.randrange(200))
        return [pack(header), pixels]

    def _of_any_name(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(GOOD_FILES + BAD_FILES)
        name = self.chance.choice(NAMES)
        changes = {self.chance.choice(("camera", "session", "part")): name}
        return [pack(self.header(encoding, **changes)), pixels]

    def _of_many_cameras(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(GOOD_FILES + BAD_FILES)
        return [
            pack(self.header(encoding, camera=f"{self.camera} {self.chance.getrandbits(40)}")),
            pixels,
        ]

    def _many_parts(self) -> list[bytes]:
        encoding, pixels = self.chance.choice(GOOD_FILES)
        more = self.chance.choice((1, 2, 10, 300))
        return [pack(self.header(encoding)), pixels, *[b"x"] * more]

    def _noise(self) -> list[bytes]:
        return [
            self.chance.randbytes(self.chance.choice((0, 1, 20, 300, 9000)))
            for _ in range(self.chance.randrange(2, 5))
        ]

    def _swapped(self) -> list[bytes]:
        return self._valid()[::-1]

    def _known(self) -> list[bytes]:
        """One of the messages that tests of the line send one by one."""
        parts, _ = self.chance.choice(_KNOWN)
        return parts if len(parts) > 1 else [*parts, b""]

    def _bomb(self) -> list[bytes]:
        # Those that are decoded take tens of milliseconds, and are none the worse for being few.
        if self.chance.randrange(40):
            return self._cut_pixels()
        encoding, pixels = self.chance.choice(BOMBS)
        return [pack(self.header(encoding)), pixels]


_KNOWN = list(HOSTILE.values())

_FRAMES: tuple[Callable[[Mutator], list[bytes]], ...] = (
    Mutator._valid,
    Mutator._header_of_other_types,
    Mutator._header_of_other_types,
    Mutator._geometry,
    Mutator._damaged_header,
    Mutator._damaged_header,
    Mutator._damaged_pixels,
    Mutator._damaged_pixels,
    Mutator._cut_pixels,
    Mutator._notes_behind,
    Mutator._lost,
    Mutator._reused,
    Mutator._of_any_name,
    Mutator._of_many_cameras,
    Mutator._many_parts,
    Mutator._noise,
    Mutator._swapped,
    Mutator._known,
    Mutator._bomb,
)

_ANNOUNCED = tuple(
    before + kind + struct.pack(">I", size)[-width:]
    for before in (b"", b"\x81\xa1v", b"\x82\xa1v\x01\xa6camera")
    for kind, width in (
        (b"\xdd", 4),
        (b"\xdf", 4),
        (b"\xdb", 4),
        (b"\xc6", 4),
        (b"\xc9", 4),
        (b"\xdc", 2),
    )
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 257)
)
"""msgpack that announces more than comes."""

_ODD_JSON = (
    *('"\\ud800"', '"\\u0000"', "1e999", "NaN", "-0", "[1000000000000000000000000, 1]", "[-1, 3]"),
    *(
        "[[], []]",
        "[32, 32, 3, 1]",
        "[32767, 32767, 4]",
        '"' + "x" * 300 + '"',
        "true",
        "null",
        "{}",
    ),
    *("[32, 32, 2]", "[32.0, 32, 3]", "9" * 4200, '"float64"', "[32, 96]", "[true, true]"),
)


def pack(document: Any) -> bytes:
    """msgpack, as far as it can be written."""
    return bytes(msgpack.packb(document))


def named(parts: list[bytes]) -> tuple[str, str, int] | None:
    """Read whose frame a message is, by docs/wire.md and msgpack alone; None: nobody's."""
    if len(parts[0]) > 8192:
        return None
    try:
        header = msgpack.unpackb(parts[0], max_array_len=256, max_map_len=256)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError):
        return None
    if not isinstance(header, dict):
        return None
    camera, session, seq = (header.get(key) for key in ("camera", "session", "seq"))
    texts = all(isinstance(text, str) and 1 <= len(text) <= 128 for text in (camera, session))
    if not texts or type(seq) is not int or not 0 <= seq < 1 << 63:
        return None
    return str(camera), str(session), seq


def pixels_of(parts: list[bytes]) -> str | None:
    """Digest by which a frame that is sent again is known; None: there is none."""
    return digest(parts[1]) if len(parts) == 2 and parts[1] else None


# ZMTP 3.0 by hand (RFC 23), for what no library would send.

GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\0" + b"NULL".ljust(20, b"\0") + b"\0" * 32


def ready(kind: str) -> bytes:
    """The command that ends a handshake without keys."""
    body = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind.encode()
    return b"\x04" + bytes([len(body)]) + body


def part(data: bytes, *, more: bool = False) -> bytes:
    """One part of a message."""
    if len(data) < 256:
        return bytes([int(more), len(data)]) + data
    return bytes([int(more) | 2]) + struct.pack(">Q", len(data)) + data


ANNOUNCED_SIZES = (1 << 63, (1 << 64) - 1, (1 << 63) - 1, 1 << 40, (1 << 20) + 1)


def framing(chance: random.Random) -> bytes:
    """What breaks the framing of messages after a handshake in order: the peer is hung up on."""
    kind = chance.randrange(4)
    if kind == 0:
        return bytes([2 | chance.randrange(2)]) + struct.pack(">Q", chance.choice(ANNOUNCED_SIZES))
    if kind == 1:
        return b"\x06" + struct.pack(">Q", chance.choice(ANNOUNCED_SIZES))
    if kind == 2:
        # Flags that there are not, and a length that does not come: nothing of it is a message.
        return bytes([0xF8 | chance.randrange(8), 200]) + chance.randbytes(40)
    return part(chance.randbytes(100), more=True)[: chance.randrange(1, 60)]
