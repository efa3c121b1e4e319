"""Wakes a thread that waits for sockets. What there is to do, it finds elsewhere."""

from __future__ import annotations

import os
import threading
from contextlib import suppress


class Bell:
    """A pipe: one thread polls it beside its sockets, any thread rings, also after the end."""

    def __init__(self) -> None:
        self._ear, self._wire = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._is_open = True

    def fileno(self) -> int:
        """For a poller: readable once it has been rung."""
        return self._ear

    def ring(self) -> None:
        """Wake the thread; never waits, and rings for nobody when the bell is closed."""
        with self._lock, suppress(BlockingIOError):  # full: it has been rung often enough
            if self._is_open:
                os.write(self._wire, b"!")

    def hush(self) -> None:
        """Forget how often it has been rung; for the thread that is woken."""
        with suppress(BlockingIOError):
            os.read(self._ear, 4096)

    def close(self) -> None:
        """Let go of the pipe."""
        with self._lock:
            self._is_open = False
            os.close(self._ear)
            os.close(self._wire)
