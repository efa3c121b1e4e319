"""`dualbank-deploy build`: an engine enters a bundle that it was judged in, whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from onnx import parser

from deploy import build as builds
from deploy import bundle_folder
from deploy.bundle_folder import verify
from deploy.cli import main
from deploy.compiler import CompileError, InstalledProvider, compile_trunk, find_provider
from deploy.plan import Machine
from inspection.bundle import REQUIRED, TRUNK, digest
from inspection.engines import SOURCE, EngineKey
from inspection.manifest import MANIFEST
from tests.bundles import replace_file, tiny_files
from tests.deploy.conftest import Judge
from tests.deploy.factory import Factory

ONNX = digest(tiny_files()[TRUNK])
NAMES = {
    each: EngineKey(each, ONNX[:12], "tensorrt", "10.3.0", (8, 7)).name
    for each in ("fp32", "fp16", "int8")
}


def everything(folder: Path) -> dict[str, bytes]:
    """Path → bytes of every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def built(
    folder: Path, factory: Factory, judge: tuple[str, ...], *arguments: str, status: int = 0
) -> None:
    assert main(["build", str(folder), *arguments], factory.tools(judge)) == status


def failed(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said of a failure, in one line and nowhere else."""
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dualbank-deploy: ")
    assert said.err.count("\n") == 1
    return said.err


# --- what becomes of a bundle ---------------------------------------------------------------------


def test_an_engine_that_holds_is_in_the_bundle_and_the_bundle_is_a_child_of_itself(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    before = verify(folder)

    built(folder, factory, judged())

    after = verify(folder)
    assert after.manifest.parent == before.id != after.id
    assert set(after.manifest.files) == {*REQUIRED, NAMES["fp16"]}
    assert after.file(NAMES["fp16"]).startswith(b"engine 1 of ")
    changed = {"parent": before.id, "files": after.manifest.files}
    assert after.manifest == before.manifest.model_copy(update=changed)
    printed = capsys.readouterr().out
    assert f"bundle {before.id} -> {after.id}" in printed
    assert f"added {NAMES['fp16']}" in printed


def test_the_report_is_json(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    before = verify(folder)

    built(folder, factory, judged(), "--json")

    report = json.loads(capsys.readouterr().out)
    assert report["before"] == before.id
    assert report["bundle"] == verify(folder).id
    assert report["added"] == [NAMES["fp16"]]
    assert report["present"] == []
    assert report["holds"] is True
    assert [each["runtime"] for each in report["runtimes"]] == ["full.onnx", NAMES["fp16"]]


def test_nothing_else_is_left_behind(folder: Path, factory: Factory, judged: Judge) -> None:
    before = everything(folder.parent)

    built(folder, factory, judged())

    after = everything(folder.parent)
    new = f"{folder.name}/{verify(folder).manifest.files[NAMES['fp16']].path}"
    manifest = f"{folder.name}/{MANIFEST}"
    assert set(after) == {*before, new}
    assert {name for name in before if before[name] != after[name]} == {manifest}
    assert sorted(os.listdir(folder.parent)) == [folder.name]


def test_a_bundle_that_shares_its_files_leaves_its_parent_alone(
    folder: Path, factory: Factory, judged: Judge
) -> None:
    parent = folder.parent / "parent"
    shutil.copytree(folder, parent, copy_function=os.link)
    before = everything(parent)

    built(folder, factory, judged())

    assert everything(parent) == before


def test_several_precisions_enter_together(folder: Path, factory: Factory, judged: Judge) -> None:
    before = verify(folder)

    built(folder, factory, judged(), "--precision", "fp32", "fp16")

    after = verify(folder)
    assert {NAMES["fp32"], NAMES["fp16"]} < set(after.manifest.files)
    assert after.manifest.parent == before.id
    assert factory.graphs[0] == before.file(TRUNK)
    assert factory.graphs[1] != before.file(TRUNK)


def test_an_engine_that_is_there_is_not_built_again(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    built(folder, factory, judged())
    before = everything(folder)
    capsys.readouterr()

    built(folder, factory, ("/no/such/check",))

    assert len(factory.compiled) == 1
    assert everything(folder) == before
    printed = capsys.readouterr().out
    assert f"{NAMES['fp16']} is in the bundle already" in printed
    assert f"nothing to build; bundle {verify(folder).id} is as it was" in printed


def test_only_what_is_missing_is_built(folder: Path, factory: Factory, judged: Judge) -> None:
    built(folder, factory, judged())
    first = verify(folder)

    built(folder, factory, judged(), "--precision", "fp16", "fp32")

    after = verify(folder)
    assert len(factory.compiled) == 2
    assert after.manifest.files[NAMES["fp16"]] == first.manifest.files[NAMES["fp16"]]
    assert NAMES["fp32"] in after.manifest.files
    assert after.manifest.parent == first.id


def test_two_engines_of_the_same_bytes_share_one_file(
    folder: Path, factory: Factory, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "compile", lambda *asked: (b"the very same", b""))

    built(folder, factory, judged(), "--precision", "fp32", "fp16")

    files = verify(folder).manifest.files
    assert files[NAMES["fp32"]] == files[NAMES["fp16"]]


def test_another_engine_of_the_bundle_that_does_not_run_here_is_no_hindrance(
    folder: Path, factory: Factory, judged: Judge
) -> None:
    """One bundle serves stations with different chips."""
    built(folder, Factory("10.3.0", (8, 6)), judged())
    its = EngineKey("fp16", ONNX[:12], "tensorrt", "10.3.0", (8, 6)).name
    script = folder.parent / "judge.py"
    script.write_text(
        "import hashlib, json, pathlib, sys\n"
        "data = (pathlib.Path(sys.argv[2]) / 'manifest.json').read_bytes()\n"
        "names = ['full.onnx', *(n for n in json.loads(data)['files'] if n.endswith('.engine'))]\n"
        "runtimes = [dict(runtime=n, precision='fp16', device='Orin', ran='sm86' not in n,\n"
        "                 holds='sm86' not in n, why='another chip') for n in names]\n"
        "print(json.dumps(dict(bundle=hashlib.sha256(data).hexdigest(), holds=True,\n"
        "                      runtimes=runtimes)))\n"
    )

    built(folder, factory, (sys.executable, str(script)))

    assert {its, NAMES["fp16"]} < set(verify(folder).manifest.files)


# --- the gate -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "say",
    [
        pytest.param({"engine": {"holds": False, "score_error": 0.3, "flips": 2}}, id="the engine"),
        pytest.param({"full": {"holds": False, "map_error": 0.3}}, id="full.onnx"),
    ],
)
def test_what_does_not_hold_ends_in_3_and_the_bundle_is_as_it_was(
    folder: Path,
    factory: Factory,
    judged: Judge,
    capsys: pytest.CaptureFixture[str],
    say: dict[str, Any],
) -> None:
    before = everything(folder.parent)

    built(folder, factory, judged(**say), status=3)

    assert everything(folder.parent) == before
    printed = capsys.readouterr().out
    assert "3.0e-01" in printed
    assert "NO" in printed
    assert "does not hold here: " in printed
    assert f"nothing was added; bundle {verify(folder).id} is as it was" in printed


def test_the_report_of_a_refusal_is_json_too(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    built(folder, factory, judged(engine={"holds": False}), "--json", status=3)

    report = json.loads(capsys.readouterr().out)
    assert report["bundle"] == report["before"]
    assert report["added"] == []
    assert report["holds"] is False


def test_one_of_two_that_does_not_hold_keeps_both_out(
    folder: Path, factory: Factory, judged: Judge
) -> None:
    before = everything(folder.parent)

    built(folder, factory, judged(engine={"holds": False}), "--precision", "fp32", "fp16", status=3)

    assert everything(folder.parent) == before


@pytest.mark.parametrize(
    ("say", "said"),
    [
        pytest.param(
            {"engine": {"ran": False, "holds": False, "why": "there is no CUDA driver"}},
            f"{NAMES['fp16']} was built, but could not be tried, so the bundle is left as it was: "
            "there is no CUDA driver",
            id="it did not run",
        ),
        pytest.param(
            {"report": {"runtimes": [], "holds": True}},
            "the check does not speak of it",
            id="nobody speaks of it",
        ),
        pytest.param({"exit": 1, "err": "dualbank-edge: bad"}, "failed: dualbank-edge", id="fails"),
        pytest.param({"out": "fine!"}, "no report that can be read", id="says something else"),
        pytest.param({"report": {"bundle": "f" * 64}}, "read bundle ffffffffffff…", id="another"),
    ],
)
def test_what_could_not_be_tried_ends_in_1_and_the_bundle_is_as_it_was(
    folder: Path,
    factory: Factory,
    judged: Judge,
    capsys: pytest.CaptureFixture[str],
    say: dict[str, Any],
    said: str,
) -> None:
    before = everything(folder.parent)

    built(folder, factory, judged(**say), status=1)

    assert said in failed(capsys)
    assert everything(folder.parent) == before


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_compiler_that_fails_leaves_the_bundle_as_it_was(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(folder.parent)
    factory.fails = CompileError("node 3 'scan', operator 'BankScan': not known")

    built(folder, factory, judged(), status=1)

    assert "operator 'BankScan'" in failed(capsys)
    assert everything(folder.parent) == before


@pytest.mark.parametrize("name", REQUIRED)
def test_a_damaged_bundle_is_refused_before_anything_is_compiled(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = folder / verify(folder).manifest.files[name].path
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    for more in ([], ["--plan"]):
        built(folder, factory, judged(), *more, status=1)
        assert f"{name} is damaged" in failed(capsys)
    assert factory.compiled == []


def test_a_trunk_that_is_none_is_refused_before_anything_is_compiled(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_file(folder, TRUNK, b"not ONNX")

    for precision in ("fp32", "fp16"):
        built(folder, factory, judged(), "--precision", precision, status=1)
        assert "trunk.onnx is no ONNX graph" in failed(capsys)
    assert factory.compiled == []


def test_one_bad_graph_of_two_is_found_before_the_first_is_compiled(
    folder: Path, factory: Factory, judged: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_file(folder, SOURCE["int8"], tiny_files()[TRUNK])

    built(folder, factory, judged(), "--precision", "fp16", "int8", status=1)

    assert "trunk.int8.onnx has no QuantizeLinear" in failed(capsys)
    assert factory.compiled == []


def test_a_bundle_that_cannot_be_written_is_refused_before_anything_is_compiled(
    folder: Path,
    factory: Factory,
    judged: Judge,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As root every folder can be written, so the disk is asked to refuse."""

    def refuse(**asked: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)

    built(folder, factory, judged(), status=1)

    line = failed(capsys)
    assert f"{folder} and the folder around it must be writable to build: Read-only file" in line
    assert "copy the bundle to another place" in line
    assert factory.compiled == []


def test_a_folder_without_permission_is_refused(
    folder: Path,
    factory: Factory,
    judged: Judge,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Said in the system's place: to root no folder is closed.
    real = tempfile.TemporaryFile

    def refuses(*, dir: Path) -> Any:
        if dir.name == "files":
            raise PermissionError(errno.EACCES, "Permission denied", str(dir))
        return real(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuses)
    built(folder, factory, judged(), status=1)

    assert "must be writable" in failed(capsys)
    assert factory.compiled == []


class CutError(Exception):
    """Stands for the power going: nobody catches it."""


STEPS = {"link": 11, "fsync": 4, "replace": 2}
"""Calls that reach the disk in one build, and how many of each there are."""


@pytest.mark.parametrize(
    ("call", "number"), [(call, i) for call, count in STEPS.items() for i in range(count + 1)]
)
def test_wherever_it_is_cut_off_the_bundle_is_whole_and_the_next_build_succeeds(
    folder: Path,
    factory: Factory,
    judged: Judge,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
) -> None:
    before, real, done = verify(folder), getattr(os, call), []

    def cut(*arguments: Any, **more: Any) -> Any:
        if len(done) == number:
            raise CutError
        done.append(arguments)
        return real(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(bundle_folder.os, call, cut)
        if number < STEPS[call]:
            with pytest.raises(CutError):
                main(["build", str(folder)], factory.tools(judged()))
        else:
            # One more than there are: else a step that is added would never be cut.
            built(folder, factory, judged())
            assert len(done) == number

    cut_off = verify(folder)
    if cut_off.id == before.id:
        built(folder, factory, judged())
    after = verify(folder)
    assert NAMES["fp16"] in after.manifest.files
    assert after.manifest.parent == before.id


def test_a_disk_that_is_full_is_said_and_the_bundle_is_as_it_was(
    folder: Path,
    factory: Factory,
    judged: Judge,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = everything(folder.parent)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_folder.os, "fsync", full)

    built(folder, factory, judged(), status=1)

    assert "No space left on device" in failed(capsys)
    assert everything(folder.parent) == before


def test_a_bundle_that_became_another_one_meanwhile_is_left_alone(
    folder: Path,
    factory: Factory,
    judged: Judge,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builds.check

    def check(trial: Path, *more: Any) -> Any:
        replace_file(folder, "model_card.md", b"# Another\n")
        return real(trial, *more)

    monkeypatch.setattr(builds, "check", check)

    built(folder, factory, judged(), status=1)

    assert "became another bundle while this was built; build again" in failed(capsys)
    assert verify(folder).file("model_card.md") == b"# Another\n"


def test_a_disk_without_links_is_copied_on(
    folder: Path, factory: Factory, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(bundle_folder.os, "link", refuse)

    built(folder, factory, judged())

    assert NAMES["fp16"] in verify(folder).manifest.files


def test_a_bundle_named_from_inside_of_it_is_found(
    folder: Path, factory: Factory, judged: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    built(Path("."), factory, judged())

    assert NAMES["fp16"] in verify(folder).manifest.files
    assert sorted(os.listdir(folder.parent)) == [folder.name]


# --- timings --------------------------------------------------------------------------------------


def test_timings_are_read_where_they_are_and_written_for_the_next_build(
    folder: Path, factory: Factory, judged: Judge, tmp_path: Path
) -> None:
    cache = tmp_path / "timings"
    arguments = ("--timing-cache", str(cache))

    built(folder, factory, judged(), *arguments, "--precision", "fp16", "fp32")

    assert [timings for _, _, timings in factory.compiled] == [b"", b"+"]
    assert cache.read_bytes() == b"++"
    built(folder, Factory("10.4.0"), judged(), *arguments)
    assert cache.read_bytes() == b"+++"


def test_timings_are_kept_even_if_the_engine_is_refused(
    folder: Path, factory: Factory, judged: Judge, tmp_path: Path
) -> None:
    """They took minutes, and they are right."""
    cache = tmp_path / "timings"

    arguments = ("--timing-cache", str(cache))
    built(folder, factory, judged(engine={"holds": False}), *arguments, status=3)

    assert cache.read_bytes() == b"+"


def test_timings_that_cannot_be_written_are_said_before_anything_is_compiled(
    folder: Path,
    factory: Factory,
    judged: Judge,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = everything(folder.parent)

    arguments = ("--timing-cache", str(tmp_path / "gone" / "timings"))
    built(folder, factory, judged(), *arguments, status=1)

    assert "No such file or directory" in failed(capsys)
    assert factory.compiled == []
    assert everything(folder.parent) == before


def test_rtx_keeps_no_timings_and_says_so(
    folder: Path, judged: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    factory = Factory("1.7.1", None)
    arguments = ("--provider", "tensorrt_rtx", "--capability", "8.6")

    cache = ("--timing-cache", str(tmp_path / "timings"))
    built(folder, factory, judged(), *arguments, *cache, status=1)

    assert "tensorrt_rtx keeps no timings; leave --timing-cache out" in failed(capsys)
    assert factory.compiled == []


# --- INT8, and a real compiler --------------------------------------------------------------------


def test_int8_is_built_of_the_graph_that_has_ranges(
    folder: Path, factory: Factory, judged: Judge
) -> None:
    quantised = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        trunk (uint8[B, 32, 32, 3] frames) => (float[B, 16, 3] patch_features)
        <float scale = {0.5}, int8 zero = {0}, int64[3] patches = {-1, 16, 3}>
        {
            pixels = Cast <to = 1> (frames)
            coarse = QuantizeLinear (pixels, scale, zero)
            fine = DequantizeLinear (coarse, scale, zero)
            some = ReduceMax <axes = [1], keepdims = 0> (fine)
            patch_features = Reshape (some, patches)
        }""").SerializeToString()
    replace_file(folder, SOURCE["int8"], quantised)

    built(folder, factory, judged(), "--precision", "int8")

    assert factory.graphs == [quantised]
    name = EngineKey("int8", digest(quantised)[:12], "tensorrt", "10.3.0", (8, 7)).name
    assert name in verify(folder).manifest.files


def test_a_real_engine_enters_a_bundle(folder: Path, judged: Judge, rtx: InstalledProvider) -> None:
    """All but the run on a GPU is real here."""
    tools = builds.Tools(Machine(find_provider), compile_trunk, judged())
    arguments = ["--provider", "tensorrt_rtx", "--capability", "8.6", "--precision", "fp32", "fp16"]

    assert main(["build", str(folder), *arguments], tools) == 0

    after = verify(folder)
    for precision in ("fp32", "fp16"):
        key = EngineKey(precision, ONNX[:12], "tensorrt_rtx", rtx.version, (8, 6))
        assert len(after.file(key.name)) > 10_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "a", "--precision", "bf16"],
        ["build", "a", "--precision"],
        ["build", "a", "--provider", "openvino"],
        ["build", "a", "b"],
    ],
)
def test_a_wrong_call_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
