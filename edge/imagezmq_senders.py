"""Frames of unmodified imageZMQ senders, as our own frame messages.

Such a message is a JSON header and the data: `{"msg", "dtype", "shape"}` and OpenCV's pixels, or
`{"msg"}` and a JPEG. The text names the camera. There is no number and no session in it: both are
given here, so that a frame which is sent twice is two frames, and one that is lost on the way is
missed by nobody.
"""

from __future__ import annotations

import json
import math
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import cv2
import msgpack
import numpy as np

from inspection.verdicts import Reason
from inspection.wire import MAX_HEADER_BYTES, VERSION, Buffer, MessageError

MOST_NUMBER = (1 << 63) - 1

MOST_SENDERS = 256
"""Names whose frames are counted on; of more, the one that was silent longest begins anew."""


class Senders:
    """Numbers the frames of imageZMQ senders by the text that they come with."""

    def __init__(self, most_frame_bytes: int) -> None:
        self._most_frame_bytes = most_frame_bytes
        self._next: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def frame_of(self, parts: Sequence[Buffer]) -> list[Buffer]:
        """Write a message of an imageZMQ sender as the two parts of a frame message.

        Raises:
            MessageError: Not such a message; nobody can be named.
        """
        header, data = _header_of(parts), parts[1]
        described: dict[str, Any] = {"encoding": "jpeg"}
        if "shape" in header:
            described, data = self._raw(header, data)
        # JSON can say half a character, which no text of ours can hold.
        said = str(header.get("msg") or "imagezmq").encode(errors="replace").decode()
        camera = said[:128]
        session, seq = self._next.pop(camera, (secrets.token_hex(8), 0))
        self._next[camera] = session, seq + 1
        if len(self._next) > MOST_SENDERS:
            self._next.popitem(last=False)
        named = {"v": VERSION, "camera": camera, "session": session, "seq": seq}
        return [msgpack.packb({**named, **described}), data]

    def _raw(self, header: dict[str, Any], data: Buffer) -> tuple[dict[str, Any], Buffer]:
        shape: Any = header.get("shape")
        dtype: Any = header.get("dtype")
        # Sides that are too long are for `decode_frame` to refuse, if msgpack can say them.
        sides = isinstance(shape, list) and all(
            type(side) is int and 0 < side <= MOST_NUMBER for side in shape
        )
        if dtype not in ("uint8", "uint16") or not sides or len(shape) not in (2, 3):
            raise MessageError(
                "expected a shape of (H, W) or (H, W, C) and a dtype of uint8 or uint16, got "
                f"{shape!r:.60} and {dtype!r:.20}",
                Reason.BAD_HEADER,
            )
        described = {"encoding": "raw", "shape": shape, "dtype": dtype}
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        if len(shape) == 3 and shape[2] in (3, 4) and nbytes == len(data) <= self._most_frame_bytes:
            order = cv2.COLOR_BGR2RGB if shape[2] == 3 else cv2.COLOR_BGRA2RGBA
            image = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
            return described, memoryview(cv2.cvtColor(image, order)).cast("B")
        # Of another size than it says, or of a kind that is refused: `decode_frame` says so.
        return described, data


def _header_of(parts: Sequence[Buffer]) -> dict[str, Any]:
    if len(parts) != 2:
        raise MessageError(
            f"expected header and data of imageZMQ, got {len(parts)} parts", Reason.BAD_HEADER
        )
    if len(parts[0]) > MAX_HEADER_BYTES:
        raise MessageError(
            f"a header has at most {MAX_HEADER_BYTES} bytes, got {len(parts[0])}", Reason.BAD_HEADER
        )
    try:
        header = json.loads(bytes(parts[0]))
    except (ValueError, RecursionError) as error:
        raise MessageError(f"the header is not JSON: {error}", Reason.BAD_HEADER) from error
    if not isinstance(header, dict):
        raise MessageError(
            f"a header is a JSON object, got {type(header).__name__}", Reason.BAD_HEADER
        )
    return header
