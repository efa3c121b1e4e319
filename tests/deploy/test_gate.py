"""What is believed of `dualbank-edge check`, and what is not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import gate
from deploy.gate import CHECK, CheckError, check
from inspection.bundle import digest
from inspection.manifest import MANIFEST
from tests.deploy import judge
from tests.deploy.conftest import Judge


def id_of(folder: Path) -> str:
    return digest((folder / MANIFEST).read_bytes())


def test_the_check_is_the_stations_own_command() -> None:
    assert (sys.executable, "-m", "edge.cli", "check") == CHECK


def test_a_report_that_holds_is_given_whole(folder: Path, judged: Judge) -> None:
    report = check(folder, id_of(folder), judged())

    assert report.holds
    assert [each.runtime for each in report.runtimes] == ["full.onnx"]
    full = report.of("full.onnx")
    assert full is not None
    assert full.model_dump() == {"runtime": "full.onnx", **judge.RAN}
    assert report.of("trunk-fp16") is None


def test_a_runtime_that_does_not_hold_is_a_report_and_no_failure(
    folder: Path, judged: Judge
) -> None:
    report = check(folder, id_of(folder), judged(full={"holds": False, "score_error": 0.5}))

    assert not report.holds
    assert report.runtimes[0].score_error == 0.5


def test_what_did_not_run_needs_no_numbers_and_does_not_break_the_rest(
    folder: Path, judged: Judge
) -> None:
    numbers = dict.fromkeys(("score_error", "map_error", "flips", "latency_ms"))
    say = {"ran": False, "holds": False, "why": "no GPU", **numbers}

    report = check(folder, id_of(folder), judged(full=say))

    assert report.holds
    assert report.runtimes[0].why == "no GPU"


def test_fields_that_a_later_station_adds_are_passed_over(folder: Path, judged: Judge) -> None:
    report = check(folder, id_of(folder), judged(report={"driver": "595"}, full={"power_w": 12}))

    assert report.holds


@pytest.mark.parametrize(
    ("say", "said"),
    [
        pytest.param(
            {"exit": 1, "out": "", "err": "warning: x\ndualbank-edge: no such bundle\n"},
            "failed: dualbank-edge: no such bundle",
            id="its last line is the reason",
        ),
        pytest.param({"exit": 2, "out": ""}, "exit status 2 and no word", id="silent"),
        pytest.param({"out": ""}, "no report that can be read", id="nothing"),
        pytest.param({"out": "all is well"}, "no report that can be read", id="not JSON"),
        pytest.param({"out": "[]"}, "no report that can be read", id="no object"),
        pytest.param({"report": {"runtimes": None}}, "runtimes", id="a field of another type"),
        pytest.param({"full": {"holds": "perhaps"}}, r"runtimes\.0\.holds", id="deep inside"),
        pytest.param({"report": {"bundle": "0" * 64}}, "read bundle 000000000000…", id="another"),
        pytest.param({"exit": 3}, "contradicts itself", id="3, but it holds"),
        pytest.param({"full": {"holds": False}, "exit": 0}, "contradicts", id="0, but it does not"),
        pytest.param(
            {"full": {"holds": False}, "report": {"holds": True}, "exit": 0},
            "contradicts itself",
            id="holds as a whole, and not in its part",
        ),
    ],
)
def test_what_cannot_be_believed_is_an_error_in_one_line(
    folder: Path, judged: Judge, say: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckError, match=said) as failed:
        check(folder, id_of(folder), judged(**say))

    assert "\n" not in str(failed.value)


def test_a_command_that_is_not_there_is_an_error(folder: Path) -> None:
    with pytest.raises(CheckError, match="cannot be run"):
        check(folder, id_of(folder), ("/no/such/program",))


def test_a_check_that_hangs_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 0.2)
    command = (sys.executable, "-c", "import time; time.sleep(60)")

    with pytest.raises(CheckError, match=r"no answer in 0\.2 s"):
        check(folder, id_of(folder), command)


def test_bytes_that_are_no_text_do_not_break_it(folder: Path) -> None:
    command = (
        sys.executable,
        "-c",
        "import os; os.write(2, bytes(range(256))); raise SystemExit(1)",
    )

    with pytest.raises(CheckError, match="failed"):
        check(folder, id_of(folder), command)


def test_the_report_is_what_json_says() -> None:
    """The contract with `dualbank-edge check --json`, written out once."""
    document = {
        "bundle": "b" * 64,
        "files": 12,
        "holds": True,
        "runtimes": [{"runtime": "full.onnx", **judge.RAN}],
        "frames": [],
    }

    report = gate.CheckReport.model_validate_json(json.dumps(document))

    assert set(report.model_dump()) == {"bundle", "holds", "runtimes"}
