"""Questions whether a part may go on, while they wait for a verdict or their deadline.

Who asks, and how, is in `edge.answers`; what is known of parts is in `edge.recent`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from dataclasses import dataclass

from edge.health import Clock
from edge.recent import RecentVerdicts
from inspection.station_messages import RejectAnswer, RejectQuestion

MOST_WAITING = 1024
"""Questions that wait for a verdict or their deadline; the next one is REJECT at once."""

MOST_WAITING_OF_A_PEER = 64

_STOPPING = "the station is stopping"

Envelope = tuple[bytes, ...]
"""Parts of a request that its answer must begin with; the first one says who asks."""

Answered = tuple[Envelope, RejectAnswer]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A question without an answer yet."""

    envelope: Envelope
    question: RejectQuestion


class Questions:
    """Used in one thread, but for `note`."""

    def __init__(self, recent: RecentVerdicts, clock: Clock) -> None:
        self._recent = recent
        self._clock = clock
        # By a number of their own, and where they are looked for: by deadline, by part, by peer.
        self._numbers = itertools.count()
        self._waiting: dict[int, _Waiting] = {}
        self._deadlines: list[tuple[int, int]] = []
        self._by_peer: Counter[bytes] = Counter()
        self._lock = threading.Lock()
        self._by_part: dict[str, set[int]] = {}
        self._changed: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def is_full_for(self, envelope: Envelope) -> bool:
        """Whether another question of this peer would wait for too much."""
        return (
            len(self._waiting) >= MOST_WAITING
            or self._by_peer[envelope[0]] >= MOST_WAITING_OF_A_PEER
        )

    def ask(self, envelope: Envelope, question: RejectQuestion) -> RejectAnswer | None:
        """Answer at once if that is certain; else the question waits, and None is given."""
        # It waits before it is looked at: a verdict that comes between the two is not missed.
        number = next(self._numbers)
        self._waiting[number] = _Waiting(envelope, question)
        self._by_peer[envelope[0]] += 1
        with self._lock:
            self._by_part.setdefault(question.part, set()).add(number)
        due_ns = self._clock() + int(question.deadline_ms * 1e6)
        heapq.heappush(self._deadlines, (due_ns, number))
        answer = self._recent.answer(question, at_deadline=question.deadline_ms == 0)
        if answer is not None:
            self._forget(number)
        return answer

    def note(self, part: str) -> bool:
        """Remember that a part has a new verdict; False if nobody asks. Any thread may call it."""
        with self._lock:
            if part not in self._by_part:
                return False
            self._changed.add(part)
            return True

    def settled(self) -> list[Answered]:
        """Give and forget whom a new verdict makes certain, and whose deadline has come."""
        with self._lock:
            changed, self._changed = self._changed, set()
            numbers = [number for part in changed for number in self._by_part.get(part, ())]
        answered = [each for number in numbers if (each := self._answer(number, False))]
        now = self._clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heapq.heappop(self._deadlines)
            if number in self._waiting and (each := self._answer(number, True)):
                answered.append(each)
        return answered

    def abandon(self) -> list[Answered]:
        """Give and forget all: REJECT, because the station ends."""
        waiting = [self._forget(number) for number in list(self._waiting)]
        return [
            (each.envelope, RejectAnswer(part=each.question.part, answer="REJECT", why=_STOPPING))
            for each in waiting
        ]

    def patience_ms(self, most: int) -> int:
        """How long nothing happens by itself, ms."""
        if not self._deadlines:
            return most
        # Rounded up: woken too early, one would only wait again.
        left_ms = (self._deadlines[0][0] - self._clock()) // 1_000_000 + 1
        return int(min(max(left_ms, 0), most))

    def _answer(self, number: int, at_deadline: bool) -> Answered | None:
        waiting = self._waiting[number]
        answer = self._recent.answer(waiting.question, at_deadline=at_deadline)
        if answer is None:
            return None
        self._forget(number)
        return waiting.envelope, answer

    def _forget(self, number: int) -> _Waiting:
        waiting = self._waiting.pop(number)
        peer, part = waiting.envelope[0], waiting.question.part
        self._by_peer[peer] -= 1
        if not self._by_peer[peer]:
            del self._by_peer[peer]
        with self._lock:
            self._by_part[part].discard(number)
            if not self._by_part[part]:
                del self._by_part[part]
        if len(self._deadlines) > 2 * MOST_WAITING:
            # Long deadlines of what has been answered: dropped together, now and then.
            self._deadlines = [each for each in self._deadlines if each[1] in self._waiting]
            heapq.heapify(self._deadlines)
        return waiting
