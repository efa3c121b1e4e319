"""Where requests for a swap are granted or refused, and where its state can be read by any thread.

One swap at a time. What is granted is done by `edge.swapping`, in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from inspection.control_messages import AT_REST, ControlReply, ControlRequest, Step, SwapState
from inspection.errors import DualbankError

BEFORE_ACTIVATION: tuple[Step, ...] = ("verifying", "loading", "proving", "shadow")


class AbortedError(DualbankError):
    """A swap ends because it was asked to, or because the station ends."""


class SwapDesk:
    """State of the swap, and what was asked of it. Every thread may call anything here."""

    def __init__(self, state: SwapState, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock_s = clock_s
        self._state = state
        self._entered_s = clock_s()
        self._aborting = self._activating = self._rolling_back = self._closed = False
        # At most one that is not None: another is granted only when nothing is under way.
        self._orders: SimpleQueue[ControlRequest | None] = SimpleQueue()
        self._woken = threading.Event()

    # For whoever asks.

    def state(self) -> SwapState:
        """Give the state as of now."""
        with self._lock:
            return self._state

    def ask(self, request: ControlRequest) -> ControlReply:
        """Grant a request, or say why not; what is granted has been taken up, not done."""
        with self._lock:
            why = self._objection(request)
            if why is None:
                self._grant(request)
            return ControlReply(granted=why is None, why=why, state=self._state)

    def close(self) -> None:
        """Let the swap end where it is, and grant nothing any more."""
        with self._lock:
            self._closed = True
            self._orders.put(None)
            self._woken.set()

    # For the one thread that swaps.

    def take(self) -> ControlRequest | None:
        """Wait for what was granted; None when the desk is closed."""
        return self._orders.get()

    def enter(self, step: Step, **changes: Any) -> None:
        """Begin a step; notes how long the one before took.

        Raises:
            AbortedError: The end was granted before, and the step is on the way to an activation.
        """
        with self._lock:
            if step in (*BEFORE_ACTIVATION, "activating"):
                self.go_on()
            now_s, before = self._clock_s(), self._state
            took_s = dict(before.took_s)
            if before.step not in AT_REST:
                took_s[before.step] = round(now_s - self._entered_s, 3)
            self._entered_s = now_s
            self._state = before.model_copy(update={"took_s": took_s, **changes, "step": step})
            too_late = self._rolling_back and step == "steady"
            self._activating = self._rolling_back = False
            if too_late:
                # Granted in probation, which has ended in the same moment: it is done from here.
                self._grant(ControlRequest(ask="rollback"))

    def note(self, **changes: Any) -> None:
        """Change what people see of a step."""
        with self._lock:
            self._state = self._state.model_copy(update=changes)

    def go_on(self) -> None:
        """Return while nobody has asked for the end.

        Raises:
            AbortedError: Somebody has.
        """
        if self._closed:
            raise AbortedError("the station is stopping")
        if self._aborting:
            raise AbortedError("aborted by request")

    def wait(self, timeout_s: float) -> None:
        """Wait, but not when something is asked."""
        self._woken.wait(timeout_s)
        self._woken.clear()

    @property
    def is_closed(self) -> bool:
        """Whether the station ends."""
        return self._closed

    @property
    def shadow_is_enough(self) -> bool:
        """Whether a request ends the shadow before its time."""
        return self._activating

    @property
    def wants_rollback(self) -> bool:
        """Whether a request ends the probation."""
        return self._rolling_back

    # With the lock held.

    def _objection(self, request: ControlRequest) -> str | None:
        state = self._state
        if request.ask == "status":
            return None
        if self._closed:
            return "the station is stopping"
        if request.ask == "swap":
            if state.step not in AT_REST:
                return (
                    f"another swap is under way, of {_short(state.candidate) or state.source}, in "
                    f"step {state.step}; wait for its end, or ask for abort or rollback"
                )
            assert request.bundle is not None
            if not Path(request.bundle).is_absolute():
                return f"expected an absolute path of the bundle, got {request.bundle!r}"
        if request.ask == "activate" and state.step != "shadow":
            return f"nothing runs in shadow: the step is {state.step}"
        if request.ask == "abort" and state.step not in BEFORE_ACTIVATION:
            advice = "; ask for rollback" if state.step in ("activating", "probation") else ""
            return f"there is nothing to abort: the step is {state.step}{advice}"
        if request.ask == "rollback":
            if state.step not in (*AT_REST, "probation"):
                return f"the new bundle does not run yet, in step {state.step}; ask for abort"
            if state.previous is None:
                return "there is no bundle to go back to"
        return None

    def _grant(self, request: ControlRequest) -> None:
        if request.ask == "activate":
            self._activating = True
        elif request.ask == "abort":
            self._aborting = True
        elif request.ask == "rollback" and self._state.step == "probation":
            self._rolling_back = True
        elif request.ask in ("swap", "rollback"):
            # Under way from here on, so that nobody else is granted one.
            self._state = self._state.model_copy(
                update={
                    "step": "verifying" if request.ask == "swap" else "activating",
                    "candidate": None if request.ask == "swap" else self._state.previous,
                    "source": request.bundle,
                    "why": None,
                    "took_s": {},
                    "shadow": None,
                    "probation": None,
                }
            )
            self._aborting = False
            self._entered_s = self._clock_s()
            self._orders.put(request)
        self._woken.set()


def _short(bundle_id: str | None) -> str | None:
    return bundle_id and bundle_id[:12]
