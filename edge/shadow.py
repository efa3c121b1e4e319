"""Runs a new bundle in shadow: what it says of frames that the running one has judged.

At the pace that the route leaves: a frame that comes while one is looked at is passed over, and
between two of them the cores are the route's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edge.outcome import Outcome
from edge.sightings import Sighting, Sightings
from edge.swap_desk import SwapDesk
from edge.trial import Shadow
from inspection.control_messages import Terms
from inspection.errors import InputError

REST = 4.0
"""After a frame, so many times as long as it took, nothing is done: with 1.0 a station at 60 % load
fell behind. See also `edge.workers.NICE`."""

WAIT_S = 0.1
"""For a frame, between two looks at whether somebody wants the end."""


def run_in_shadow(
    terms: Terms,
    sightings: Sightings,
    desk: SwapDesk,
    judge: Callable[[Sighting], Outcome],
    rest: float = REST,
) -> None:
    """Compare as many frames as the terms say, or as come in time; what is found goes to the desk.

    Args:
        terms: `shadow_frames`, `shadow_s` and `most_flipped`.
        sightings: Hands frames over.
        desk: May want the end.
        judge: By the new bundle.
        rest: Time that is left to the route after a frame, per time that the frame took.

    Raises:
        InputError: More verdicts flip than the terms allow.
        AbortedError: See `SwapDesk.go_on`.
    """
    shadow, ends_s = Shadow(terms), time.monotonic() + terms.shadow_s
    with sightings.shadowing():
        while not (shadow.is_over or desk.shadow_is_enough or time.monotonic() > ends_s):
            desk.go_on()
            sighting = sightings.next_frame(WAIT_S)
            if sighting is not None:
                begun_s = time.monotonic()
                shadow.compare(sighting[1], judge(sighting))
                time.sleep(rest * (time.monotonic() - begun_s))
            shadow.passed_over = sightings.passed_over
            desk.note(shadow=shadow.report())
    if why := shadow.objection():
        raise InputError(why)
