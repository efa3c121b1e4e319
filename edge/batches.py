"""Keeps a scorer busy: batches as large as deadlines allow, as many under way as it takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from edge.backlog import Handover
from edge.outcome import NoScoreError
from edge.scorer import Answer, Scorer, alike
from edge.self_test import Waiting
from edge.streams import POLL_S
from inspection.verdicts import Reason

IDLE_S = 0.02
"""Between two looks at what else a scorer has to do, while no frame comes."""


def score_all(
    scorer: Scorer,
    frames: Handover[Waiting],
    admit: Callable[[Waiting], bool],
    answer: Callable[[Waiting, Answer], None],
) -> None:
    """Score until the frames are closed and all of them are answered.

    Args:
        scorer: Of this thread.
        frames: What waits.
        admit: Asked of every frame when its turn comes; it has answered those it refuses.
        answer: Called for every admitted frame, in the order in which they came.

    Raises:
        BaseException: What the scorer raised; every admitted frame has been answered before.
    """
    taken: list[Waiting] = []
    under_way: deque[list[Waiting]] = deque()
    try:
        while True:
            scorer.tend()
            if under_way and (answers := scorer.poll()) is not None:
                for each in answers:
                    answer(under_way[0].pop(0), each)
                under_way.popleft()
                continue
            if len(under_way) >= scorer.depth:
                time.sleep(POLL_S)
                continue
            some = frames.take_some(
                partial(_how_many, scorer=scorer, ahead=len(under_way)),
                POLL_S if under_way else IDLE_S,
            )
            if some is None and not under_way:
                return
            taken = some or []
            # Under way from the first admitted frame on: whatever fails, it will be answered.
            under_way.append([])
            while taken:
                if admit(frame := taken.pop(0)):
                    under_way[-1].append(frame)
            if under_way[-1]:
                scorer.submit([frame.question for frame in under_way[-1]])
            else:
                under_way.pop()
    except BaseException as error:
        failed = NoScoreError(Reason.SCORER_FAILED, f"{type(error).__name__}: {error}")
        for frame in (*(each for batch in under_way for each in batch), *taken):
            answer(frame, failed)
        raise


def _how_many(waiting: Sequence[Waiting], scorer: Scorer, ahead: int) -> int:
    """Choose the largest batch of the first frames that can share one and are still in time.

    Args:
        waiting: At least one; the first is taken in any case.
        scorer: Knows how long a batch takes.
        ahead: Batches under way, which are scored first.
    """
    chosen, remaining_ms = 1, waiting[0].remaining_ms
    for count, frame in enumerate(waiting[1 : scorer.most_frames], start=2):
        remaining_ms = min(remaining_ms, frame.remaining_ms)
        late = remaining_ms < (1 + ahead) * scorer.expected_ms(count)
        if late or not alike(waiting[0].question, frame.question):
            break
        chosen = count
    return chosen
