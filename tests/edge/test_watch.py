"""Watching: whose verdicts are heard, and how a line reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import zmq

from edge.watch import Heatmap, line_of, missed, subscribe
from inspection.messages import (
    HeatmapHeader,
    RegionEntry,
    VerdictMessage,
    encode_heatmap,
    encode_verdict,
)
from inspection.verdicts import Reason, Verdict


def verdict(station_seq: int = 1, camera: str = "cam", **fields: object) -> VerdictMessage:
    return VerdictMessage.model_validate(
        {
            "camera": camera,
            "session": "s",
            "seq": 5,
            "verdict": Verdict.PASS,
            "score": 1.0,
            "bundle": "b",
            "bank": "k",
            "station_seq": station_seq,
            "latency_ms": {"total": 4.2},
            **fields,
        }
    )


@contextmanager
def publishing(messages: list[list[object]]) -> Iterator[str]:
    """Publish messages over and over until the end, so that a late listener hears them too."""
    ended, context = threading.Event(), zmq.Context()
    publisher = context.socket(zmq.PUB)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")

    def publish() -> None:
        while not ended.wait(0.01):
            for parts in messages:
                publisher.send_multipart(parts)
        publisher.close(linger=0)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        ended.set()
        thread.join()
        context.term()


def test_only_one_camera_is_heard_even_beside_one_whose_name_goes_on() -> None:
    messages = [encode_verdict(verdict(camera=name)) for name in ("cam1", "cam10", "other")]
    with publishing(messages) as address:
        listener = subscribe(address, camera="cam1", silence_s=10)

        heard = [next(listener).camera for _ in range(5)]

        listener.close()
    assert heard == ["cam1"] * 5


def test_heatmaps_come_with_the_verdicts_when_asked_for() -> None:
    header = HeatmapHeader(camera="cam", session="s", seq=5, station_seq=1, shape=(2, 3))
    values = np.arange(6, dtype="<f4")
    messages = [encode_verdict(verdict()), encode_heatmap(header, values.tobytes())]
    with publishing(messages) as address:
        both = subscribe(address, heatmaps=True, silence_s=10)
        heard = [next(both) for _ in range(4)]
        both.close()
        one = subscribe(address, silence_s=10)
        plain = [next(one) for _ in range(3)]
        one.close()

    maps = [said.anomaly_map for said in heard if isinstance(said, Heatmap)]
    assert len(maps) == 2
    assert np.array_equal(maps[0], values.reshape(2, 3))
    assert all(isinstance(said, VerdictMessage) for said in plain)


def test_what_is_no_verdict_is_passed_over() -> None:
    with publishing([[b"verdict/x", b"noise"], encode_verdict(verdict())]) as address:
        listener = subscribe(address, silence_s=10)

        assert next(listener).camera == "cam"

        listener.close()


def test_silence_ends_it() -> None:
    with publishing([]) as address:
        assert list(subscribe(address, silence_s=0.01)) == []


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(None, 7, 0, id="the first that is heard"),
        pytest.param(7, 8, 0, id="the next"),
        pytest.param(7, 10, 2, id="a gap"),
        pytest.param(7, 1, 0, id="a station with a new ledger"),
    ],
)
def test_a_gap_in_station_seq_is_noted(before: int | None, now: int, expected: int) -> None:
    assert missed(None if before is None else verdict(before), verdict(now)) == expected


def test_a_verdict_is_told_by_word_and_by_sign() -> None:
    lines = {
        said: line_of(
            verdict(
                verdict=said, reason=None if said is Verdict.PASS else Reason.SCORE_ABOVE_REVIEW
            )
        )
        for said in Verdict
    }

    assert all(said.value in line for said, line in lines.items())
    assert len({line.split(said.value)[0] for said, line in lines.items()}) == len(Verdict)


def test_a_line_says_why_where_and_how_fast() -> None:
    region = RegionEntry(x_px=1, y_px=2, width_px=3, height_px=4, score=9.0)
    flagged = verdict(
        verdict=Verdict.FAIL, reason=Reason.SCORE_ABOVE_REJECT, score=12.345, regions=(region,) * 3
    )
    unknown = verdict(verdict=Verdict.UNKNOWN, reason=Reason.BACKLOG_FULL, detail="too fast")

    assert "12.35" in line_of(flagged)
    assert "at 1,2 3x4 px  and 2 more" in line_of(flagged)
    assert "4.2 ms" in line_of(flagged)
    assert "backlog_full: too fast" in line_of(unknown)


def test_a_camera_cannot_write_to_the_terminal() -> None:
    line = line_of(verdict(camera="\x1b[2J\r\n", part="\x07"))

    assert line.isprintable()
