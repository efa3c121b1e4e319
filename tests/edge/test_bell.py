"""The bell: it wakes whoever polls, and whoever rings never waits and never fails."""

from __future__ import annotations

import select
from contextlib import closing

from edge.bell import Bell


def is_ringing(bell: Bell) -> bool:
    return bool(select.select([bell], [], [], 0.0)[0])


def test_it_rings_until_it_is_hushed() -> None:
    with closing(Bell()) as bell:
        assert not is_ringing(bell)
        bell.ring()
        bell.ring()

        assert is_ringing(bell)
        bell.hush()
        assert not is_ringing(bell)
        bell.hush()


def test_ringing_without_end_neither_waits_nor_fails() -> None:
    with closing(Bell()) as bell:
        for _ in range(1 << 17):  # a pipe holds half as many
            bell.ring()

        assert is_ringing(bell)


def test_whoever_rings_after_the_end_is_not_the_worse_for_it() -> None:
    bell = Bell()
    bell.close()

    bell.ring()
