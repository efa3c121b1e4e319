"""Threads that say when they are ready, and never die in silence."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from inspection.errors import DualbankError

log = logging.getLogger(__name__)

T = TypeVar("T")

NICE = 10
"""By how much a thread that tries a bundle is nicer than the route's. While one scored every fifth
of the time, p99 of the route rose 1.9 times with 0, 1.5 times with 10 and 2.3 times with 19 (one
core of two threads, 60 % load): so nice a thread waits for the core while it has the interpreter.
"""

Ready = Callable[[], None]
"""A worker calls it once, when what it opened is open."""


class Worker:
    """One thread of the route.

    Daemonic, because a scorer that hangs inside a library must not keep the station from ending:
    whoever starts a worker joins it with a limit, and says so when the limit passes.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[Ready], None],
        died: Callable[[BaseException], None],
    ) -> None:
        """Start the thread and wait until it is ready.

        Args:
            name: Of the thread, for logs.
            work: Opens what it needs, calls `Ready`, works, and closes; all in its own thread.
            died: Called from the thread when `work` raises after it was ready.

        Raises:
            DualbankError: What `work` raised before it was ready.
        """
        self.name = name
        self._work = work
        self._died = died
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def join(self, timeout_s: float) -> bool:
        """Wait for the end; False if it has not come."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work(self._ready.set)
        # Everything, because this is a thread's last frame: what is not passed on here is lost.
        except BaseException as failure:  # noqa: BLE001
            self._end(failure)
        finally:
            self._ready.set()

    def _end(self, failure: BaseException) -> None:
        if not self._ready.is_set():
            self._failure = failure
            return
        trace = None if isinstance(failure, DualbankError) else failure
        log.error("worker died", extra={"worker": self.name, "error": failure}, exc_info=trace)
        self._died(failure)


def out_of_the_way(do: Callable[[], T]) -> T:
    """Run something in a thread of its own that gets the core after the route's.

    Threads that are started meanwhile stay as nice for good: open a scorer before.
    """
    with ThreadPoolExecutor(1, "trial", _step_back) as trial:
        return trial.submit(do).result()


def _step_back() -> None:
    thread = threading.get_native_id()
    try:
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, nice + NICE)
    except OSError as error:
        log.warning("a trial gets as much of the cores as the route", extra={"why": error})
