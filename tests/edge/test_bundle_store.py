"""A bundle is taken in whole or not at all, and the record says what to run after any end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import bundle_store
from edge.bundle_folder import open_bundle
from edge.bundle_store import BUNDLES, RECORD, RESERVE_BYTES, BundleStore, Record, Watch
from edge.first_bundle import CRASHED, choose_bundle, rolled_back
from inspection.bundle import FULL, GOLDEN, Bundle
from inspection.control_messages import Terms
from inspection.errors import BundleError, StationError
from inspection.manifest import MANIFEST
from tests.bundles import replace_file, write_tiny_bundle

WATCH = Watch(terms=Terms(), before_judged=100, before_flagged=3)


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "state")


@pytest.fixture
def source(tmp_path: Path, tiny_folder: Path) -> Path:
    """A bundle of one's own, to be damaged."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "source"))


def taken(store: BundleStore) -> list[str]:
    folder = store._state_dir / BUNDLES
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


def file_of(folder: Path, name: str) -> Path:
    return folder / open_bundle(folder).manifest.files[name].path


# --- taking in ---


def test_what_is_taken_in_is_the_bundle_and_outlives_its_source(
    store: BundleStore, source: Path
) -> None:
    there = open_bundle(source)

    bundle = store.take_in(source)
    shutil.rmtree(source)

    assert bundle.id == there.id
    assert taken(store) == [there.id]
    for name in bundle.manifest.files:
        assert bundle.file(name)


def test_an_edit_of_the_source_does_not_reach_what_was_taken_in(
    store: BundleStore, source: Path
) -> None:
    bundle = store.take_in(source)

    with file_of(source, FULL).open("r+b") as file:
        file.write(b"edited in place")

    assert bundle.file(FULL)


def damaged_by(folder: Path) -> None:
    file_of(folder, FULL).write_bytes(b"x" * file_of(folder, FULL).stat().st_size)


def longer(folder: Path) -> None:
    with file_of(folder, GOLDEN).open("ab") as file:
        file.write(b"more")


def shorter(folder: Path) -> None:
    os.truncate(file_of(folder, GOLDEN), 100)


def missing(folder: Path) -> None:
    file_of(folder, FULL).unlink()


def led_outside(folder: Path) -> None:
    path = file_of(folder, FULL)
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def a_pipe(folder: Path) -> None:
    path = file_of(folder, FULL)
    path.unlink()
    os.mkfifo(path)


def a_folder(folder: Path) -> None:
    path = file_of(folder, FULL)
    path.unlink()
    path.mkdir()


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def a_manifest_that_is_a_pipe(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)


def not_json(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")


def parts_that_do_not_fit(folder: Path) -> None:
    replace_file(folder, "normal_bank.safetensors", b"no bank at all")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "other bytes": (damaged_by, "damaged: expected .* bytes, SHA-256"),
    "longer": (longer, "got more"),
    "shorter": (shorter, "got 100"),
    "missing": (missing, "cannot be read: No such file"),
    "outside": (led_outside, "leads outside of the bundle"),
    "pipe": (a_pipe, "is no file"),
    "folder": (a_folder, "is no file|Is a directory"),
    "no manifest": (no_manifest, "is .* the folder of a bundle"),
    "manifest is a pipe": (a_manifest_that_is_a_pipe, "is no file"),
    "not JSON": (not_json, "not JSON"),
    "contradiction": (parts_that_do_not_fit, "bank"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_bundle_that_is_not_what_it_says_leaves_nothing_behind(
    store: BundleStore, source: Path, kind: str
) -> None:
    damage, said = DAMAGE[kind]
    damage(source)

    with pytest.raises(BundleError, match=said):
        store.take_in(source)

    assert taken(store) == []


def test_a_link_inside_the_bundle_is_followed(store: BundleStore, source: Path) -> None:
    path = file_of(source, FULL)
    path.rename(source / "elsewhere")
    path.symlink_to("../elsewhere")

    assert store.take_in(source).file(FULL)


def test_a_file_that_grows_while_it_is_copied_is_refused(
    store: BundleStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_store, "PIECE_BYTES", 64)
    path, grown = file_of(source, GOLDEN), []

    def grow() -> None:
        with path.open("ab") as file:
            grown.append(file.write(b"x"))

    with pytest.raises(BundleError, match="got more"):
        store.take_in(source, grow)

    assert grown
    assert taken(store) == []


def test_an_abort_half_way_leaves_nothing_behind(store: BundleStore, source: Path) -> None:
    def abort() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.take_in(source, abort)

    assert taken(store) == []


def test_a_bundle_that_the_disk_has_no_room_for_is_not_begun(
    store: BundleStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(source)
    few = usage._replace(free=RESERVE_BYTES + 1000)
    monkeypatch.setattr(bundle_store.shutil, "disk_usage", lambda _: few)

    with pytest.raises(StationError, match=r"256 must stay free, but .* has 256 MiB left"):
        store.take_in(source)

    assert taken(store) == []


def test_a_disk_that_fails_is_told_and_leaves_nothing_behind(
    store: BundleStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(bundle_store.os, "fsync", fails)

    with pytest.raises(StationError, match="Input/output error"):
        store.take_in(source)

    assert taken(store) == []


def test_one_that_is_there_already_is_checked_and_copied_again_if_it_is_damaged(
    store: BundleStore, source: Path
) -> None:
    first = store.take_in(source)
    kept = store._state_dir / BUNDLES / first.id
    inode = file_of(kept, FULL).stat().st_ino
    again = store.take_in(source)
    same = file_of(kept, FULL).stat().st_ino == inode
    damaged_by(kept)

    mended = store.take_in(source)

    assert same
    assert again.id == mended.id == first.id
    assert mended.file(FULL)


def test_what_a_crash_left_half_copied_goes_and_what_is_needed_stays(
    store: BundleStore, source: Path, letterbox_folder: Path
) -> None:
    bundle, other = store.take_in(source), store.take_in(letterbox_folder)
    (store._state_dir / BUNDLES / ".partial-0123").mkdir()

    store.forget_all_but(other.id, None)

    assert bundle.id != other.id
    assert taken(store) == [other.id]


# --- the record ---


def record(bundle: Bundle, path: Path, **changes: object) -> Record:
    plain = Record(running=bundle.id, configured_path=str(path), configured_id=bundle.id)
    return Record.model_validate({**dict(plain), **changes})


def test_a_record_is_read_as_it_was_written(
    store: BundleStore, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    written = record(tiny_bundle, tmp_path, previous="0" * 64, watch=WATCH, why="so")

    store.write(written)

    assert store.read() == written


def test_a_record_that_cannot_be_written_leaves_the_one_before(
    store: BundleStore, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record(tiny_bundle, tmp_path)
    store.write(before)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_store.os, "fsync", full)
    with pytest.raises(StationError, match="No space left"):
        store.write(record(tiny_bundle, tmp_path, why="another"))

    assert store.read() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v": 2}', '{"v": 1, "running": "../.."}'])
def test_a_damaged_record_is_an_error_and_never_a_guess(store: BundleStore, text: str) -> None:
    store._state_dir.mkdir()
    (store._state_dir / RECORD).write_text(text)

    with pytest.raises(StationError, match="damaged"):
        store.read()


# --- what runs first ---


@pytest.fixture
def swapped(
    store: BundleStore, source: Path, letterbox_folder: Path
) -> tuple[BundleStore, Bundle, Bundle, Record]:
    """A store in which another bundle than the configured one runs."""
    configured, other = open_bundle(source), store.take_in(letterbox_folder)
    written = record(configured, source, running=other.id, previous=configured.id)
    store.write(written)
    return store, configured, other, written


Swapped = tuple[BundleStore, Bundle, Bundle, Record]


def test_without_a_swap_the_configured_bundle_runs_and_nothing_is_written(
    store: BundleStore, source: Path
) -> None:
    first = choose_bundle(source, store)

    assert first.bundle.id == first.record.running == open_bundle(source).id
    assert not store._state_dir.exists()


def test_the_bundle_that_was_swapped_in_runs_after_a_restart(
    swapped: Swapped, source: Path
) -> None:
    store, _, other, written = swapped

    first = choose_bundle(source, store)

    assert first.bundle.id == other.id
    assert first.record == written
    assert first.watch is None


def test_another_path_in_the_configuration_wins(
    swapped: Swapped, source: Path, tmp_path: Path
) -> None:
    store, configured, _, _ = swapped
    moved = Path(shutil.copytree(source, tmp_path / "moved"))

    first = choose_bundle(moved, store)

    assert first.bundle.id == configured.id
    assert store.read() == first.record
    assert first.record.configured_path == str(moved)


def test_another_bundle_at_the_configured_path_wins(swapped: Swapped, source: Path) -> None:
    store, _, other, _ = swapped
    shutil.rmtree(source)
    replacement = open_bundle(write_tiny_bundle(source, model_card_md=b"# Another\n"))

    first = choose_bundle(source, store)

    assert first.bundle.id == replacement.id != other.id
    assert choose_bundle(source, store).bundle.id == replacement.id


def test_a_crash_on_probation_brings_back_the_bundle_before(swapped: Swapped, source: Path) -> None:
    store, configured, other, written = swapped
    store.write(written.model_copy(update={"watch": WATCH}))

    first = choose_bundle(source, store)

    assert first.bundle.id == configured.id
    assert first.watch is None
    assert first.record.why == f"{other.id[:12]}: {CRASHED}"
    assert store.read() == first.record
    assert choose_bundle(source, store).bundle.id == configured.id


def test_a_stop_in_good_order_goes_on_with_the_probation_and_a_crash_then_counts(
    swapped: Swapped, source: Path
) -> None:
    store, configured, other, written = swapped
    store.write(written.model_copy(update={"watch": WATCH, "stopped": True}))

    first = choose_bundle(source, store)
    second = choose_bundle(source, store)

    assert (first.bundle.id, first.watch) == (other.id, WATCH)
    assert (second.bundle.id, second.watch) == (configured.id, None)


def test_a_bundle_of_the_store_that_is_gone_is_replaced_by_the_configured_one(
    swapped: Swapped, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, configured, other, _ = swapped
    damaged_by(store._state_dir / BUNDLES / other.id)

    first = choose_bundle(source, store)

    assert first.bundle.id == configured.id
    assert "the bundle that ran last cannot be used; the configured one runs" in caplog.messages


def test_with_the_configured_bundle_gone_the_one_that_ran_last_still_runs(
    swapped: Swapped, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, _, other, _ = swapped
    shutil.rmtree(source)

    assert choose_bundle(source, store).bundle.id == other.id
    assert any("configured bundle cannot be used" in said for said in caplog.messages)


def test_with_neither_there_is_nothing_to_run(swapped: Swapped, source: Path) -> None:
    store, _, other, _ = swapped
    shutil.rmtree(source)
    shutil.rmtree(store._state_dir / BUNDLES / other.id)

    with pytest.raises(BundleError):
        choose_bundle(source, store)


def test_a_damaged_record_means_the_configured_bundle_and_is_said_aloud(
    swapped: Swapped, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, configured, _, _ = swapped
    (store._state_dir / RECORD).write_text("{")

    assert choose_bundle(source, store).bundle.id == configured.id
    assert any("nobody knows which bundle" in said for said in caplog.messages)


def test_after_a_rollback_there_is_nothing_more_to_go_back_to(swapped: Swapped) -> None:
    _, configured, _, written = swapped

    after = rolled_back(written, "so")

    assert (after.running, after.previous) == (configured.id, None)
