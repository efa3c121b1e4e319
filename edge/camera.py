"""A camera whose every trigger is accounted for: what a camera's driver calls to have parts judged.

This file needs nothing but pyzmq and msgpack, and none of our other files: copy it to the camera.
`docs/wire.md` says what it sends. Playing files as a camera would is `edge.player`'s.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import zmq

log = logging.getLogger(__name__)
STATION = "tcp://127.0.0.1:5557"

# Frames that are kept until they are acknowledged, and triggers, also without their pixels.
MOST_WAITING, MOST_LOST = 64, 65_536
# How often a station is asked what became of frames: the network may have lost them. One that is
# silent for long is connected to anew: a cable that was pulled says nothing, and ZeroMQ never tries
# again where a key was refused once.
ASK_S, SILENT_S = 0.5, 5.0

_SAMPLES = {"|u1": "uint8", "<u2": "uint16", ">u2": "uint16"}


class CameraError(Exception):
    """A frame or an address cannot be used."""


@dataclass(frozen=True)
class Said:
    """What became of a trigger.

    Attributes:
        verdict: PASS, REVIEW, FAIL or UNKNOWN; only PASS lets the part go on.
        reason: Why it is not PASS.
        message: What the station has recorded, every field of `docs/wire.md`; None if it has not
            said so: then the camera itself says UNKNOWN.
    """

    verdict: str
    reason: str | None
    message: dict[str, Any] | None = None


class Ticket:
    """A trigger that is owed a verdict.

    `seq` and `part` are as they were sent; `said` is None while nobody knows what became of it.
    """

    def __init__(self, seq: int, part: str | None, deadline_ms: float | None) -> None:
        self.seq = seq
        self.part = part
        self._until_s = None if deadline_ms is None else time.monotonic() + deadline_ms / 1e3
        self.said: Said | None = None
        self._settled = threading.Event()
        self._lock = threading.Lock()

    def wait(self, timeout_s: float | None = None) -> Said:
        """Wait for the verdict, no longer than the deadline of the frame.

        What is said once stands: a verdict that comes after the deadline is in the ledger, and
        changes nothing here.

        Args:
            timeout_s: Wait no longer than this either; None without a deadline waits for ever.
        """
        left_s = None if self._until_s is None else max(0.0, self._until_s - time.monotonic())
        limits_s = [limit_s for limit_s in (left_s, timeout_s) if limit_s is not None]
        self._settled.wait(min(limits_s, default=None))
        return self._settle(Said("UNKNOWN", "deadline_passed"))

    def _settle(self, said: Said) -> Said:
        with self._lock:
            if self.said is None:
                late = self._until_s is not None and time.monotonic() > self._until_s
                self.said = Said("UNKNOWN", "deadline_passed", said.message) if late else said
            self._settled.set()
            return self.said


class Camera:
    """Sends frames to a station and hears what became of each; closed by `with` or `close`.

    A frame is kept until the station says that its verdict is recorded, and is sent again where it
    was lost; it is judged once. Any thread may send.

    Attributes:
        name: As in the verdicts.
        session: Tells this run of the camera from others; `seq` counts within it.
        sent: How many triggers there were.
        recorded: What the station has recorded of them, counted by verdict.
        lost: How many of them could not keep their pixels; the station records these too.
    """

    def __init__(
        self,
        address: str = STATION,
        name: str = "cam0",
        *,
        product: str | None = None,
        deadline_ms: float | None = None,
        live: bool = True,
        session: str | None = None,
        first_seq: int = 0,
        timeout_s: float = 30.0,
        keys: tuple[bytes, bytes, bytes] | None = None,
    ) -> None:
        """Connect, in the background.

        Args:
            address: Of the station's setting `cameras`.
            name: 1 to 128 characters, as are the other texts.
            product: What the camera looks at, unless `send` says otherwise.
            deadline_ms: When a verdict is of no more use, unless `send` says otherwise.
            live: False if the frames are a recording: then two alike are no sign of a fault.
            session: To go on with a session after a restart; None begins a new one.
            first_seq: Number of the next trigger; what the station knows is not judged again.
            timeout_s: How long `send` waits for room, and `close` for the last verdicts.
            keys: Public and secret key of this camera, public key of the station, in Z85.

        Raises:
            CameraError: Not an address, or not keys.
        """
        self.name = name
        self.session = session or secrets.token_hex(8)
        self.sent = self.lost = 0
        self.recorded: Counter[str] = Counter()
        self._next_seq = first_seq
        self._product, self._deadline_ms, self._live = product, deadline_ms, live
        self._timeout_s = timeout_s
        # What is not acknowledged, in order; of these, what is sent; how many of them have pixels.
        self._open: OrderedDict[int, tuple[Ticket, Sequence[bytes]]] = OrderedDict()
        self._under_way: set[int] = set()
        self._kept = 0
        self._window = 0
        self._address = address
        self._asked_s = float("-inf")
        self._heard_s = self._dialled_s = time.monotonic()
        self._changed = threading.Condition()
        self._closing = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = _connected(self._context, address, keys)
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._talk, name=f"camera {name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_for_station(self) -> bool:
        """Wait until a station takes frames; False if none has in `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._window > 0, self._timeout_s)

    def close(self) -> int:
        """Wait for the last verdicts, `timeout_s` at most, then disconnect.

        Returns how many frames were not acknowledged: whether they are recorded, nobody knows.
        """
        with self._changed:
            if not self._closing:
                self._changed.wait_for(lambda: not self._open, self._timeout_s)
                self._closing = True
                self._ring()
        self._thread.join()
        for ticket, _ in self._open.values():
            ticket._settle(Said("UNKNOWN", "deadline_passed"))
        return len(self._open)

    def inspect(self, image: Any, **options: Any) -> Said:
        """Send a frame and wait for its verdict; takes what `send` takes."""
        return self.send(image, **options).wait()

    def send(
        self,
        image: Any,
        *,
        part: str | None = None,
        product: str | None = None,
        deadline_ms: float | None = None,
    ) -> Ticket:
        """Send one frame; waits for room, no longer than the deadline or the camera's `timeout_s`.

        If there is none by then, the pixels are given up and the ticket says UNKNOWN, frame_lost;
        that there was a trigger is told to the station all the same.

        Args:
            image: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA array, uint8 or uint16; or the
                bytes of a JPEG or PNG, which go as they are.
            part: Serial number of the part.
            product: Instead of the camera's own; so is `deadline_ms`.

        Raises:
            CameraError: Not an image, not a name, or the camera is closed.
        """
        described, pixels = _payload(image)
        _check(camera=self.name, session=self.session, part=part, product=product)
        deadline_ms = self._deadline_ms if deadline_ms is None else deadline_ms
        if deadline_ms is not None and not 0 < deadline_ms < float("inf"):
            raise CameraError(f"expected a deadline above 0 ms, got {deadline_ms}")
        with self._changed:
            ticket = Ticket(self._next_seq, part, deadline_ms)
            # Its number is taken before the wait, so that no other thread is given it too.
            self._next_seq += 1
            self.sent += 1
            room = self._changed.wait_for(
                lambda: self._closing or self._kept < MOST_WAITING,
                min(self._timeout_s, (deadline_ms or float("inf")) / 1e3),
            )
            if self._closing or len(self._open) >= MOST_LOST:
                raise CameraError("the camera is closed, or its station was away for too long")
            header = {
                **{"v": 1, "camera": self.name, "session": self.session, "seq": ticket.seq},
                **{"trigger_ns": time.monotonic_ns(), "live": self._live, "part": part},
                **{"product": product or self._product, "deadline_ms": deadline_ms},
                **(described if room else {"encoding": "none"}),
            }
            self._open[ticket.seq] = ticket, (msgpack.packb(header), pixels if room else b"")
            if room:
                self._kept += 1
            else:
                self.lost += 1
                ticket._settle(Said("UNKNOWN", "frame_lost"))
        self._ring()
        return ticket

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # then it has been rung often enough
            self._bell.send(b"!")

    def _talk(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._ear, zmq.POLLIN)
        try:
            while not self._closing:
                if self._ear.fileno() in dict(poller.poll(100)):
                    self._ear.recv(4096)
                while self._socket.poll(0):
                    self._heard_s = time.monotonic()
                    self._hear(self._socket.recv_multipart())
                self._send_what_may_go()
        finally:
            self._context.destroy(linger=0)
            self._bell.close()
            self._ear.close()

    def _hear(self, parts: list[bytes]) -> None:
        try:
            said: dict[str, Any] = msgpack.unpackb(parts[1], max_array_len=1024, max_map_len=1024)
            if said["v"] != 1 or said["session"] != self.session:
                return
            with self._changed:
                if parts[0] == b"credit":
                    self._under_way.difference_update(said.get("missing", ()))
                    self._window = int(said["window"])
                elif parts[0] == b"verdict" and (done := self._open.pop(said["seq"], None)):
                    self._under_way.discard(said["seq"])
                    self._kept -= bool(done[1][1])
                    self.recorded[str(said["verdict"])] += 1
                    done[0]._settle(Said(str(said["verdict"]), said["reason"], said))
                self._changed.notify_all()
        except (IndexError, KeyError, TypeError, ValueError) as error:
            log.warning("not an answer of a station: %s %s", type(error).__name__, error)

    def _send_what_may_go(self) -> None:
        with self._changed:
            now_s = time.monotonic()
            waits = self._under_way or not self._window
            if waits and now_s - max(self._heard_s, self._dialled_s) > SILENT_S:
                self._dialled_s = now_s
                with suppress(zmq.ZMQError):  # one that was refused is not connected any more
                    self._socket.disconnect(self._address)
                self._socket.connect(self._address)
            if waits and now_s - self._asked_s > ASK_S:
                hello = {"v": 1, "camera": self.name, "session": self.session}
                if not self._put([msgpack.packb({**hello, "open": sorted(self._under_way)[:256]})]):
                    return
                self._asked_s = now_s
            for seq, (_, parts) in self._open.items():
                if len(self._under_way) >= self._window:
                    return
                if seq not in self._under_way:
                    if not self._put(parts):
                        return
                    self._under_way.add(seq)

    def _put(self, parts: Sequence[bytes]) -> bool:
        with suppress(zmq.Again):  # no station, or it does not read: the next tick tries again
            self._socket.send_multipart(parts, zmq.DONTWAIT)
            return True
        return False


def _connected(
    context: zmq.Context[zmq.Socket[bytes]], address: str, keys: tuple[bytes, bytes, bytes] | None
) -> zmq.Socket[bytes]:
    opened = context.socket(zmq.DEALER)
    # IMMEDIATE: what was meant for a station that died is asked for by the next, not kept twice.
    options = {zmq.IMMEDIATE: 1, zmq.SNDHWM: 8, zmq.LINGER: 0, zmq.IPV6: int("[" in address)}
    for option, value in options.items():
        opened.setsockopt(option, value)
    try:
        if keys is not None:
            opened.curve_publickey, opened.curve_secretkey, opened.curve_serverkey = keys
        opened.connect(address)
    except zmq.ZMQError as error:
        context.destroy(linger=0)
        raise CameraError(f"cannot connect to {address}: {error.strerror}") from error
    return opened


def _payload(image: Any) -> tuple[dict[str, Any], bytes]:
    """Give what the header says of an image, and its bytes, which nobody changes any more."""
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        if data.startswith(b"\xff\xd8"):
            return {"encoding": "jpeg"}, data
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return {"encoding": "png"}, data
        raise CameraError(f"expected the bytes of a JPEG or PNG, got {len(data)} others")
    if not hasattr(image, "dtype"):
        raise CameraError(f"expected an array, a JPEG or a PNG, got {type(image).__name__}")
    sample, shape = str(image.dtype.str), [int(side) for side in image.shape]
    if sample not in _SAMPLES:
        raise CameraError(f"expected uint8 or uint16 pixels, got {image.dtype}; convert the image")
    pixels = image.astype("<u2") if sample == ">u2" else image
    return {"encoding": "raw", "shape": shape, "dtype": _SAMPLES[sample]}, pixels.tobytes()


def _check(**names: str | None) -> None:
    for what, text in names.items():
        if text is not None and not (isinstance(text, str) and 1 <= len(text) <= 128):
            raise CameraError(f"{what} of a frame: expected 1 to 128 characters, got {text!r:.60}")
