"""`dualbank-deploy build --plan`: what would be built, on any machine, without building."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.build import Tools
from deploy.cli import main
from deploy.compiler import CompileError
from deploy.plan import Machine, Wanted, make_plan, parse_capability
from inspection.bundle import TRUNK, Bundle, digest
from inspection.errors import DeviceError, InputError
from inspection.manifest import MANIFEST, manifest_bytes
from tests.bundles import tiny_files
from tests.deploy.factory import Factory

ONNX = digest(tiny_files()[TRUNK])


@pytest.fixture
def machine(factory: Factory) -> Machine:
    return Machine(factory.find, factory.capability)


def plan(
    factory: Factory, folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    """The plan as the command prints it; it must leave the bundle and the compiler alone."""
    before = (folder / MANIFEST).read_bytes()
    tools = factory.tools(("/no/such/check",))

    assert main(["build", str(folder), "--plan", "--json", *arguments], tools) == 0

    assert factory.compiled == []
    assert (folder / MANIFEST).read_bytes() == before
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_plan_names_the_engine_and_what_it_is_made_of_and_for(
    factory: Factory, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = plan(factory, folder, capsys)

    assert said == {
        "bundle": digest((folder / MANIFEST).read_bytes()),
        "onnx_sha256": ONNX,
        "provider": "tensorrt",
        "version": "10.3.0",
        "capability": "8.7",
        "engines": [
            {
                "precision": "fp16",
                "source": "trunk.onnx",
                "source_bytes": len(tiny_files()[TRUNK]),
                "name": f"trunk-fp16-{ONNX[:12]}-tensorrt-10.3.0-sm87.engine",
                "present": False,
            }
        ],
        "other_engines": [],
        "lacks": [],
    }


def test_one_engine_a_precision_in_the_order_asked_and_each_once(
    factory: Factory, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = plan(factory, folder, capsys, "--precision", "fp32", "fp16", "fp32")

    assert [each["precision"] for each in said["engines"]] == ["fp32", "fp16"]


@pytest.mark.parametrize(
    ("version", "chip", "arguments", "known", "said"),
    [
        pytest.param("10.3.0", None, (), None, "no GPU here: build on the", id="no GPU"),
        pytest.param(
            "10.3.0", None, ("--capability", "8.7"), "8.7", "no GPU here: build", id="GPU elsewhere"
        ),
        pytest.param(
            "10.3.0",
            (8, 7),
            ("--capability", "8.6"),
            "8.6",
            "capability 8.7, not 8.6: tensorrt builds for the GPU it runs on",
            id="another GPU here",
        ),
        pytest.param(
            "10.3.0", (12, 0), (), "12.0", "10.3.0 does not compile for .* 12.0", id="pair"
        ),
        pytest.param("8.6.1", (8, 6), (), "8.6", "8.6.1 is not supported", id="too old"),
        pytest.param("8.6.1", None, (), None, "no GPU here", id="too old, and no GPU"),
        pytest.param(
            "1.7.1",
            None,
            ("--provider", "tensorrt_rtx"),
            None,
            "no GPU here.* or say for which chip with --capability",
            id="RTX without a chip",
        ),
        pytest.param(
            "1.7.1",
            None,
            ("--provider", "tensorrt_rtx", "--capability", "9.0"),
            "9.0",
            "does not compile for compute capability 9.0; it does for 8.6, 12.0",
            id="RTX for a chip it does not list",
        ),
        pytest.param(
            "10.3.0", (8, 7), ("--precision", "int8"), "8.7", "has no INT8 ranges", id="no ranges"
        ),
    ],
)
def test_what_is_missing_is_in_the_plan_and_a_build_fails_by_it(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    version: str,
    chip: tuple[int, int] | None,
    arguments: tuple[str, ...],
    known: str | None,
    said: str,
) -> None:
    factory = Factory(version, chip)

    planned = plan(factory, folder, capsys, *arguments)

    assert planned["capability"] == known
    has_name = known is not None and said != "has no INT8 ranges"
    assert (planned["engines"][0]["name"] is not None) == has_name
    assert main(["build", str(folder), *arguments], factory.tools(("/no/such/check",))) == 1
    error = capsys.readouterr().err
    assert error == f"dualbank-deploy: {planned['lacks'][0]}\n"
    assert re.search(said, error)
    assert factory.compiled == []


def test_rtx_plans_for_a_chip_that_is_elsewhere(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--provider", "tensorrt_rtx", "--capability", "12.0")

    said = plan(Factory("1.7.1.116", None), folder, capsys, *arguments)

    assert said["lacks"] == []
    name = f"trunk-fp16-{ONNX[:12]}-tensorrt_rtx-1.7.1.116-sm120.engine"
    assert said["engines"][0]["name"] == name


def test_without_a_compiler_there_is_a_plan_without_a_name(
    tiny_bundle: Bundle, factory: Factory
) -> None:
    def find(name: str) -> Any:
        raise CompileError(f"{name} is not installed here")

    said = make_plan(tiny_bundle, Wanted(("fp16",), "tensorrt"), Machine(find, factory.capability))

    assert said.version is None
    assert said.capability == (8, 7)
    assert said.engines[0].name is None
    assert [type(each) for each in said.lacks] == [CompileError]


def test_everything_that_is_missing_is_said_at_once(tiny_bundle: Bundle) -> None:
    def find(name: str) -> Any:
        raise CompileError("not installed")

    def capability() -> tuple[int, int]:
        raise DeviceError("no GPU")

    said = make_plan(tiny_bundle, Wanted(("int8",), "tensorrt"), Machine(find, capability))

    assert [str(each) for each in said.lacks] == [
        "not installed",
        "no GPU",
        "this bundle has no INT8 ranges: it has no trunk.int8.onnx",
    ]


def test_engines_that_are_there_are_told_from_those_that_are_not(
    tiny_bundle: Bundle, machine: Machine
) -> None:
    ours = f"trunk-fp16-{ONNX[:12]}-tensorrt-10.3.0-sm87.engine"
    theirs = f"trunk-fp16-{ONNX[:12]}-tensorrt-10.8.0-sm120.engine"
    entry = tiny_bundle.manifest.files[TRUNK]
    files = {**tiny_bundle.manifest.files, ours: entry, theirs: entry}
    manifest = tiny_bundle.manifest.model_copy(update={"files": files})
    bundle = replace(tiny_bundle, manifest=manifest, id=digest(manifest_bytes(manifest)))

    said = make_plan(bundle, Wanted(("fp32", "fp16"), "tensorrt"), machine)

    assert [(each.precision, each.present) for each in said.engines] == [
        ("fp32", False),
        ("fp16", True),
    ]
    assert said.others == (theirs,)


def test_a_plan_for_people_says_the_same(
    factory: Factory, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["build", str(folder), "--plan", "--precision", "fp16", "int8"]

    assert main(arguments, factory.tools(("/no/such/check",))) == 0

    printed = capsys.readouterr().out
    for each in (
        digest((folder / MANIFEST).read_bytes()),
        ONNX,
        "tensorrt 10.3.0",
        "8.7",
        f"trunk-fp16-{ONNX[:12]}-tensorrt-10.3.0-sm87.engine: would be built",
        f"from trunk.onnx, {len(tiny_files()[TRUNK])} bytes",
        "int8  name not known yet: has no graph to be built of",
        "from trunk.int8.onnx, not in this bundle",
        "cannot be built here: this bundle has no INT8 ranges",
    ):
        assert each in printed


def test_nothing_need_be_installed_for_a_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], no_module: Callable[[str], None]
) -> None:
    no_module("tensorrt")

    assert main(["build", str(folder), "--plan"], Tools()) == 0

    assert "tensorrt (not installed)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "capability"), [("8.6", (8, 6)), ("12.0", (12, 0)), ("10.3", (10, 3))]
)
def test_a_capability_is_read_as_it_is_written(text: str, capability: tuple[int, int]) -> None:
    assert parse_capability(text) == capability


@pytest.mark.parametrize(
    "text", ["", "8", "86", "8.", ".6", "8.66", "sm86", "8,6", "8.6.1", "-8.6"]
)
def test_what_is_no_capability_is_refused(
    factory: Factory, folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    with pytest.raises(InputError, match=r"expected a compute capability as 8\.6"):
        parse_capability(text)

    tools = factory.tools(("/no/such/check",))
    assert main(["build", str(folder), f"--capability={text}"], tools) == 1
    assert "expected a compute capability as 8.6" in capsys.readouterr().err
