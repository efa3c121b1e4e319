"""The label queue: whole items within a budget, whatever interrupts it."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import label_queue
from edge.label_queue import FOLDER, RESERVE_BYTES, LabelItem, LabelQueue
from inspection.errors import StationError
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

    monkeypatch.setattr(os, "fsync", fails_once)
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


def size_on_disk(state_dir: Path) -> int:
    return sum(file.stat().st_size for file in state_dir.rglob("*") if file.is_file())


@pytest.fixture
def free_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], int]], None]:
    """Give the disk so many free bytes."""

    def patch(free: Callable[[], int]) -> None:
        monkeypatch.setattr(
            label_queue.shutil, "disk_usage", lambda _: SimpleNamespace(free=free())
        )

    return patch


def test_on_a_filling_disk_the_oldest_make_room_and_the_reserve_stays_free(
    tmp_path: Path, free_is: Callable[[Callable[[], int]], None]
) -> None:
    disk = RESERVE_BYTES + 16_000
    free_is(lambda: disk - size_on_disk(tmp_path))

    queue = write(tmp_path, [item(seq) for seq in range(10)])

    kept = on_disk(tmp_path)
    assert kept == list(range(10))[-len(kept) :]
    assert 1 < len(kept) < 10
    assert disk - size_on_disk(tmp_path) >= RESERVE_BYTES
    assert queue.report()["evicted"] == 10 - len(kept)
    assert queue.report()["disk_full"] == 0


def test_a_disk_that_others_have_filled_costs_the_new_item_and_no_old_one(
    tmp_path: Path, free_is: Callable[[Callable[[], int]], None]
) -> None:
    write(tmp_path, [item(seq) for seq in range(3)])
    free_is(lambda: RESERVE_BYTES - 50_000)

    queue = write(tmp_path, [item(3), item(4)])

    assert on_disk(tmp_path) == [0, 1, 2]
    assert queue.report()["disk_full"] == 2
    assert queue.report()["evicted"] == queue.report()["failed"] == 0


def test_on_a_full_disk_items_that_a_person_took_away_cost_no_new_one(
    tmp_path: Path, free_is: Callable[[Callable[[], int]], None]
) -> None:
    write(tmp_path, [item(seq) for seq in range(4)])
    disk = RESERVE_BYTES + size_on_disk(tmp_path)
    queue = LabelQueue(tmp_path, BUDGET)
    for path in sorted((tmp_path / FOLDER).iterdir())[:2]:
        path.rename(tmp_path / path.name)
    # Taken to another folder of the same disk, so that nothing has become free.
    free_is(lambda: disk - size_on_disk(tmp_path))

    queue.offer(item(4))
    queue.close()
    queue.write_all()

    assert on_disk(tmp_path) == [3, 4]
    assert (queue.report()["evicted"], queue.report()["disk_full"]) == (1, 0)


def test_evicting_stops_where_it_frees_nothing(
    tmp_path: Path, free_is: Callable[[Callable[[], int]], None]
) -> None:
    write(tmp_path, [item(seq) for seq in range(3)])
    free_is(lambda: RESERVE_BYTES)  # whatever is evicted, another program takes it

    queue = write(tmp_path, [item(3)])

    assert on_disk(tmp_path) == [1, 2]
    assert queue.report()["disk_full"] == 1


def test_an_item_that_just_leaves_the_reserve_is_stored_and_one_byte_less_is_not_enough(
    tmp_path: Path, free_is: Callable[[Callable[[], int]], None]
) -> None:
    size = write(tmp_path / "measured", [item(1)]).report()["bytes"]
    free_is(lambda: RESERVE_BYTES + size)
    enough = write(tmp_path / "enough", [item(1)])
    free_is(lambda: RESERVE_BYTES + size - 1)
    short = write(tmp_path / "short", [item(1)])

    assert (enough.report()["stored"], enough.report()["disk_full"]) == (1, 0)
    assert (short.report()["stored"], short.report()["disk_full"]) == (0, 1)


def test_a_disk_that_is_full_all_the_same_costs_the_oldest_and_not_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [item(seq) for seq in range(3)])
    real, failures = os.fsync, iter([OSError(errno.ENOSPC, "No space left on device")])

    def fails_once(descriptor: int) -> None:
        for failure in failures:
            raise failure
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails_once)
    queue = write(tmp_path, [item(3)])

    assert on_disk(tmp_path) == [1, 2, 3]
    assert (queue.report()["evicted"], queue.report()["failed"]) == (1, 0)


def test_a_queue_that_is_a_link_is_refused_and_what_it_leads_to_is_left_alone(
    tmp_path: Path,
) -> None:
    precious = tmp_path / "elsewhere" / ".new-precious"
    precious.mkdir(parents=True)
    (tmp_path / FOLDER).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StationError, match="is a link, expected a folder"):
        LabelQueue(tmp_path, BUDGET)

    assert precious.is_dir()
