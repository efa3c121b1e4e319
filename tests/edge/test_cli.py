"""The command: exit codes, and what goes to which stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.cli import DONE, FAILED, GATE, USAGE, main
from tests.bundles import golden_frames, write_tiny_bundle
from tests.edge.test_check import other_answers


@pytest.mark.parametrize(
    "verb",
    [[], ["run"], ["camera"], ["watch"], ["check"], ["ledger"], ["ledger", "verify"], ["replay"]],
)
def test_every_verb_explains_itself(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])

    assert ended.value.code == DONE
    assert "usage" in capsys.readouterr().out


def test_the_help_of_run_tells_units_and_no_default_where_there_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])

    said = capsys.readouterr().out
    assert "--drain-s S" in said
    assert "--max-frame-bytes BYTES" in said
    assert "[None]" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["check"],
        ["camera", "x", "--rate", "-1"],
        ["camera", "x", "--rate", "nan"],
        ["watch", "--count", "0"],
    ],
)
def test_a_wrong_call_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == USAGE
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--slots", "none"],
        ["--max-message-bytes", "99999999999999999999"],
        ["--frames", "tcp://127.0.0.1:99999"],
        ["--frames", "tcp://0.0.0.0:1"],
        ["--config", "/missing.toml"],
        [],  # no bundle
    ],
)
def test_wrong_settings_are_one_line_and_a_usage_error(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_BUNDLE", raising=False)

    assert main(["run", *options]) == USAGE

    said = capsys.readouterr()
    assert said.err.startswith("dualbank-edge: ")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_bundle_that_holds_is_done(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--bundle", str(tiny_folder), "--json"]) == DONE

    report = json.loads(capsys.readouterr().out)
    assert report["holds"]
    assert len(report["frames"]) == len(golden_frames())


def test_the_table_of_a_check_is_not_cut_off(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--bundle", str(tiny_folder)]) == DONE

    out = capsys.readouterr().out
    assert "every golden frame holds" in out
    assert "…" not in out


def test_a_damaged_bundle_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tiny_bundle(tmp_path)
    largest = max((folder / "files").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(b"x" + largest.read_bytes()[1:])

    assert main(["check", "--bundle", str(folder)]) == FAILED
    assert "damaged" in capsys.readouterr().err


def test_another_answer_is_what_the_gate_says_no_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other_answers(tmp_path, score=1.0)

    assert main(["check", "--bundle", str(tmp_path)]) == GATE
    assert "DO NOT HOLD" in capsys.readouterr().out
    assert main(["run", "--bundle", str(tmp_path), "--state-dir", str(tmp_path / "s")]) == GATE
    assert "golden frame 0" in capsys.readouterr().err


def test_a_camera_without_images_or_station_is_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["camera", str(tmp_path)]) == FAILED
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    nobody = ["--to", "tcp://127.0.0.1:9", "--timeout", "0.05"]

    assert main(["camera", str(tmp_path), *nobody]) == FAILED

    assert "no station takes frames" in capsys.readouterr().err


def test_a_watch_that_hears_nothing_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--from", "tcp://127.0.0.1:9", "--timeout", "0.05"]) == FAILED
    assert "no verdict" in capsys.readouterr().err
