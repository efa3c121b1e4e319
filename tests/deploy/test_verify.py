"""`dualbank-deploy verify`: every byte of a bundle, the file that is wrong, and what runs here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.build import Tools
from deploy.cli import main
from inspection.bundle import REQUIRED, digest
from inspection.manifest import MANIFEST
from tests.deploy.conftest import Judge
from tests.deploy.factory import Factory

NOBODY = Tools(check=("/no/such/check",))
"""No runtime may be asked."""


def path_of(folder: Path, name: str) -> Path:
    entry = json.loads((folder / MANIFEST).read_text())["files"][name]
    return folder / "files" / entry["sha256"]


def refused(folder: Path, capsys: pytest.CaptureFixture[str], tools: Tools = NOBODY) -> str:
    assert main(["verify", str(folder), "--json"], tools) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dualbank-deploy: ")
    assert said.err.count("\n") == 1
    return said.err


def test_a_whole_bundle_is_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), "--files-only"], NOBODY) == 0

    printed = capsys.readouterr().out
    assert digest((folder / MANIFEST).read_bytes()) in printed
    assert f"whole: {len(REQUIRED)} files match the manifest" in printed
    assert all(name in printed for name in REQUIRED)


def test_the_report_lists_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), "--json", "--files-only"], NOBODY) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["bundle"] == digest((folder / MANIFEST).read_bytes())
    assert report["parent"] is None
    assert set(report["files"]) == set(REQUIRED)
    assert report["holds"] is None
    assert report["runtimes"] is None
    for name, entry in report["files"].items():
        assert path_of(folder, name).name == entry["sha256"]
        assert path_of(folder, name).stat().st_size == entry["size_bytes"]


@pytest.mark.parametrize("name", REQUIRED)
def test_one_bit_that_changed_is_found_and_its_file_named(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = path_of(folder, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    assert f"{name} is damaged" in refused(folder, capsys)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_file_that_is_missing_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path_of(folder, name).unlink()

    assert f"cannot read {name}" in refused(folder, capsys)


@pytest.mark.parametrize("more", [b"x", b""], ids=["longer", "cut"])
def test_a_file_of_another_length_is_named_with_both_lengths(
    folder: Path, capsys: pytest.CaptureFixture[str], more: bytes
) -> None:
    path = path_of(folder, "model_card.md")
    path.write_bytes(path.read_bytes() + more if more else b"")

    line = refused(folder, capsys)

    assert "model_card.md is damaged: expected 7 bytes" in line
    assert f"got {len(path.read_bytes())}" in line


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "not JSON"),
        (b"{}", "format"),
        (b'{"format": "dualbank-bundle/1"}', "manifest.json: "),
        (b'{"format": "dualbank-bundle/2"}', "dualbank-bundle/2"),
    ],
)
def test_a_manifest_that_is_none_says_what_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str], data: bytes, said: str
) -> None:
    (folder / MANIFEST).write_bytes(data)

    assert said in refused(folder, capsys)


@pytest.mark.parametrize("name", ["gone", "empty", "file"])
def test_what_is_no_bundle_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    assert f"{tmp_path / name} is no bundle" in refused(tmp_path / name, capsys)


# --- what runs ------------------------------------------------------------------------------------


@pytest.fixture
def compiled(folder: Path, factory: Factory, judged: Judge) -> Path:
    """A bundle with two engines."""
    arguments = ["build", str(folder), "--precision", "fp32", "fp16"]
    assert main(arguments, factory.tools(judged())) == 0
    return folder


def test_runtimes_that_hold_are_in_a_table(
    compiled: Path, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    assert main(["verify", str(compiled)], Tools(check=judged())) == 0

    printed = capsys.readouterr().out
    assert f"whole: {len(REQUIRED) + 2} files match the manifest" in printed
    for each in ("full.onnx, fp32", "engine, fp32", "engine, fp16", "tensorrt 10.3.0, 8.7"):
        assert each in printed
    for each in ("Orin", "1.0e-06", "2.0e-06", "3.50", "yes"):
        assert each in printed
    assert "holds here: 3 of 3 runtimes ran" in printed


def test_the_report_has_what_every_runtime_answered(
    compiled: Path, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    assert main(["verify", str(compiled), "--json"], Tools(check=judged())) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["holds"] is True
    assert [each["precision"] for each in report["runtimes"]] == ["fp32", "fp16", "fp32"]
    assert report["runtimes"][0]["latency_ms"] == 3.5
    assert report["runtimes"][0]["runtime"] == "full.onnx"


def test_one_that_does_not_hold_ends_in_3_and_is_named(
    compiled: Path, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    say: dict[str, Any] = {"holds": False, "map_error": 0.25, "flips": 2}

    assert main(["verify", str(compiled)], Tools(check=judged(full=say))) == 3

    printed = capsys.readouterr().out
    assert "2.5e-01" in printed
    assert "does not hold here: full.onnx\n" in printed


def test_one_that_cannot_run_here_says_why_and_is_no_failure(
    compiled: Path, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = dict.fromkeys(("score_error", "map_error", "flips", "latency_ms"))
    say = {"ran": False, "holds": False, "why": "there is no CUDA driver", **numbers}
    capsys.readouterr()

    assert main(["verify", str(compiled)], Tools(check=judged(engine=say))) == 0

    printed = capsys.readouterr().out
    assert "did not run" in printed
    assert "–" in printed
    assert "holds here: 1 of 3 runtimes ran" in printed


def test_the_stations_own_check_is_understood(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two programs meet nowhere but here and at a station."""
    assert main(["verify", str(folder), "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["holds"] is True
    full = report["runtimes"][0]
    assert (full["runtime"], full["precision"], full["device"]) == ("full.onnx", "fp32", "CPU")
    assert 0 <= full["score_error"] <= 1e-4
    assert full["flips"] == 0
    assert full["latency_ms"] > 0


def test_a_check_that_fails_is_the_failure_of_verify(
    folder: Path, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = Tools(check=judged(exit=1, out="", err="dualbank-edge: No module named 'cv2'\n"))

    assert "No module named 'cv2'" in refused(folder, capsys, tools)


@pytest.mark.parametrize("verb", [[], ["verify"], ["build"]])
def test_every_verb_explains_itself(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb, "--help"])

    assert ended.value.code == 0
    assert "usage: dualbank-deploy" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["verify"], ["verify", "a", "b"]])
def test_a_wrong_call_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
