"""The station's folder: one station's alone, and nobody else's to read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.state_dir import LOCK, hold_state_dir, private_files
from inspection.errors import StationError
from tests.line.processes import ROOT

HOLD_FOR_EVER = (
    "import signal, sys; from pathlib import Path; from edge.state_dir import hold_state_dir\n"
    "with hold_state_dir(Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    signal.pause()\n"
)


def test_a_folder_that_is_held_is_refused_and_one_that_was_given_back_is_not(
    tmp_path: Path,
) -> None:
    state_dir = tmp_path / "new" / "state"

    with (
        hold_state_dir(state_dir),
        pytest.raises(StationError, match="in use by another station; stop that one"),
        hold_state_dir(state_dir),
    ):
        pass

    with hold_state_dir(state_dir):
        pass


def test_a_station_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_FOR_EVER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StationError, match="in use"), hold_state_dir(tmp_path):
            pass

        process.send_signal(signal.SIGKILL)
        process.wait()

    with hold_state_dir(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StationError, match="cannot use the state_dir"), hold_state_dir(tmp_path):
        pass

    assert not (tmp_path / "elsewhere").exists()


def test_a_state_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    with pytest.raises(StationError, match="state"), hold_state_dir(tmp_path / "state"):
        pass


def test_private_files_are_the_owners_and_the_process_gets_its_umask_back(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with private_files():
            (tmp_path / "folder").mkdir()
            (tmp_path / "file").touch()

        assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
