"""A line on which everything is killed: small, for every change; the whole is `fault_run`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.line.fault_camera import journal_of
from tests.line.fault_run import holds, run, small_disk


def test_every_trigger_is_recorded_once_whatever_dies(tmp_path: Path) -> None:
    # No swap: how long one takes depends on the machine, and the frames may be over before. See
    # `test_swap`.
    faults = {"station": 2, "camera": 3}
    (tmp_path / "state").mkdir()

    figures = run(tmp_path, 3000, faults)

    assert figures["faults"] == faults
    assert figures["starts"]["station"] >= 3
    assert holds(figures), figures


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a disk of its own, which only root may make")
def test_a_full_disk_costs_time_and_no_trigger(tmp_path: Path) -> None:
    with small_disk(tmp_path / "state"):
        figures = run(tmp_path, 2000, {"disk": 1})

    assert figures["faults"] == {"disk": 1}
    assert figures["disk_met"]
    assert holds(figures), figures


def test_a_run_that_lost_something_does_not_hold() -> None:
    good = {
        **{"cameras_ended": True, "triggers": 5, "frames": 5, "recorded": 5, "ledger_holds": True},
        **dict.fromkeys(("lost", "recorded_twice", "wrong_pass", "told_otherwise"), 0),
        **{"faults": {"swap": 1}, "bundles": 2},
        **dict.fromkeys(("gaps_in_the_ledger", "follower_missed", "stalled_missed"), 0),
    }

    assert holds(good)
    for broken in ("lost", "recorded_twice", "wrong_pass", "told_otherwise", "stalled_missed"):
        assert not holds({**good, broken: 1})
    assert not holds({**good, "recorded": 4})
    assert not holds({**good, "ledger_holds": False})
    assert not holds({**good, "bundles": 1}), "a swap that nobody was judged by is none"


def test_a_journal_whose_last_line_was_torn_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("t 0\nt 1\na 0 PASS\na 1 PA")

    assert journal_of(path) == ({0, 1}, {0: "PASS"})
