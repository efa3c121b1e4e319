"""What `hostile_run` does a hundred thousand times, a thousand times."""

from __future__ import annotations

from pathlib import Path

from tests.line import hostile_handshakes, hostile_run
from tests.line.hostile_peers import PEERS


def test_mutated_messages_on_every_socket_cost_no_frame_its_verdict_and_the_station_nothing(
    tmp_path: Path,
) -> None:
    figures = hostile_run.run(1000, tmp_path)

    assert set(figures["sockets"]) == set(PEERS)
    assert all(row["sent"] >= 1000 for row in figures["sockets"].values())
    assert figures["verdicts"]["PASS"] > 100
    assert figures["account"]["malformed"] > 100
    assert figures["account"]["redelivered"] > 0
    assert figures["floods_at_least"] > 0


def test_whoever_has_no_right_key_is_refused_and_counted_at_every_socket(
    tiny_folder: Path, tmp_path: Path
) -> None:
    figures = hostile_handshakes.run(2, tiny_folder, tmp_path)

    assert figures["tried"] == 2 * len(figures["kinds"]) * len(figures["sockets"])
