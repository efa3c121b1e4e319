"""Queues between the threads of the route: both are bounded, and both say what they lose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


Overload = Literal["newest", "oldest", "block"]
"""What a full backlog keeps: what came last, what came first, or everything, so that whoever puts
must ask `has_room` and wait."""

MOST_LANES = 64
"""Cameras that may have frames waiting at once; what names itself differently in every frame must
not take memory for each name."""


class Backlog(Generic[T]):
    """A bounded queue that gives back what it cannot keep, and says what that is.

    Items have lanes, a camera each, which are taken from in turn; a lane has its own bound, so that
    a fast camera costs no other one. What cannot be kept is given back to whoever puts, who must
    account for it, because a silent drop is a missed part. With "newest" it is the oldest of a full
    lane, whose part has left the station first, or, where bytes are short, the oldest of the lane
    that takes most of them; otherwise it is the new item itself.
    """

    def __init__(
        self,
        most_items: int,
        most_bytes: int = 1 << 62,
        size_of: Callable[[T], int] = lambda _: 0,
        lane_of: Callable[[T], Hashable] = lambda _: None,
        overload: Overload = "newest",
    ) -> None:
        """Make an empty one.

        Args:
            most_items: Of one lane.
            most_bytes: Of all lanes together.
            size_of: Bytes of an item.
            lane_of: Whose it is.
            overload: What is kept when there is no room.
        """
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._lane_of = lane_of
        self._overload = overload
        # In the order of their turns; a lane without items is not kept.
        self._lanes: dict[Hashable, _Lane[T]] = {}
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self.forgotten = 0

    def __len__(self) -> int:
        with self._changed:
            return sum(len(lane.items) for lane in self._lanes.values())

    def has_room(self, item: T) -> bool:
        """Whether `put` would keep an item and forget none for it."""
        with self._changed:
            return self._has_room(item)

    def put(self, item: T) -> list[T]:
        """Add the newest item of its lane; never blocks.

        Returns:
            What was forgotten for it; the item itself when it is what cannot be kept, or the
            backlog is closed.
        """
        size, name = self._size_of(item), self._lane_of(item)
        with self._changed:
            forgotten: list[T] = []
            hopeless = self._closed or size > self._most_bytes or self._is_one_too_many(name)
            if hopeless or (self._overload != "newest" and not self._has_room(item)):
                self.forgotten += 1
                return [item]
            if self._is_full(name):
                forgotten.append(self._take_oldest(name))
            while self._bytes + size > self._most_bytes:
                most = max(self._lanes, key=lambda each: self._lanes[each].nbytes)
                forgotten.append(self._take_oldest(most))
            self.forgotten += len(forgotten)
            lane = self._lanes.setdefault(name, _Lane())
            lane.items.append(item)
            lane.nbytes += size
            self._bytes += size
            self._changed.notify_all()
        return forgotten

    def close(self) -> None:
        """Let the taker end once it is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> list[T]:
        """Say that nobody will take again, and give back what was waiting."""
        with self._changed:
            self._closed = True
            left = [self._take_next() for _ in range(len(self))]
            self._changed.notify_all()
        return left

    def __iter__(self) -> Iterator[T]:
        """Take the oldest of the next lane, waiting for one; ends when closed and empty."""
        while True:
            with self._changed:
                while not self._lanes and not self._closed:
                    self._changed.wait()
                if not self._lanes:
                    return
                item = self._take_next()
            yield item

    def _has_room(self, item: T) -> bool:
        name = self._lane_of(item)
        fits = self._bytes + self._size_of(item) <= self._most_bytes
        return fits and not self._is_full(name) and not self._is_one_too_many(name)

    def _is_full(self, name: Hashable) -> bool:
        return name in self._lanes and len(self._lanes[name].items) >= self._most_items

    def _is_one_too_many(self, name: Hashable) -> bool:
        return name not in self._lanes and len(self._lanes) >= MOST_LANES

    def _take_next(self) -> T:
        name = next(iter(self._lanes))
        item = self._take_oldest(name)
        if name in self._lanes:
            # Its turn comes again after all the others'.
            self._lanes[name] = self._lanes.pop(name)
        return item

    def _take_oldest(self, name: Hashable) -> T:
        lane = self._lanes[name]
        item = lane.items.popleft()
        size = self._size_of(item)
        lane.nbytes -= size
        self._bytes -= size
        if not lane.items:
            del self._lanes[name]
        return item


class _Lane(Generic[T]):
    """What waits of one camera, oldest first."""

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.nbytes = 0


class Handover(Generic[T]):
    """A bounded queue that makes the giver wait: for work that is worth finishing.

    It forgets nothing, and closed it takes nothing: a giver is told at once, and must account for
    what it holds.
    """

    def __init__(self, most_items: int) -> None:
        self._most_items = most_items
        self._items: deque[T] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Add an item, waiting for room; False when it is closed and nobody will ever take it."""
        with self._changed:
            while len(self._items) >= self._most_items and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
        return True

    def take(self, most: int) -> list[T]:
        """Take what is there, `most` at the most, waiting for one; empty means closed for good."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._changed.notify_all()
        return taken

    def take_some(self, choose: Callable[[Sequence[T]], int], timeout_s: float) -> list[T] | None:
        """Take the first few of what waits, as many as a function of all of it says.

        Args:
            choose: Given what waits, at least one, says how many to take, at least one.
            timeout_s: How long to wait for something to come.

        Returns:
            What was taken: nothing if nothing came, None if it is closed and empty.
        """
        with self._changed:
            if not self._items and not self._closed:
                self._changed.wait(timeout_s)
            if not self._items:
                return None if self._closed else []
            taken = [self._items.popleft() for _ in range(choose(tuple(self._items)))]
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Let the taker end once it is empty."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> list[T]:
        """Say that nobody will take again, and give back what was waiting."""
        with self._changed:
            self._closed = True
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
        return left
