"""The soak run says no when anything grows."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.soak_figures import Look, Minute, bar, changes

LOOKS = [Look(10.0 * tick, 200.0 + tick, 50, 17) for tick in range(5)]


def minute_of(p99_ms: float, descriptors: list[int], threads: list[int]) -> Minute:
    return Minute(1000, 20.0, p99_ms, 0, None, 0.5, 200.0, descriptors, threads)


MINUTES = [minute_of(p99_ms, [50, 51, 50], [17]) for p99_ms in (50.0, 90.0, 60.0)]
COUNTS: dict[str, Any] = dict.fromkeys(("sent", "heard", "acknowledged"), 3000) | {
    "station": {"recorded": 3000}
}


def test_a_run_on_every_limit_holds() -> None:
    assert all(bar(COUNTS | changes(LOOKS, MINUTES)).values())


@pytest.mark.parametrize(
    ("looks", "minutes", "counts"),
    [
        pytest.param([*LOOKS, Look(60.0, 206.1, 50, 17)], MINUTES, {}, id="memory"),
        pytest.param([*LOOKS, Look(60.0, 193.9, 50, 17)], MINUTES, {}, id="less memory"),
        pytest.param(LOOKS, [*MINUTES, minute_of(60.0, [52, 51], [17])], {}, id="descriptors"),
        pytest.param(LOOKS, [*MINUTES, minute_of(60.0, [50], [18])], {}, id="threads"),
        pytest.param(LOOKS, MINUTES[:2], {}, id="p99"),
        pytest.param(LOOKS, MINUTES, {"heard": 2999}, id="a verdict that nobody heard"),
    ],
)
def test_what_grows_or_is_lost_is_the_one_thing_that_does_not_hold(
    looks: list[Look], minutes: list[Minute], counts: dict[str, int]
) -> None:
    held = bar(COUNTS | counts | changes(looks, minutes))

    assert sum(not each for each in held.values()) == 1
