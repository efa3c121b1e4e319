"""Queues: what a full one does, and that nobody waits for ever."""

from __future__ import annotations

import threading

import pytest

from edge.backlog import MOST_LANES, Backlog, Handover, Overload


def test_a_full_backlog_forgets_its_oldest_and_gives_it_back() -> None:
    backlog: Backlog[int] = Backlog(2)

    given_back = [backlog.put(item) for item in range(4)]

    backlog.close()
    assert given_back == [[], [], [0], [1]]
    assert list(backlog) == [2, 3]
    assert backlog.forgotten == 2


def test_a_backlog_is_bounded_in_bytes_too() -> None:
    backlog: Backlog[bytes] = Backlog(100, most_bytes=10, size_of=len)

    assert backlog.put(b"aaaa") == []
    assert backlog.put(b"bbbb") == []
    assert backlog.put(b"cccccccc") == [b"aaaa", b"bbbb"]
    assert backlog.put(b"d" * 11) == [b"d" * 11], "alone too large: nothing is forgotten for it"
    assert len(backlog) == 1


def test_bytes_of_what_was_taken_make_room() -> None:
    backlog: Backlog[bytes] = Backlog(100, most_bytes=4, size_of=len)
    taken = iter(backlog)

    for _ in range(5):
        assert backlog.put(b"1234") == []
        assert next(taken) == b"1234"


def test_a_closed_backlog_is_emptied_and_takes_no_more() -> None:
    backlog: Backlog[int] = Backlog(5)
    backlog.put(1)
    backlog.close()

    assert backlog.put(2) == [2]
    assert list(backlog) == [1]


def taken_from(handover: Handover[int]) -> list[int]:
    """Everything, one after the other, until it is closed."""
    taken: list[int] = []
    while one := handover.take(1):
        taken += one
    return taken


def test_closing_wakes_a_taker_that_waits() -> None:
    backlog, handover = Backlog[int](1), Handover[int](1)
    for queue, wait in ((backlog, lambda: list(backlog)), (handover, lambda: handover.take(1))):
        ended = threading.Event()
        taker = threading.Thread(target=lambda w=wait, e=ended: (w(), e.set()))  # type: ignore[misc]
        taker.start()

        queue.close()

        assert ended.wait(10)
        taker.join()


def test_a_full_handover_makes_the_giver_wait_and_keeps_the_order() -> None:
    handover: Handover[int] = Handover(1)
    giver = threading.Thread(
        target=lambda: ([handover.put(item) for item in range(50)], handover.close())
    )
    giver.start()

    taken = taken_from(handover)

    giver.join()
    assert taken == list(range(50))


def test_take_gives_what_is_there_up_to_a_limit() -> None:
    handover: Handover[int] = Handover(5)
    for item in range(5):
        handover.put(item)
    handover.close()

    assert handover.take(3) == [0, 1, 2]
    assert handover.take(3) == [3, 4]
    assert handover.take(3) == []


def test_a_taker_chooses_how_many_of_what_waits() -> None:
    handover: Handover[int] = Handover(5)
    for item in (2, 7, 7):
        handover.put(item)

    assert handover.take_some(lambda waiting: waiting[0], 0.0) == [2, 7]
    assert handover.take_some(len, 0.0) == [7]
    assert handover.take_some(len, 0.0) == []
    handover.close()
    assert handover.take_some(len, 10.0) is None


Shown = tuple[str, int]


def cameras(most_items: int, overload: Overload = "newest") -> Backlog[Shown]:
    return Backlog(most_items, lane_of=lambda shown: shown[0], overload=overload)


def test_cameras_are_taken_from_in_turn() -> None:
    backlog = cameras(10)
    for shown in [("fast", 0), ("fast", 1), ("fast", 2), ("slow", 0), ("fast", 3), ("late", 0)]:
        backlog.put(shown)
    backlog.close()

    assert list(backlog) == [
        ("fast", 0),
        ("slow", 0),
        ("late", 0),
        ("fast", 1),
        ("fast", 2),
        ("fast", 3),
    ]


def test_a_fast_camera_loses_its_own_frames_and_no_other_ones() -> None:
    backlog = cameras(2)
    backlog.put(("slow", 0))
    forgotten = [each for i in range(20) for each in backlog.put(("fast", i))]
    forgotten += backlog.put(("slow", 1))
    backlog.close()

    assert {camera for camera, _ in forgotten} == {"fast"}
    assert list(backlog) == [("slow", 0), ("fast", 18), ("slow", 1), ("fast", 19)]


def test_a_backlog_that_keeps_the_oldest_gives_the_new_one_back() -> None:
    backlog = cameras(2, "oldest")
    forgotten = [each for i in range(4) for each in backlog.put(("fast", i))]
    forgotten += backlog.put(("slow", 0))
    backlog.close()

    assert forgotten == [("fast", 2), ("fast", 3)]
    assert list(backlog) == [("fast", 0), ("slow", 0), ("fast", 1)]
    assert backlog.forgotten == 2


def test_whoever_blocks_can_ask_for_room_first() -> None:
    backlog = cameras(1, "block")
    backlog.put(("fast", 0))

    assert not backlog.has_room(("fast", 1))
    assert backlog.has_room(("slow", 0)), "another camera's frame has a lane of its own"
    assert next(iter(backlog)) == ("fast", 0)
    assert backlog.has_room(("fast", 1))


@pytest.mark.parametrize("overload", ["newest", "oldest", "block"])
def test_names_that_are_made_up_take_no_more_than_their_share(overload: Overload) -> None:
    backlog = cameras(3, overload)
    for number in range(MOST_LANES):
        backlog.put((f"camera {number}", 0))

    assert backlog.put(("one too many", 0)) == [("one too many", 0)]
    assert backlog.put(("camera 0", 1)) == []
    assert len(backlog) == MOST_LANES + 1


def test_the_camera_that_takes_most_bytes_makes_room() -> None:
    backlog: Backlog[bytes] = Backlog(
        100, most_bytes=10, size_of=len, lane_of=lambda frame: frame[:1]
    )
    for frame in (b"aa", b"aa", b"bbbbbb"):
        backlog.put(frame)

    assert backlog.put(b"aa") == [b"bbbbbb"]


def test_abandoning_frees_a_giver_and_gives_back_what_waited() -> None:
    handover: Handover[int] = Handover(1)
    handover.put(1)
    taken: list[bool] = []
    giver = threading.Thread(target=lambda: taken.append(handover.put(2)))
    giver.start()

    left = handover.abandon()

    giver.join(10)
    assert left == [1]
    assert taken == [False], "the giver is told, for it must account for the item"
