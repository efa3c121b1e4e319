"""Counters, stopwatch and workers."""

from __future__ import annotations

import threading

import pytest

from edge.health import LAST_VERDICTS, MOST_CAMERAS, OTHER, Health, Stopwatch
from edge.latencies import BOUNDS_S, LATEST
from edge.workers import Ready, Worker
from inspection.errors import StationError
from inspection.verdicts import Reason, Verdict
from tests.edge.stations import record, said


def test_a_stopwatch_gives_every_stage_its_own_time_and_the_sum() -> None:
    now = 1_000_000
    stopwatch = Stopwatch(lambda: now, now)
    for stage, took_ms in (("queue", 2), ("decode", 5)):
        now += took_ms * 1_000_000
        stopwatch.lap(stage)

    assert stopwatch.latency_ms() == {"queue": 2.0, "decode": 5.0, "total": 7.0}
    assert stopwatch.has_passed(6.9)
    assert not stopwatch.has_passed(7.0)


def test_percentiles_are_over_the_latest_frames_only() -> None:
    health = Health()
    for seq, value in enumerate([1000.0] * 10 + [1.0] * LATEST):
        record(health, said(seq=seq, latency_ms={"total": value}))

    report = health.report()
    assert report["latency_ms"]["total"] == {"p50": 1.0, "p99": 1.0}
    assert report["verdicts"]["PASS"] == LATEST + 10


def test_a_histogram_counts_every_frame_of_the_run_up_to_each_bound() -> None:
    health = Health()
    for seq, took_ms in enumerate([0.5, 0.6, 30_000.0]):  # the first lies on a bound
        record(health, said(seq=seq, latency_ms={"total": took_ms}))

    times = health.snapshot().stages["total"]
    assert times.up_to == (1, *[2] * (len(BOUNDS_S) - 1), 3)
    assert times.sum_s == pytest.approx(30.0011)


def test_unknown_is_counted_by_reason_and_not_as_scored() -> None:
    health = Health()
    for reason in (Reason.BAD_IMAGE, Reason.BAD_IMAGE, Reason.BACKLOG_FULL):
        record(health, said(Verdict.UNKNOWN, reason=reason))
    record(health, said(Verdict.FAIL))

    report = health.report()
    assert report["unknown"] == {"bad_image": 2, "backlog_full": 1}
    assert (report["scored"], report["recorded"]) == (1, 4)


def test_received_is_what_came_to_an_end_and_what_is_under_way() -> None:
    health = Health()
    health.count("received", 7)
    health.count("malformed")
    health.count("redelivered", 2)
    record(health, said())

    report = health.report()
    assert (report["received"], report["recorded"], report["unaccounted"]) == (8, 1, 4)


def test_cameras_beyond_the_first_are_counted_together() -> None:
    health = Health()
    for n in range(MOST_CAMERAS + 5):
        record(health, said(camera=f"cam{n}"))

    cameras = health.snapshot().cameras
    assert len(cameras) == MOST_CAMERAS + 1
    assert (cameras["cam0"].frames, cameras[OTHER].frames) == (1, 5)
    assert cameras[OTHER].verdicts == {Verdict.PASS: 5}


def test_frames_are_counted_by_the_door_that_they_came_in_by() -> None:
    health = Health()
    health.count_frame("cam0", "imagezmq")
    health.count_frame("cam0", "cameras")
    health.count_frame("cam0", "cameras")

    expected = {"cameras": 2, "frames": 0, "imagezmq": 1, "imagezmq_from": 0}
    assert health.report()["transports"] == expected


def test_the_latest_verdicts_are_kept_and_no_more() -> None:
    health = Health()
    for seq in range(LAST_VERDICTS + 3):
        record(health, said(seq=seq))

    kept = [each.message.seq for each in health.snapshot().latest]
    assert kept == list(range(3, LAST_VERDICTS + 3))


def test_a_scorer_stalls_only_while_it_holds_frames() -> None:
    now_s = 0
    health = Health(lambda: now_s * 10**9)
    stalled = []
    for now_s, do in (  # noqa: B007
        (0, health.ask_scorer),
        (5, health.ask_scorer),
        (9, lambda: health.hear_scorer(scored=True)),
        (12, lambda: health.hear_scorer(scored=False)),
        (60, health.ask_scorer),
        (61, lambda: None),
    ):
        stalled.append(health.snapshot().scoring_stalled_s)
        do()

    assert stalled == [0, 5, 9, 3, 0, 1]
    assert health.scored == 1


def test_frames_that_are_forgotten_do_not_hide_a_scorer_that_hangs() -> None:
    now_s = 0
    health = Health(lambda: now_s * 10**9)
    health.ask_scorer()
    for now_s in range(1, 41):
        record(health, said(Verdict.UNKNOWN, seq=now_s, reason=Reason.BACKLOG_FULL))

    now = health.snapshot()
    assert (now.scoring_stalled_s, now.recording_stalled_s) == (40, 0)


def test_a_record_that_hangs_is_told() -> None:
    now_s = 0
    health = Health(lambda: now_s * 10**9)
    health.count("received", 3)
    now_s = 7

    assert health.snapshot().recording_stalled_s == 7


def test_counting_from_many_threads_loses_nothing() -> None:
    health = Health()
    threads = [
        threading.Thread(target=lambda: [health.count("received") for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert health.report()["received"] == 8000


def test_a_worker_that_cannot_start_raises_in_its_starter() -> None:
    def work(_: Ready) -> None:
        raise StationError("no such address")

    with pytest.raises(StationError, match="no such address"):
        Worker("w", work, lambda _: pytest.fail("it never was ready"))


def test_a_worker_that_dies_says_so() -> None:
    deaths: list[BaseException] = []

    def work(ready: Ready) -> None:
        ready()
        raise ZeroDivisionError

    worker = Worker("w", work, deaths.append)

    assert worker.join(10)
    assert [type(death) for death in deaths] == [ZeroDivisionError]


def test_a_worker_that_hangs_is_told_from_one_that_ended() -> None:
    release = threading.Event()

    def work(ready: Ready) -> None:
        ready()
        release.wait(30)

    worker = Worker("w", work, lambda _: None)

    assert not worker.join(0.01)
    release.set()
    assert worker.join(10)
