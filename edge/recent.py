"""What is known of parts that pass the station now: which frames are under way, and what was said.

Only this run of the station counts, and only the latest parts: whatever may have been forgotten
makes the answer REJECT. What is asked, and by when, is in `edge.answers`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.health import Clock
from inspection.messages import VerdictMessage
from inspection.station_messages import MOST_TEXT, PartVerdict, RejectAnswer, RejectQuestion
from inspection.verdicts import Verdict
from inspection.wire import FrameName

MOST_PARTS = 8192
MOST_FACTS = 65_536
"""Frames under way and verdicts, of all parts together: about 30 MB."""

MOST_FACTS_OF_A_PART = 256


@dataclass(frozen=True, slots=True)
class _Seen:
    """The verdict of a camera's newest frame of a part: thousands are kept, so no model."""

    verdict: Verdict
    station_seq: int
    bundle: str
    session: str
    seq: int
    place: int
    at_ns: int


@dataclass(slots=True)
class _Part:
    # Frame under way → its place in the order of arrival.
    open: dict[tuple[str, str, int], int] = field(default_factory=dict)
    seen: dict[str, _Seen] = field(default_factory=dict)
    touched_ns: int = 0
    is_overfull: bool = False

    @property
    def facts(self) -> int:
        return len(self.open) + len(self.seen)


class RecentVerdicts:
    """Remembers parts, the latest touched first; any thread may tell and ask.

    It forgets the part that was touched longest ago, and remembers when that was: a question that
    reaches further back cannot be answered with PASS.
    """

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: OrderedDict[str, _Part] = OrderedDict()
        self._facts = 0
        self._places = 0
        # Whatever is older than this may have been forgotten.
        self._forgotten_ns: int | None = None
        self._changed: Callable[[str], None] | None = None

    def arrived(self, name: FrameName) -> None:
        """Note a frame that will get a verdict; before it can have one."""
        if name.part is None:
            return
        with self._lock:
            part = self._touched(name.part)
            self._places += 1
            if part.facts >= MOST_FACTS_OF_A_PART:
                part.is_overfull = True
            else:
                part.open.setdefault((name.camera, name.session, name.seq), self._places)
            self._forget()

    def note(self, message: VerdictMessage) -> None:
        """Note a verdict that is in the ledger, and wake whoever waits for its part."""
        if message.part is None:
            return
        with self._lock:
            part = self._touched(message.part)
            self._places += 1
            name = (message.camera, message.session, message.seq)
            place = part.open.pop(name, self._places)
            if not part.open:
                part.open = {}  # one that was emptied keeps its room: 170 bytes a part
            seen = _Seen(
                message.verdict,
                message.station_seq,
                message.bundle,
                message.session,
                message.seq,
                place,
                self._clock(),
            )
            before = part.seen.get(message.camera)
            if before is None and part.facts >= MOST_FACTS_OF_A_PART:
                part.is_overfull = True
            elif before is None or _is_newer(seen, before):
                part.seen[message.camera] = seen
            self._forget()
            if self._changed is not None:
                self._changed(message.part)

    def listen(self, changed: Callable[[str], None] | None) -> None:
        """Have every part named that a verdict came for; None ends it.

        Args:
            changed: Called in the thread that notes, under a lock: it may not wait, nor ask back.
        """
        with self._lock:
            self._changed = changed

    def answer(self, question: RejectQuestion, *, at_deadline: bool) -> RejectAnswer | None:
        """Decide whether a part may go on.

        Args:
            question: Whose.
            at_deadline: Whether nothing may be waited for.

        Returns:
            PASS or REJECT if that is certain, or at the deadline; else None.
        """
        with self._lock:
            now = self._clock()
            oldest_ns = now - int(question.max_age_ms * 1e6)
            part = self._parts.get(question.part) or _Part()
            if self._forgotten_ns is not None and self._forgotten_ns >= oldest_ns:
                why = f"too many parts for verdicts of {question.max_age_ms:g} ms to be remembered"
                return _rejected(question, why, {})
            if part.is_overfull:
                return _rejected(question, "too many frames of this part", {})
            fresh = {
                camera: PartVerdict(
                    verdict=seen.verdict, station_seq=seen.station_seq, bundle=seen.bundle
                )
                for camera, seen in part.seen.items()
                if seen.at_ns >= oldest_ns
            }
            under_way = {camera for camera, _, _ in part.open}
        needed = question.cameras or tuple(sorted({*fresh, *under_way}))
        verdicts = {camera: fresh[camera] for camera in needed if camera in fresh}
        for camera in needed:
            said = verdicts.get(camera)
            if camera not in under_way and said is not None and said.verdict is not Verdict.PASS:
                return _rejected(question, f"{camera!r} said {said.verdict.value}", verdicts)
        if missing := _missing(needed, verdicts, under_way):
            return _rejected(question, missing, verdicts) if at_deadline else None
        return RejectAnswer(
            part=question.part,
            answer="PASS",
            why=f"PASS from {len(verdicts)} cameras",
            verdicts=verdicts,
        )

    def _touched(self, name: str) -> _Part:
        part = self._parts.pop(name, None) or _Part()
        self._facts -= part.facts  # counted again by `_forget`
        self._parts[name] = part
        part.touched_ns = self._clock()
        return part

    def _forget(self) -> None:
        self._facts += next(reversed(self._parts.values())).facts
        while len(self._parts) > MOST_PARTS or self._facts > MOST_FACTS:
            _, forgotten = self._parts.popitem(last=False)
            self._facts -= forgotten.facts
            self._forgotten_ns = forgotten.touched_ns


def _is_newer(seen: _Seen, before: _Seen) -> bool:
    """Whether a verdict is of a newer frame: an UNKNOWN may overtake frames that came before it.

    Two frames under one name are one too many: what is not PASS stays.
    """
    if seen.session != before.session:
        return seen.place > before.place
    if seen.seq != before.seq:
        return seen.seq > before.seq
    return before.verdict is Verdict.PASS


def _missing(
    needed: tuple[str, ...], verdicts: dict[str, PartVerdict], under_way: set[str]
) -> str | None:
    """Say what is still to come; None if there is nothing."""
    if not needed:
        return "no verdict of this part"
    for camera in needed:
        if camera in under_way:
            return f"a frame of {camera!r} is under way"
        if camera not in verdicts:
            return f"no verdict of {camera!r}"
    return None


def _rejected(question: RejectQuestion, why: str, verdicts: dict[str, PartVerdict]) -> RejectAnswer:
    return RejectAnswer(part=question.part, answer="REJECT", why=why[:MOST_TEXT], verdicts=verdicts)
