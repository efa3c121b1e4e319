"""Queues between the threads of the route: both are bounded, and both say what they lose."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """A bounded queue that forgets its oldest item rather than block the camera.

    A stale frame is worth nothing: its part has left the station. So a full backlog gives its
    oldest back to whoever puts, who must account for it, because a silent drop is a missed part.
    """

    def __init__(
        self, most_items: int, most_bytes: int = 1 << 62, size_of: Callable[[T], int] = lambda _: 0
    ) -> None:
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._size_of = size_of
        self._items: deque[T] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> list[T]:
        """Add the newest item; never blocks.

        Returns:
            What was forgotten for it, oldest first; the item itself when it alone is too large, or
            the backlog is closed.
        """
        size = self._size_of(item)
        with self._changed:
            if self._closed or size > self._most_bytes:
                self.forgotten += 1
                return [item]
            forgotten = []
            while len(self._items) >= self._most_items or self._bytes + size > self._most_bytes:
                forgotten.append(self._take_oldest())
            self.forgotten += len(forgotten)
            self._items.append(item)
            self._bytes += size
            self._changed.notify()
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
            left = [self._take_oldest() for _ in range(len(self._items))]
            self._changed.notify_all()
        return left

    def __iter__(self) -> Iterator[T]:
        """Take the oldest, waiting for one; ends when closed and empty."""
        while True:
            with self._changed:
                while not self._items and not self._closed:
                    self._changed.wait()
                if not self._items:
                    return
                item = self._take_oldest()
            yield item

    def _take_oldest(self) -> T:
        item = self._items.popleft()
        self._bytes -= self._size_of(item)
        return item


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

    def __iter__(self) -> Iterator[T]:
        """Take one after the other; ends when closed and empty."""
        while taken := self.take(1):
            yield taken[0]

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
