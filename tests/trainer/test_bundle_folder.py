"""A bundle is written whole or not at all, whatever fails on the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from inspection.errors import BundleError
from inspection.manifest import MANIFEST
from tests.bundles import write_tiny_bundle
from trainer.bundle_folder import check_target, open_bundle, write_bundle


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(write_tiny_bundle(tmp_path_factory.mktemp("new")))


def older(folder: Path) -> dict[str, bytes]:
    """Lay another bundle at a place."""
    write_tiny_bundle(folder, model_card_md=b"# Older\n")
    return contents(folder)


def test_a_bundle_that_is_written_can_be_opened_by_everyone(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    write_bundle(tmp_path / "a" / "b" / "bundle", files)

    assert contents(tmp_path / "a" / "b" / "bundle") == files
    assert os.listdir(tmp_path / "a" / "b") == ["bundle"]
    assert stat.S_IMODE((tmp_path / "a" / "b" / "bundle").stat().st_mode) == 0o755
    open_bundle(tmp_path / "a" / "b" / "bundle")


def test_an_older_bundle_is_replaced_and_nothing_of_it_stays(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    older(tmp_path / "bundle")

    write_bundle(tmp_path / "bundle", files)

    assert os.listdir(tmp_path) == ["bundle"]
    assert contents(tmp_path / "bundle") == files


def test_a_bundle_may_replace_the_folder_one_stands_in(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    older(tmp_path / "bundle")
    monkeypatch.chdir(tmp_path / "bundle")

    write_bundle(Path("."), files)

    assert contents(tmp_path) == {f"bundle/{path}": data for path, data in files.items()}


class Killed(BaseException):
    """Stands for whatever ends a process in the middle of its work."""


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), Killed()])
@pytest.mark.parametrize("there", [False, True], ids=["a free place", "an older bundle there"])
@pytest.mark.parametrize("call", [0, 3])
def test_a_failure_while_writing_changes_nothing(
    tmp_path: Path,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    call: int,
    there: bool,
    failure: BaseException,
) -> None:
    before = older(tmp_path / "bundle") if there else {}
    fail_at(monkeypatch, os, "fsync", call, failure)

    with pytest.raises(type(failure)):
        write_bundle(tmp_path / "bundle", files)

    assert os.listdir(tmp_path) == (["bundle"] if there else [])
    assert contents(tmp_path) == {f"bundle/{path}": data for path, data in before.items()}


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), Killed()])
@pytest.mark.parametrize("call", [0, 1])
def test_a_failure_while_replacing_leaves_the_older_bundle(
    tmp_path: Path,
    files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    call: int,
    failure: BaseException,
) -> None:
    before = older(tmp_path / "bundle")
    fail_at(monkeypatch, Path, "rename", call, failure)

    with pytest.raises(type(failure)):
        write_bundle(tmp_path / "bundle", files)

    assert os.listdir(tmp_path) == ["bundle"]
    assert contents(tmp_path / "bundle") == before


def test_a_place_that_is_taken_later_is_left_alone(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, Path, "rename", 0, OSError(39, "Directory not empty"))

    with pytest.raises(OSError, match="not empty"):
        write_bundle(tmp_path / "bundle", files)

    assert os.listdir(tmp_path) == []


def fail_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, failure: BaseException
) -> None:
    """Let one call of a function fail, and all others through."""
    real, calls = getattr(owner, name), iter(range(1000))

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise failure
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link", "empty folder"])
def test_a_place_where_something_else_lies_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("notes")
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "gone")
    else:
        target.mkdir()
        if kind == "folder":
            (target / "photo.png").touch()

    with pytest.raises(BundleError, match="target exists and is no bundle"):
        check_target(target)


@pytest.mark.parametrize("place", ["file/bundle", "file/deeper/bundle"])
def test_a_place_below_a_file_is_refused_before_any_work(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(BundleError, match="file is no folder that we may write to"):
        check_target(tmp_path / place)


def test_a_place_that_may_not_be_written_to_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(BundleError, match="no folder that we may write to"):
        check_target(tmp_path / "deep" / "bundle")


def test_a_free_place_is_neither_refused_nor_touched(tmp_path: Path) -> None:
    check_target(tmp_path / "a" / "bundle")

    assert os.listdir(tmp_path) == []


def test_what_is_no_bundle_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path} is no bundle: it has no {MANIFEST}"):
        open_bundle(tmp_path)
