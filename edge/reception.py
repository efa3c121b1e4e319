"""What happens to a message between its socket and the backlog: named, counted, let in once.

Frames over every transport become the same arrivals; cameras that ask are answered.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from edge.admission import Admission, FrameState, Incoming, Origin, Records, digest_of
from edge.backlog import Backlog
from edge.health import Clock, Health, Stopwatch, is_milestone
from edge.imagezmq_senders import Senders
from edge.outcome import Arrival, Receipt
from edge.settings import StationSettings
from inspection.camera_messages import (
    MOST_OPEN,
    decode_hello,
    encode_acknowledgement,
    encode_credit,
)
from inspection.messages import decode_frame
from inspection.verdicts import Reason
from inspection.wire import Buffer, FrameName, MessageError

log = logging.getLogger(__name__)

MOST_ASKED = 20_000
"""Frames that cameras may ask after in a second: each takes 10 µs, and 64 cameras that are open to
the last frame and ask twice a second ask after 8,192."""

MOST_SESSIONS = 256
"""Sessions of plain cameras whose numbers are watched; the one silent for longest is forgotten."""

AnswerUnknown = Callable[[Receipt, Reason, str], None]


class Cameras(Protocol):
    """Where messages come from; used in its own thread."""

    def tell(self, origin: Origin, parts: list[Buffer]) -> None:
        """Answer whoever a frame came from."""
        ...

    def hold(self, transport: str) -> None:
        """Let the cameras of a transport wait."""
        ...

    def release(self, transport: str) -> None:
        """Take from a transport again."""
        ...


class Numbers:
    """Watches the numbers of plain cameras: a gap is all that tells of a frame lost on the way."""

    def __init__(self) -> None:
        self._next: OrderedDict[tuple[str, str], int] = OrderedDict()

    def missing(self, name: FrameName) -> int:
        """Give how many numbers of its session were left out before a frame."""
        session = name.camera, name.session
        expected = self._next.pop(session, name.seq)
        self._next[session] = max(expected, name.seq + 1)
        if len(self._next) > MOST_SESSIONS:
            self._next.popitem(last=False)
        return max(0, name.seq - expected)


class Reception:
    """Takes messages as they come; used in the thread of the capture."""

    def __init__(
        self,
        settings: StationSettings,
        cameras: Cameras,
        records: Records,
        admission: Admission,
        backlog: Backlog[Arrival],
        health: Health,
        clock: Clock,
        arrived: Callable[[FrameName], None],
        answer_unknown: AnswerUnknown,
    ) -> None:
        """Take nothing yet.

        Args:
            settings: Limits and the policy of a full backlog.
            cameras: Are answered, and held back.
            records: The ledger, read in this thread.
            admission: Knows what is under way.
            backlog: Where frames go.
            health: Counts.
            clock: Times frames.
            arrived: Told of every frame that will get a verdict.
            answer_unknown: Answers what cannot be scored.
        """
        self._settings = settings
        self._cameras = cameras
        self._records = records
        self._admission = admission
        self._backlog = backlog
        self._health = health
        self._clock = clock
        self._arrived = arrived
        self._answer_unknown = answer_unknown
        self._senders = Senders(settings.max_frame_bytes)
        self._numbers = Numbers()
        self._asked_ns, self._asked = 0, 0
        # By transport, what waits for room while its cameras are held back.
        self._held: dict[str, Arrival] = {}

    def take(self, incoming: Incoming) -> None:
        """Take one message."""
        if incoming.origin.transport == "cameras" and len(incoming.parts) == 1:
            self._meet(incoming)
            return
        self._health.count("received")
        try:
            parts = incoming.parts
            if incoming.origin.transport.startswith("imagezmq"):
                parts = self._senders.frame_of(parts)
            self._admit(parts, incoming.origin)
        except MessageError as error:
            self._refuse(error, incoming)

    def make_room(self) -> None:
        """Put what was held back where there is room for it by now."""
        for transport, arrival in list(self._held.items()):
            if self._backlog.has_room(arrival):
                self._cameras.release(transport)
                self._put(self._held.pop(transport))

    def give_up(self) -> None:
        """Put what was held back, room or not: nothing more will come."""
        while self._held:
            self._put(self._held.popitem()[1])

    def _meet(self, incoming: Incoming) -> None:
        try:
            hello = decode_hello(incoming.parts[0])
        except MessageError as error:
            self._count("malformed_hellos", "malformed hello", error)
            return
        now_ns = self._clock()
        if now_ns - self._asked_ns > 1_000_000_000:
            self._asked_ns, self._asked = now_ns, 0
        self._asked += 1 + len(hello.open)
        if self._asked > MOST_ASKED:
            self._count("hellos_dropped", "hellos dropped")  # a camera asks again
            return
        window = min(self._settings.backlog_frames, MOST_OPEN)
        credit, records = self._admission.meet(hello, incoming.origin, self._records, window)
        self._cameras.tell(incoming.origin, encode_credit(credit))
        for record in records:
            self._cameras.tell(incoming.origin, encode_acknowledgement(record))

    def _admit(self, parts: list[Buffer], origin: Origin) -> None:
        stopwatch, received_unix_ns = Stopwatch(self._clock, self._clock()), time.time_ns()
        digest = digest_of(parts[1]) if len(parts) == 2 else None
        try:
            frame, refused = decode_frame(parts, self._settings.max_frame_bytes), None
            name, product = frame.header.frame_name, frame.header.product
        except MessageError as error:
            if error.name is None:
                raise
            frame, refused, name, product = None, error, error.name, None
        self._health.count_frame(name.camera, origin.transport)
        receipt = Receipt(name, product, stopwatch, received_unix_ns, digest, origin)
        if not self._is_new(receipt):
            return
        if origin.transport == "frames" and (missing := self._numbers.missing(name)):
            self._health.count("missing_numbers", missing)
        if frame is None:
            assert refused is not None
            self._answer_unknown(receipt, refused.reason, str(refused))
            return
        arrival = Arrival(receipt, frame, frame.header.deadline_ms or self._settings.deadline_ms)
        # A camera with credits knows how many may wait; the others know only a full network.
        if (
            self._settings.overload == "block"
            and origin.transport != "cameras"
            and not self._backlog.has_room(arrival)
        ):
            self._held[origin.transport] = arrival
            self._cameras.hold(origin.transport)
            return
        self._put(arrival)

    def _is_new(self, receipt: Receipt) -> bool:
        state, record = self._admission.admit(
            receipt.name, receipt.frame_sha256, receipt.origin, self._records
        )
        if state is FrameState.NEW:
            self._arrived(receipt.name)
            return True
        if state is FrameState.NAME_REUSED:
            self._answer_unknown(
                receipt,
                Reason.NAME_REUSED,
                "another frame of this camera, session and seq came before; number every trigger",
            )
            return False
        self._health.count("redelivered")
        if record and (told := receipt.origin.acknowledgement(record)):
            self._cameras.tell(receipt.origin, told)
        return False

    def _put(self, arrival: Arrival) -> None:
        for forgotten in self._backlog.put(arrival):
            forgotten.receipt.stopwatch.lap("queue")
            self._count("forgotten", "frames forgotten")
            self._answer_unknown(
                forgotten.receipt, Reason.BACKLOG_FULL, "frames came faster than they were scored"
            )

    def _refuse(self, error: MessageError, incoming: Incoming) -> None:
        self._count("malformed", "malformed message", error)
        if incoming.origin.transport == "imagezmq":
            # Its sender waits for a reply, whatever it says.
            self._cameras.tell(incoming.origin, [f"ERROR: {error}".encode()])

    def _count(self, what: str, event: str, error: MessageError | None = None) -> None:
        count = self._health.count(what)
        if is_milestone(count):
            log.warning(event, extra={what: count, **({"error": error} if error else {})})
