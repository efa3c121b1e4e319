"""`dualbank-deploy verify`: every byte of a bundle, and the name of the file that is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.cli import main
from inspection.bundle import REQUIRED, digest
from inspection.manifest import MANIFEST
from tests.bundles import write_tiny_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def path_of(folder: Path, name: str) -> Path:
    entry = json.loads((folder / MANIFEST).read_text())["files"][name]
    return folder / "files" / entry["sha256"]


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["verify", str(folder), "--json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dualbank-deploy: ")
    assert said.err.count("\n") == 1
    return said.err


def test_a_whole_bundle_is_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder)]) == 0

    printed = capsys.readouterr().out
    assert digest((folder / MANIFEST).read_bytes()) in printed
    assert f"whole: {len(REQUIRED)} files match the manifest" in printed
    assert all(name in printed for name in REQUIRED)


def test_the_report_lists_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), "--json"]) == 0

    report = json.loads(capsys.readouterr().out)
    assert report["bundle"] == digest((folder / MANIFEST).read_bytes())
    assert report["parent"] is None
    assert set(report["files"]) == set(REQUIRED)
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


@pytest.mark.parametrize("verb", [[], ["verify"]])
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
