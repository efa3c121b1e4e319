"""A plain camera, PUSH: what the line knew before frames were acknowledged, and still takes."""

from __future__ import annotations

import logging
import secrets
import time
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
import zmq
from numpy.typing import NDArray
from pydantic import ValidationError

from edge.sockets import connect, context, socket
from inspection.errors import ImageError, InputError, StationError
from inspection.images import image_format
from inspection.messages import FrameHeader, encode_frame
from inspection.wire import Buffer

log = logging.getLogger(__name__)

STATION = "tcp://127.0.0.1:5555"

# Frames that wait here for the network. Few, so that a camera notices a station that is gone.
SEND_HIGH_WATER = 8

FIRST_WAIT_MS = 1000
"""A station that does not take a frame for so long is worth a line in the log."""


class PushCamera:
    """A connection to a station; used in one thread, and closed by `with` or `close`.

    A frame that was handed to the network is not acknowledged: if the station dies, up to
    `SEND_HIGH_WATER` frames and what the kernel holds die with it.

    Attributes:
        name: As in the verdicts.
        session: Tells this run of the camera from others; `seq` counts within it.
        sent: How many frames the network took.
    """

    def __init__(
        self,
        address: str = STATION,
        name: str = "cam0",
        *,
        product: str | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Connect, in the background: the first `send` waits for the station.

        Args:
            address: The station's `frames`.
            name: 1 to 128 characters.
            product: What the camera looks at, unless `send` says otherwise.
            timeout_s: How long `send` waits for the station, and `close` for the network.

        Raises:
            StationError: Not an address.
        """
        self.name = name
        self.session = secrets.token_hex(8)
        self.sent = 0
        self._address = address
        self._product = product
        self._timeout_s = timeout_s
        first_ms = min(FIRST_WAIT_MS, int(timeout_s * 1000))
        self._patience_ms = first_ms, int(timeout_s * 1000) - first_ms
        with ExitStack() as opening:
            owner = opening.enter_context(context())
            # IMMEDIATE: wait for a station rather than queue for one that may never come.
            options = {zmq.SNDHWM: SEND_HIGH_WATER, zmq.IMMEDIATE: 1}
            options |= {zmq.LINGER: int(timeout_s * 1000), zmq.SNDTIMEO: self._patience_ms[1]}
            self._socket = opening.enter_context(socket(owner, zmq.PUSH, options))
            connect(self._socket, address)
            self._held = opening.pop_all()

    def __enter__(self) -> PushCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give what was sent a bounded time to leave, then disconnect."""
        self._held.close()

    def send(
        self,
        image: NDArray[Any] | Buffer,
        *,
        part: str | None = None,
        product: str | None = None,
        deadline_ms: float | None = None,
    ) -> FrameHeader:
        """Send one frame.

        Args:
            image: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, uint8 or uint16; or the bytes
                of a JPEG or PNG, which go as they are.
            part: Serial number of the part.
            product: Instead of the camera's own.
            deadline_ms: When the verdict is of no more use, counted from receipt.

        Returns:
            The header that was sent; its `frame_name` finds the verdict.

        Raises:
            ImageError: Neither pixels nor JPEG nor PNG.
            InputError: A name or number breaks the wire format.
            StationError: No station took it in time.
        """
        encoding, shape, dtype, pixels = _payload(image)
        try:
            header = FrameHeader(
                camera=self.name,
                session=self.session,
                seq=self.sent,
                encoding=encoding,
                shape=shape,
                dtype=dtype,
                trigger_ns=time.monotonic_ns(),
                part=part,
                product=product or self._product,
                deadline_ms=deadline_ms,
                live=False,  # tests send one frame many times
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{first['loc'][0]} of a frame: {first['msg']}") from error
        if not self._socket.poll(self._patience_ms[0], zmq.POLLOUT):
            log.warning("waiting for the station", extra={"address": self._address})
        try:
            self._socket.send_multipart(encode_frame(header, pixels))
        except zmq.Again as error:
            raise StationError(
                f"no station takes frames at {self._address} within {self._timeout_s:g} s; "
                "is it running, and is this its address?"
            ) from error
        self.sent += 1
        return header


def _payload(
    image: NDArray[Any] | Buffer,
) -> tuple[Literal["raw", "jpeg", "png"], list[int] | None, Literal["uint8", "uint16"], Buffer]:
    """Tell encoding, shape, dtype and bytes of what is to be sent."""
    if not isinstance(image, np.ndarray):
        found = image_format(image)
        if found is None:
            raise ImageError(f"expected the bytes of a JPEG or PNG, got {len(image)} others")
        return found, None, "uint8", image
    shape = [int(side) for side in image.shape]
    if image.dtype == np.uint8:
        return "raw", shape, "uint8", np.ascontiguousarray(image).tobytes()
    if image.dtype == np.uint16:
        return "raw", shape, "uint16", image.astype("<u2").tobytes()
    raise ImageError(f"expected uint8 or uint16 pixels, got {image.dtype}; convert the image")
