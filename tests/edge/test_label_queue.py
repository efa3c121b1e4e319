"""The label queue: whole items within a budget, whatever interrupts it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import label_queue
from edge.label_queue import FOLDER, LabelItem, LabelQueue
from inspection.messages import Frame, FrameHeader
from tests.bundles import bad_frame
from tests.edge.test_ledger import entry

BUDGET = 100_000


def item(station_seq: int, image: NDArray[np.uint8] | None = None) -> LabelItem:
    """An item of about 3.5 kB, or as large as its image."""
    image = bad_frame() if image is None else image
    header = FrameHeader(
        camera="c", session="s", seq=station_seq, encoding="raw", shape=list(image.shape)
    )
    frame = Frame(header, memoryview(image.tobytes()))
    message = entry(station_seq).message
    return LabelItem(message, 17, frame, np.full((4, 4), 2.5, np.float32))


def write(state_dir: Path, items: list[LabelItem], budget_bytes: int = BUDGET) -> LabelQueue:
    """Offer items and let the writer end."""
    queue = LabelQueue(state_dir, budget_bytes)
    for each in items:
        queue.offer(each)
    queue.close()
    queue.write_all()
    return queue


def on_disk(state_dir: Path) -> list[int]:
    return sorted(int(path.name.split("-")[0]) for path in (state_dir / FOLDER).iterdir())


def test_an_item_is_the_frame_as_received_the_map_and_the_verdict(tmp_path: Path) -> None:
    write(tmp_path, [item(42)])

    (folder,) = (tmp_path / FOLDER).iterdir()
    document = json.loads((folder / "verdict.json").read_text())
    assert np.array_equal(np.load(folder / "frame.npy", allow_pickle=False), bad_frame())
    assert (np.load(folder / "map.npy", allow_pickle=False) == 2.5).all()
    assert document["verdict"]["station_seq"] == 42
    assert document["map_shape"] == [4, 4]


def test_a_score_that_is_not_a_number_is_still_json(tmp_path: Path) -> None:
    strange = item(1)
    message = strange.message.model_copy(update={"score": math.nan})

    write(tmp_path, [dataclasses.replace(strange, message=message)])

    (path,) = (tmp_path / FOLDER).glob("*/verdict.json")
    assert "NaN" not in path.read_text()
    assert json.loads(path.read_text())["verdict"]["score"] is None


def test_the_oldest_make_room_within_the_budget_and_are_counted(tmp_path: Path) -> None:
    queue = write(tmp_path, [item(seq) for seq in range(10)], budget_bytes=16_000)

    report = queue.report()
    kept = on_disk(tmp_path)
    size = sum(file.stat().st_size for file in (tmp_path / FOLDER).rglob("*") if file.is_file())
    assert kept == list(range(10))[-len(kept) :]
    assert 0 < len(kept) < 10
    assert report["evicted"] == 10 - len(kept)
    assert report["bytes"] == size <= 16_000


def test_the_budget_holds_over_a_restart(tmp_path: Path) -> None:
    first = write(tmp_path, [item(seq) for seq in range(4)], budget_bytes=16_000)

    second = write(tmp_path, [item(seq) for seq in range(4, 8)], budget_bytes=16_000)

    assert second.report()["bytes"] <= 16_000
    assert first.report()["evicted"] + second.report()["evicted"] == 8 - len(on_disk(tmp_path))
    assert on_disk(tmp_path)[-1] == 7


def test_a_torn_write_leaves_no_item_and_the_next_start_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = LabelQueue(tmp_path, BUDGET)
    queue.offer(item(1))
    queue.close()

    def power_cut(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", power_cut)
        with pytest.raises(KeyboardInterrupt):
            queue.write_all()
    (left,) = (tmp_path / FOLDER).iterdir()
    assert left.name.startswith("."), "what is half-made must not look like an item"

    write(tmp_path, [item(2)])

    assert on_disk(tmp_path) == [2]


def test_a_disk_that_fails_is_counted_and_the_next_item_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = LabelQueue(tmp_path, BUDGET)
    real, failures = os.fsync, iter([OSError(28, "No space left on device")])

    def fails_once(descriptor: int) -> None:
        for failure in failures:
            raise failure
        real(descriptor)

    monkeypatch.setattr(label_queue.os, "fsync", fails_once)
    for seq in (1, 2):
        queue.offer(item(seq))
    queue.close()
    queue.write_all()

    assert (queue.report()["failed"], queue.report()["stored"]) == (1, 1)
    assert on_disk(tmp_path) == [2]


def test_an_item_larger_than_the_budget_evicts_nobody(tmp_path: Path) -> None:
    large = item(2, bad_frame("bolt", 1, 128))

    queue = write(tmp_path, [item(1), large], budget_bytes=16_000)

    assert on_disk(tmp_path) == [1]
    assert queue.report()["failed"] == 1


def test_an_item_that_a_person_took_away_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path, [item(seq) for seq in range(4)], budget_bytes=16_000)
    queue = LabelQueue(tmp_path, 16_000)
    for path in sorted((tmp_path / FOLDER).iterdir())[:2]:
        path.rename(tmp_path / path.name)

    for seq in (4, 5):
        queue.offer(item(seq))
    queue.close()
    queue.write_all()

    assert queue.report()["failed"] == queue.report()["evicted"] == 0
    assert on_disk(tmp_path)[-2:] == [4, 5]


def test_a_slow_disk_never_slows_the_line_and_what_is_forgotten_is_counted(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path, BUDGET)

    for seq in range(label_queue.WAITING_ITEMS + 5):
        queue.offer(item(seq))  # nobody writes: a line that waited here would stand

    assert queue.report()["overflowed"] == 5
