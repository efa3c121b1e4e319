"""The built kernels: nvcc takes them, and what does not match their sources is not loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from edge.kernels import binary, build
from inspection.errors import DeviceError

FATBIN = b"\x50\xed\x55\xba"
"""How a fat binary begins."""

ELF = b"\x7fELF"


@pytest.fixture
def folder(tmp_path):
    binary.write_binary(tmp_path, FATBIN + b"code", "nvcc 13.0", ("sm_86", "compute_86"))
    return tmp_path


def change(folder, **fields):
    path = folder / binary.DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_was_written_is_read(folder):
    assert binary.read_binary(folder) == FATBIN + b"code"


def test_a_binary_of_other_sources_is_refused(folder):
    change(folder, sources="0" * 64)

    with pytest.raises(DeviceError, match=r"built from other sources .*edge\.kernels\.build"):
        binary.read_binary(folder)


def test_a_damaged_binary_is_refused(folder):
    (folder / binary.BINARY).write_bytes(FATBIN + b"c0de")

    with pytest.raises(DeviceError, match="is damaged"):
        binary.read_binary(folder)


@pytest.mark.parametrize("name", [binary.BINARY, binary.DESCRIPTION])
def test_a_missing_file_says_how_to_build_it(folder, name):
    (folder / name).unlink()

    with pytest.raises(DeviceError, match=r"not built .*python -m edge\.kernels\.build"):
        binary.read_binary(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sources": 1}', "[" * 100_000])
def test_a_description_that_is_none_is_refused(folder, text):
    (folder / binary.DESCRIPTION).write_text(text)

    with pytest.raises(DeviceError, match="does not describe kernels"):
        binary.read_binary(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("b.cuh", "int y;\n", id="another byte"),
        pytest.param("c.cuh", "", id="another file"),
        pytest.param("c.cu", "", id="another source"),
    ],
)
def test_the_digest_knows_every_source(tmp_path, name, text):
    (tmp_path / "a.cu").write_text("int x;\n")
    (tmp_path / "b.cuh").write_text("int x;\n")
    before = binary.digest_of_sources(tmp_path)

    (tmp_path / name).write_text(text)

    assert binary.digest_of_sources(tmp_path) != before


def test_the_digest_knows_where_a_file_ends(tmp_path):
    (tmp_path / "a.cu").write_text("ab")
    (tmp_path / "b.cu").write_text("c")
    before = binary.digest_of_sources(tmp_path)
    (tmp_path / "a.cu").write_text("a")
    (tmp_path / "b.cu").write_text("bc")

    assert binary.digest_of_sources(tmp_path) != before


def test_a_folder_without_sources_has_no_digest(tmp_path):
    with pytest.raises(DeviceError, match="no kernel sources"):
        binary.digest_of_sources(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(DeviceError, match="cannot be written"):
        binary.write_binary(tmp_path / "file", b"", "nvcc", ())


def test_a_compiler_that_is_not_there_fails_with_a_hint(tmp_path, caplog):
    assert build.main(["--nvcc", "nvcc-of-tomorrow", "--output", str(tmp_path)]) == 1
    assert "--nvrtc" in caplog.text


@pytest.mark.parametrize("text", ["8", "sm_86", "8.65", "", "8.x"])
def test_what_is_no_capability_is_a_usage_error(text):
    with pytest.raises(SystemExit) as ended:
        build.main(["--nvrtc", text])

    assert ended.value.code == 2


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_nvcc_builds_what_the_loader_takes(tmp_path):
    """For one chip: `python -m edge.kernels.build` takes the same way for all of them."""
    build.build_by_nvcc(tmp_path, targets=(75,))

    described = json.loads((tmp_path / binary.DESCRIPTION).read_text())
    assert binary.read_binary(tmp_path).startswith(FATBIN)
    assert described["targets"] == ["sm_75", "compute_75"]
    assert described["compiler"].startswith("nvcc 1")


def old_nvcc(tmp_path, known, version):
    """A compiler that writes down what it is asked, and knows some chips."""
    script = tmp_path / "nvcc"
    script.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --list-gpu-arch ] && {{ printf "compute_%s\\n" {known}; exit; }}\n'
        f'[ "$1" = --version ] && {{ echo "release, V{version}"; exit; }}\n'
        f'echo "$@" > {tmp_path}/asked\n'
        'while [ "$1" != -o ]; do shift; done; echo built > "$2"\n'
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("known", "version", "targets", "compresses"),
    [
        ("75 80 86 87 89 90", "12.6.68", "75 80 86 87 89 90", False),
        ("75 80 86 87 88 89 90 100 110 120", "13.0.88", "75 80 86 87 89 90 100 110 120", True),
    ],
    ids=["JetPack 6", "JetPack 7"],
)
def test_the_kernels_are_built_for_every_chip_that_the_compiler_knows(
    tmp_path, known, version, targets, compresses
):
    out = tmp_path / "out"

    build.build_by_nvcc(out, old_nvcc(tmp_path, known, version))

    newest = targets.split()[-1]
    described = json.loads((out / binary.DESCRIPTION).read_text())
    assert described["targets"] == [*(f"sm_{t}" for t in targets.split()), f"compute_{newest}"]
    assert described["compiler"] == f"nvcc {version}"
    asked = (tmp_path / "asked").read_text()
    assert ("--compress-mode=size" in asked) == compresses


def test_a_compiler_that_knows_no_chip_of_ours_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="knows none of"):
        build.build_by_nvcc(tmp_path / "out", old_nvcc(tmp_path, "50 52", "11.0.1"))


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_what_nvcc_refuses_is_shown_and_leaves_no_binary(tmp_path):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / build.SOURCE).write_text("__global__ void broken( {}\n")

    with pytest.raises(DeviceError, match=r"kernels\.cu\(1\): error"):
        build.build_by_nvcc(tmp_path / "out", targets=(75,), folder=sources)

    assert not (tmp_path / "out").exists()


def build_by_nvrtc(output, chip):
    """`python -m edge.kernels.build --nvrtc`, in a process that the emulated driver is not in.

    With it the compiler dies of a segmentation fault; on a station it never meets it.
    """
    try:
        build._load_nvrtc()
    except DeviceError as error:
        if os.environ.get("REQUIRE_PYCUDA") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    command = [sys.executable, "-m", "edge.kernels.build", "--nvrtc", chip, "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nvrtc_builds_for_the_chip_at_hand(tmp_path):
    done = build_by_nvrtc(tmp_path, "8.7")

    assert done.returncode == 0
    described = json.loads((tmp_path / binary.DESCRIPTION).read_text())
    assert binary.read_binary(tmp_path).startswith(ELF)
    assert described["targets"] == ["sm_87"]


def test_what_nvrtc_refuses_is_shown(tmp_path):
    done = build_by_nvrtc(tmp_path, "1.1")

    assert done.returncode == 1
    assert "NVRTC cannot build for sm_11" in done.stderr
    assert not (tmp_path / binary.BINARY).exists()
