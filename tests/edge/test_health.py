"""Counters, stopwatch, workers and log lines."""

from __future__ import annotations

import logging
import threading

import pytest

from edge.health import LATEST, Health, Stopwatch
from edge.log_lines import fields_of
from edge.workers import Ready, Worker
from inspection.errors import StationError
from inspection.verdicts import Reason, Verdict


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
    for value in [1000.0] * 10 + [1.0] * LATEST:
        health.count_verdict(Verdict.PASS, None, {"total": value})

    report = health.report()
    assert report["latency_ms"]["total"] == {"p50": 1.0, "p99": 1.0}
    assert report["verdicts"]["PASS"] == LATEST + 10


def test_unknown_is_counted_by_reason_and_not_as_scored() -> None:
    health = Health()
    for reason in (Reason.BAD_IMAGE, Reason.BAD_IMAGE, Reason.BACKLOG_FULL):
        health.count_verdict(Verdict.UNKNOWN, reason, {})
    health.count_verdict(Verdict.FAIL, Reason.SCORE_ABOVE_REJECT, {})

    report = health.report()
    assert report["unknown"] == {"bad_image": 2, "backlog_full": 1}
    assert (report["scored"], report["published"]) == (1, 4)


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


def test_fields_of_a_log_line_cannot_begin_a_line_of_their_own() -> None:
    record = logging.makeLogRecord({"msg": "event", "camera": "a\nb", "n": 3, "text": "two words"})

    assert fields_of(record) == ' camera="a\\nb" n=3 text="two words"'
