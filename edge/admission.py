"""Which frames are under way, whom their verdicts are told, and which have come before."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from inspection.camera_messages import Credit, Hello, encode_acknowledgement
from inspection.messages import decode_verdict_record
from inspection.wire import Buffer, FrameName


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a frame came from.

    Attributes:
        transport: Name of the setting whose socket it came through.
        peer: Who is told its verdict; None where nobody can be.
    """

    transport: str
    peer: bytes | None = None

    def acknowledgement(self, record: bytes) -> list[Buffer] | None:
        """Say that a frame's verdict is recorded; None where nobody is told.

        Args:
            record: The verdict, packed. An imageZMQ sender waits for a reply of one part, and
                expects no more of it.
        """
        if self.peer is None:
            return None
        return [b"OK"] if self.transport == "imagezmq" else encode_acknowledgement(record)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it came.

    Attributes:
        origin: Over which transport, and who is answered.
        parts: Without envelope; views of ZeroMQ's own memory, freed when the last view is.
    """

    origin: Origin
    parts: list[Buffer]


class FrameState(Enum):
    """What the station knows of a frame that has just come."""

    NEW = "new"
    UNDER_WAY = "under way"
    RECORDED = "recorded"
    NAME_REUSED = "name reused"


class Record(Protocol):
    """A verdict in the ledger."""

    @property
    def record(self) -> bytes:
        """Its bytes, as they were published."""
        ...


class Records(Protocol):
    """Finds what has been recorded of a frame."""

    def find(self, camera: str, session: str, seq: int) -> Record | None:
        """Give the record of a frame; None if there is none."""
        ...


@dataclass(slots=True)
class _UnderWay:
    origin: Origin
    digest: str | None


class Admission:
    """Lets every frame in once, however often it is sent; any thread may `settle`.

    A frame is under way from `admit` to `settle`, and in the ledger before it is settled: so it is
    known at every moment in between. The number of frames under way is bounded by the queues of
    the route.
    """

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, str, int], _UnderWay] = {}
        self._lock = threading.Lock()

    def admit(
        self, name: FrameName, digest: str | None, origin: Origin, records: Records
    ) -> tuple[FrameState, bytes | None]:
        """Let a frame in if it is new.

        Args:
            name: Of the frame.
            digest: Of its pixels, hex; None if there are none to be judged.
            origin: Who is told the verdict. A camera that has connected again and sends the frame
                once more is told instead of the connection that has gone.
            records: The ledger, read in this thread.

        Returns:
            Its state, and the record if it is RECORDED.
        """
        key = (name.camera, name.session, name.seq)
        with self._lock:
            known = self._under_way.get(key)
            if known is not None:
                if _differ(known.digest, digest):
                    return FrameState.NAME_REUSED, None
                known.origin = origin
                return FrameState.UNDER_WAY, None
            recorded = records.find(*key)
            if recorded is None:
                self._under_way[key] = _UnderWay(origin, digest)
                return FrameState.NEW, None
        if _differ(decode_verdict_record(recorded.record).frame_sha256, digest):
            return FrameState.NAME_REUSED, None
        return FrameState.RECORDED, recorded.record

    def settle(self, name: FrameName) -> Origin | None:
        """Take a frame whose verdict is recorded off the list; gives who is told."""
        with self._lock:
            settled = self._under_way.pop((name.camera, name.session, name.seq), None)
        return settled.origin if settled else None

    def meet(
        self, hello: Hello, origin: Origin, records: Records, window: int
    ) -> tuple[Credit, list[bytes]]:
        """Answer a camera that asks what became of its frames.

        Returns:
            Its credit with what it must send again, and the records of what has been judged.
        """
        missing, recorded = [], []
        for seq in hello.open:
            key = (hello.camera, hello.session, seq)
            with self._lock:
                known = self._under_way.get(key)
                found = None if known else records.find(*key)
                if known:
                    known.origin = origin
            if found:
                recorded.append(found.record)
            elif not known:
                missing.append(seq)
        return Credit(session=hello.session, window=window, missing=tuple(missing)), recorded


def digest_of(pixels: Buffer) -> str | None:
    """SHA-256 of the pixel part as it came, hex; None if it is empty."""
    return hashlib.sha256(pixels).hexdigest() if len(pixels) else None


def _differ(one: str | None, other: str | None) -> bool:
    # A frame whose pixels were lost, or whose header was refused, has nothing to compare.
    return one is not None and other is not None and one != other
