"""A camera of the fault run: it may be killed at any moment, and knows afterwards what it owed.

    python -m tests.line.fault_camera ADDRESS NAME FRAMES RATE_HZ JOURNAL

The journal is what a real camera's line would know: which triggers there were, and which of them
were answered. A camera that starts again goes on with its session at the first trigger that has no
answer; its frames can be taken again because they are drawn from their numbers.
"""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

import cv2
import numpy as np

from edge.camera import Camera, Ticket
from edge.player import pace
from tests.bundles import bad_frame, good_frame

BAD, BROKEN = 10, 50
"""Every tenth part is bad, and of every fiftieth the picture is cut short."""


def kind_of(seq: int) -> str:
    """What a trigger shows."""
    if seq % BROKEN == 7:
        return "broken"
    return "bad" if seq % BAD == 3 else "good"


def picture(seq: int, name: str) -> bytes:
    """The picture of a trigger, as a PNG."""
    seed = 1 + 2 * seq + sum(name.encode())
    frame = bad_frame("bolt", seed) if kind_of(seq) == "bad" else good_frame("bolt", seed)
    # Some 20 views: a station that is busy, so that there is time for things to break.
    data = cv2.imencode(".png", np.tile(frame, (2, 4, 1))[:, :, ::-1])[1].tobytes()
    return data[: len(data) // 2] if kind_of(seq) == "broken" else data


def journal_of(path: Path) -> tuple[set[int], dict[int, str]]:
    """Triggers, and answers by trigger; a last line that was torn says nothing."""
    triggers: set[int] = set()
    answers: dict[int, str] = {}
    for line in path.read_text().split("\n")[:-1] if path.exists() else []:
        what, seq, *verdict = line.split()
        if what == "t":
            triggers.add(int(seq))
        else:
            answers[int(seq)] = verdict[0]
    return triggers, answers


def main(address: str, name: str, frames: int, rate_hz: float, path: Path) -> int:
    """Play all frames, however often it takes; 0 when every one is answered."""
    triggers, answers = journal_of(path)
    first = min(triggers - set(answers), default=len(triggers))
    waiting: deque[Ticket] = deque()
    with (
        path.open("a", buffering=1) as journal,
        Camera(
            address, name, product="bolt", session="run", first_seq=first, timeout_s=120.0
        ) as camera,
    ):

        def note_answers() -> None:
            while waiting and (said := waiting[0].said) is not None:
                journal.write(f"a {waiting.popleft().seq} {said.verdict}\n")

        for _, seq in zip(pace(rate_hz), range(first, frames), strict=False):
            if seq not in triggers:
                journal.write(f"t {seq}\n")
            waiting.append(camera.send(picture(seq, name), part=f"{name}-{seq}"))
            note_answers()
        left = camera.close()
        note_answers()
    return left


if __name__ == "__main__":
    cv2.setNumThreads(1)
    given = sys.argv[1:]
    sys.exit(main(given[0], given[1], int(given[2]), float(given[3]), Path(given[4])))
