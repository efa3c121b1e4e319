"""The units of systemd: understood without a complaint, and shut as tightly as they say.

With REQUIRE_SYSTEMD the absence of systemd-analyze fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edge.commands.run import add_run
from edge.settings import StationSettings

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
STATION = "dualbank-edge@.service"

MOST_EXPOSURE = 1.5
"""Of 10, as `systemd-analyze security` counts."""

if not os.environ.get("REQUIRE_SYSTEMD") and shutil.which("systemd-analyze") is None:
    pytest.skip("there is no systemd here", allow_module_level=True)


def installed(folder: Path, *drop_ins: str) -> Path:
    """Write an instance of the unit whose program exists; give its path."""
    program = folder / "bin" / "dualbank-edge"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = folder / STATION.replace("@", "@line4")
    text = (UNITS / STATION).read_text("utf-8")
    assert "ExecStart=/opt/dualbank/bin/dualbank-edge " in text
    unit.write_text(text.replace("/opt/dualbank/bin", str(program.parent)))
    beside = folder / f"{unit.name}.d"
    beside.mkdir()
    for name in drop_ins:
        shutil.copy(UNITS / name, beside)
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


VARIANTS = [
    pytest.param((), id="alone"),
    pytest.param(("gpu.conf",), id="with a GPU"),
    pytest.param(("gpu.conf", "network.conf", "keys.conf"), id="with everything"),
]


@pytest.mark.parametrize("drop_ins", VARIANTS)
def test_systemd_understands_every_line(drop_ins: tuple[str, ...], tmp_path: Path) -> None:
    verified = analyze("verify", str(installed(tmp_path, *drop_ins)))

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_a_line_that_systemd_does_not_know_would_be_found(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    unit.write_text(unit.read_text().replace("ProtectClock", "ProtectClok"))

    assert "ProtectClok" in analyze("verify", str(unit)).stderr


@pytest.mark.parametrize("drop_ins", VARIANTS)
def test_a_station_is_shut_tightly(drop_ins: tuple[str, ...], tmp_path: Path) -> None:
    unit = installed(tmp_path, *drop_ins)

    report = analyze("security", "--offline=true", str(unit)).stdout

    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert found, report
    assert float(found[1]) <= MOST_EXPOSURE, report


def test_what_a_gpu_needs_is_all_that_its_drop_in_loosens(tmp_path: Path) -> None:
    def findings(*drop_ins: str) -> set[str]:
        folder = tmp_path / "-".join(("x", *drop_ins))
        folder.mkdir()
        unit = str(installed(folder, *drop_ins))
        report = analyze("security", "--offline=true", "--json=short", unit).stdout
        return {each["json_field"] for each in json.loads(report) if each["set"] is False}

    assert findings("gpu.conf") - findings() == {
        "PrivateDevices",
        "PrivateUsers",
        "MemoryDenyWriteExecute",
        "SupplementaryGroups",
    }


def test_the_command_line_of_the_unit_is_one_that_the_program_knows() -> None:
    text = (UNITS / STATION).read_text("utf-8")
    (line,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
    program, *arguments = line.replace("%i", "line4").split()
    parser = argparse.ArgumentParser()
    add_run(parser.add_subparsers())

    given = parser.parse_args(arguments)

    assert program == "/opt/dualbank/bin/dualbank-edge"
    assert given.config == Path("/etc/dualbank/line4.toml")
    assert StationSettings(state_dir=given.state_dir, log_format=given.log_format)
    assert given.state_dir == "/var/lib/dualbank/line4"


def test_the_time_to_stop_is_longer_than_a_station_takes_to_drain() -> None:
    text = (UNITS / STATION).read_text("utf-8")
    (stop_s,) = re.findall("^TimeoutStopSec=([0-9]+)$", text, re.MULTILINE)

    assert int(stop_s) >= StationSettings().drain_s + 30
