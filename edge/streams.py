"""Queues of the GPU's work and points on them, and how the driver's errors become ours.

Opened by `edge.device`: see there for who owns what.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from inspection.errors import DeviceError

PATIENCE_S = 5.0
"""Nothing that a station puts on a stream takes so long: a GPU that has not come to it hangs."""

POLL_S = 20e-6
"""Between two looks at work under way; a sleeping thread leaves its core to the cameras."""


class DeviceMemoryError(DeviceError):
    """There is no room left; what was held before goes on."""


class DeviceHangsError(DeviceError):
    """The GPU does not come to an end: nothing of it can be freed, because freeing waits too."""


@contextmanager
def as_device_error(driver: ModuleType, what: str) -> Iterator[None]:
    """Raise what pycuda raises as a `DeviceError` that says what was being done."""
    try:
        yield
    except driver.MemoryError as error:
        raise DeviceMemoryError(f"{what}: the GPU has not enough memory left ({error})") from error
    except driver.Error as error:
        raise DeviceError(f"{what} failed: {error}") from error


class Stream:
    """A queue of the GPU's work; nothing on it has happened before something waited for it."""

    def __init__(self, driver: ModuleType) -> None:
        self._driver = driver
        self._stream = driver.Stream()

    @property
    def handle(self) -> int:
        """The CUstream, for libraries that are not pycuda."""
        return int(self._stream.handle)

    @property
    def borrowed(self) -> Any:
        """The stream as pycuda knows it."""
        return self._stream

    def wait_for(self, event: Event) -> None:
        """Let what is put on this stream from now on come after an event; the host goes on."""
        with as_device_error(self._driver, "waiting for an event"):
            self._stream.wait_for_event(event.borrowed)

    def synchronize(self) -> None:
        """Block until everything on this stream has happened.

        Raises:
            DeviceError: Something on it failed; the context is of no more use.
        """
        with as_device_error(self._driver, "work on a stream"):
            self._stream.synchronize()

    def close(self) -> None:
        """Give the stream back; it is of no more use."""
        self._stream = None


class Event:
    """A point on a stream that others can wait for; before it is recorded nobody waits."""

    def __init__(self, driver: ModuleType) -> None:
        self._driver = driver
        flags = driver.event_flags
        # Without a clock an event costs less, and blocking leaves the core to the cameras.
        self._event = driver.Event(flags.DISABLE_TIMING | flags.BLOCKING_SYNC)

    @property
    def borrowed(self) -> Any:
        """The event as pycuda knows it."""
        return self._event

    def record(self, stream: Stream) -> None:
        """Move the point behind everything that is on a stream now."""
        with as_device_error(self._driver, "recording an event"):
            self._event.record(stream.borrowed)

    def reached(self) -> bool:
        """Whether everything before the point has happened; True if it was never recorded."""
        with as_device_error(self._driver, "work before an event"):
            return bool(self._event.query())

    def wait(self, limit_s: float = PATIENCE_S) -> None:
        """Block until the point is reached, but not for ever.

        Raises:
            DeviceHangsError: It was not within the limit.
            DeviceError: Something before it failed; the context is of no more use.
        """
        begin = time.monotonic()
        while not self.reached():
            if time.monotonic() - begin > limit_s:
                raise DeviceHangsError(f"the GPU did not end its work within {limit_s:g} s")
            time.sleep(POLL_S)

    def synchronize(self) -> None:
        """Block until the point is reached."""
        with as_device_error(self._driver, "work before an event"):
            self._event.synchronize()

    def close(self) -> None:
        """Give the event back; it is of no more use."""
        self._event = None


class Fence:
    """Keeps who writes an array of device memory apart from those who read it.

    Attributes:
        ready: Behind the last write: what reads waits for it.
        readers: Behind the last read of each who reads.
        version: How many times it was written.
    """

    def __init__(self, ready: Event) -> None:
        self.ready = ready
        self.readers: list[Event] = []
        self.version = 0

    def begin_writing(self, stream: Stream) -> None:
        """Let a stream wait for all who read or write now; from here on contents are mixed."""
        for earlier in (self.ready, *self.readers):
            stream.wait_for(earlier)
        self.version += 1
