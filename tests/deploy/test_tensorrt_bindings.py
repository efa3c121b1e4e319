"""Every name of TensorRT that we use is there, in every version, and takes what we give it.

`tensorrt_bindings.sh` makes the real bindings of some versions importable; without them this is
skipped, unless REQUIRE_TENSORRT_BINDINGS=1 says that it must run. Which names we use is read from
the sources, so a new one that is not in the table below fails.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "tensorrt_bindings"
VERSIONS = ("10.3.0", "10.8.0.43", "10.13.3.9", "11.4.0.106")
SOURCES = ("deploy/compiler.py", "edge/tensorrt_engine.py")

MODULE = "the module"
PLAIN = "a number, a text, or nothing of TensorRT's"

# What each name is, or gives when it is called.
USED = {
    (MODULE, "__version__"): PLAIN,
    (MODULE, "Builder"): "Builder",
    (MODULE, "BuilderFlag"): "BuilderFlag",
    (MODULE, "ComputeCapability"): "ComputeCapability",
    (MODULE, "ILogger"): "ILogger",
    (MODULE, "MemoryPoolType"): "MemoryPoolType",
    (MODULE, "NetworkDefinitionCreationFlag"): "NetworkDefinitionCreationFlag",
    (MODULE, "OnnxParser"): "OnnxParser",
    (MODULE, "Runtime"): "Runtime",
    (MODULE, "TensorIOMode"): "TensorIOMode",
    (MODULE, "float32"): PLAIN,
    (MODULE, "uint8"): PLAIN,
    ("Builder", "build_serialized_network"): "IHostMemory",
    ("Builder", "create_builder_config"): "IBuilderConfig",
    ("Builder", "create_network"): "INetworkDefinition",
    ("Builder", "create_optimization_profile"): "IOptimizationProfile",
    ("BuilderFlag", "TF32"): PLAIN,
    ("ComputeCapability", "__members__"): PLAIN,
    ("IBuilderConfig", "add_optimization_profile"): PLAIN,
    ("IBuilderConfig", "clear_flag"): PLAIN,
    ("IBuilderConfig", "create_timing_cache"): "ITimingCache",
    ("IBuilderConfig", "get_timing_cache"): "ITimingCache",
    ("IBuilderConfig", "num_compute_capabilities"): PLAIN,
    ("IBuilderConfig", "set_compute_capability"): PLAIN,
    ("IBuilderConfig", "set_memory_pool_limit"): PLAIN,
    ("IBuilderConfig", "set_timing_cache"): PLAIN,
    ("ICudaEngine", "create_execution_context"): "IExecutionContext",
    ("ICudaEngine", "get_tensor_dtype"): PLAIN,
    ("ICudaEngine", "get_tensor_mode"): PLAIN,
    ("ICudaEngine", "get_tensor_name"): PLAIN,
    ("ICudaEngine", "get_tensor_profile_shape"): PLAIN,
    ("ICudaEngine", "get_tensor_shape"): PLAIN,
    ("ICudaEngine", "num_io_tensors"): PLAIN,
    ("IExecutionContext", "execute_async_v3"): PLAIN,
    ("IExecutionContext", "infer_shapes"): PLAIN,
    ("IExecutionContext", "set_input_shape"): PLAIN,
    ("IExecutionContext", "set_tensor_address"): PLAIN,
    ("ILogger", "ERROR"): PLAIN,
    ("ILogger", "INTERNAL_ERROR"): PLAIN,
    ("ILogger", "Severity"): "ILogger.Severity",
    ("ILogger", "WARNING"): PLAIN,
    ("ILogger", "__init__"): PLAIN,
    ("ILogger.Severity", "ERROR"): PLAIN,
    ("ILogger.Severity", "INTERNAL_ERROR"): PLAIN,
    ("ILogger.Severity", "WARNING"): PLAIN,
    ("INetworkDefinition", "get_input"): "ITensor",
    ("INetworkDefinition", "num_inputs"): PLAIN,
    ("IOptimizationProfile", "set_shape"): PLAIN,
    ("ITensor", "name"): PLAIN,
    ("ITensor", "shape"): PLAIN,
    ("ITimingCache", "serialize"): "IHostMemory",
    ("MemoryPoolType", "WORKSPACE"): PLAIN,
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"): PLAIN,
    ("OnnxParser", "get_error"): "ParserError",
    ("OnnxParser", "num_errors"): PLAIN,
    ("OnnxParser", "parse"): PLAIN,
    ("ParserError", "desc"): PLAIN,
    ("ParserError", "node"): PLAIN,
    ("ParserError", "node_name"): PLAIN,
    ("ParserError", "node_operator"): PLAIN,
    ("Runtime", "deserialize_cuda_engine"): "ICudaEngine",
    ("TensorIOMode", "INPUT"): PLAIN,
}
# Where TensorRT-RTX compiles for a chip that is not there.
RTX_ALONE = {
    (MODULE, "ComputeCapability"),
    ("ComputeCapability", "__members__"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}
# What a parameter or an attribute of this name holds, where its annotation does not say.
NAMES = {
    **dict.fromkeys(("trt", "library", "module"), MODULE),
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
}
# Of no annotated type, and not TensorRT's.
OURS = {"heard", "severity"}
UNSAID = {"Any", "ModuleType", "ModuleType | None"}


@dataclass(frozen=True)
class Use:
    """A name that is used: `calls` has the positional and the named arguments of each call."""

    owner: str
    name: str
    where: str
    calls: tuple[tuple[int, tuple[str, ...]], ...] = ()


@dataclass
class Reader(ast.NodeVisitor):
    """Follows what TensorRT gave through a module, by `USED`, and notes what is asked of it."""

    path: str
    known: dict[str, str] = field(default_factory=dict)
    unsaid: set[str] = field(default_factory=set)
    uses: list[Use] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def kind(self, node: ast.expr) -> str:
        """What an expression is: a class of TensorRT, its module, or plain."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id, PLAIN)
        if isinstance(node, ast.Call):
            return self.kind(node.func)
        if isinstance(node, ast.Attribute):
            owner = self.kind(node.value)
            if owner != PLAIN:
                return USED.get((owner, node.attr), PLAIN)
            return NAMES.get(node.attr.lstrip("_"), PLAIN)
        return PLAIN

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, unsaid = dict(self.known), set(self.unsaid)
        for each in node.args.args + node.args.kwonlyargs:
            annotation = ast.unparse(each.annotation) if each.annotation else ""
            self.known.pop(each.arg, None)
            if annotation in UNSAID and each.arg in NAMES:
                self.known[each.arg] = NAMES[each.arg]
            elif annotation in UNSAID and each.arg not in OURS:
                self.unsaid.add(each.arg)
        self.generic_visit(node)
        self.known, self.unsaid = before, unsaid

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name):
                    kind = self.kind(value)
                    self.known[name.id] = NAMES.get(name.id, PLAIN) if kind == PLAIN else kind

    def visit_Call(self, node: ast.Call) -> None:
        named = tuple(each.arg for each in node.keywords if each.arg)
        if isinstance(node.func, ast.Attribute):
            self.note(node.func, (len(node.args), named))
            self.visit(node.func.value)
        else:
            self.visit(node.func)
        for argument in (*node.args, *(each.value for each in node.keywords)):
            self.visit(argument)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.note(node)
        self.generic_visit(node)

    def note(self, node: ast.Attribute, *calls: tuple[int, tuple[str, ...]]) -> None:
        owner, where = self.kind(node.value), f"{self.path}:{node.lineno} {ast.unparse(node)}"
        if isinstance(node.value, ast.Name) and node.value.id in self.unsaid:
            self.unknown.append(f"{where}: {node.value.id} is in neither NAMES nor OURS")
        if owner == PLAIN:
            return
        if (owner, node.attr) not in USED:
            self.unknown.append(f"{where}: {node.attr} of {owner} is not in USED")
        else:
            self.uses.append(Use(owner, node.attr, where, calls))


def read(path: str, text: str) -> Reader:
    reader = Reader(path)
    reader.visit(ast.parse(text))
    return reader


@cache
def readers() -> tuple[Reader, ...]:
    return tuple(read(path, (ROOT / path).read_text("utf-8")) for path in SOURCES)


def uses() -> Iterator[Use]:
    for reader in readers():
        yield from reader.uses


# --- asked in a process of its own: two versions do not live together -----------------------------

ASK = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
found = {}
for owner, name in json.loads(sys.argv[2]):
    place = trt
    for part in owner.split(".") if owner else []:
        place = getattr(place, part, None)
    there = getattr(place, name, None)
    told = there.__init__ if isinstance(there, type) else there
    found[f"{owner}.{name}"] = None if there is None else told.__doc__ or ""
print(json.dumps({"version": trt.__version__, "found": found}))
"""


def ask(module: str, names: set[tuple[str, str]], environment: Mapping[str, str]) -> dict:
    places = [("" if owner == MODULE else owner, name) for owner, name in sorted(names)]
    done = subprocess.run(
        [sys.executable, "-c", ASK, module, json.dumps(places)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@cache
def asked_of(version: str) -> dict:
    folder = FOLDER / version
    if not (folder / "complete").exists():
        lack = f"no bindings of TensorRT {version}: run tests/deploy/tensorrt_bindings.sh"
        if os.environ.get("REQUIRE_TENSORRT_BINDINGS") == "1":
            pytest.fail(lack)
        pytest.skip(lack)
    return ask(
        "tensorrt_bindings",
        set(USED) - RTX_ALONE,
        {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "tensorrt_bindings")},
    )


def asked_of_rtx() -> dict:
    # Skipped without it, unless REQUIRE_TENSORRT_RTX=1 says that it must run.
    if os.environ.get("REQUIRE_TENSORRT_RTX") != "1":
        pytest.importorskip("tensorrt_rtx_bindings")
    return ask("tensorrt_rtx_bindings", set(USED), {})


def signatures(doc: str) -> list[tuple[int, list[str]]]:
    """(arguments that must be given, names of all) of every overload, `self` left out."""
    found = []
    for line in doc.splitlines():
        match = re.match(r"(?:\d+\. )?\w+\((.*)\) -> ", line.strip())
        if match and "*args" not in match[1]:
            # No default or annotation of these has a comma outside of brackets.
            arguments = re.split(r", (?![^\[(]*[\])])", match[1])
            own = [each for each in arguments if not each.startswith("self")]
            needed = sum(" = " not in each for each in own)
            found.append((needed, [each.split(":")[0].strip() for each in own]))
    return found


def complaints(answer: dict) -> list[str]:
    """What a version does not have, or does not take."""
    wrong = []
    for use in uses():
        key = f"{'' if use.owner == MODULE else use.owner}.{use.name}"
        if key not in answer["found"]:
            continue
        there = answer["found"][key]
        if there is None:  # not "", which is a value without a docstring
            wrong.append(f"{use.where}: {answer['version']} has no {key}")
            continue
        for given, named in use.calls:
            # `ILogger.__init__(self)` gives itself.
            own = given - (use.name == "__init__")
            fits = [
                needed <= own + len(named) <= len(names) and set(named) <= set(names[own:])
                for needed, names in signatures(there)
            ]
            if not any(fits):
                wrong.append(f"{use.where}: {answer['version']} takes {there[:200]}")
    return wrong


def test_every_name_that_we_use_is_in_the_table() -> None:
    assert [line for reader in readers() for line in reader.unknown] == []


def test_every_name_in_the_table_is_used() -> None:
    assert {(use.owner, use.name) for use in uses()} == set(USED)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_of_tensorrt_has_every_name_and_takes_our_arguments(version: str) -> None:
    answer = asked_of(version)

    assert answer["version"] == version
    assert complaints(answer) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_call_gives_is_what_the_table_says(version: str) -> None:
    answer = asked_of(version)

    for (owner, name), gives in USED.items():
        there = answer["found"].get(f"{'' if owner == MODULE else owner}.{name}")
        result = re.search(r"-> \w+\.tensorrt\.(I\w+)$", there or "", re.M)
        if result:
            assert gives == result[1], f"{owner}.{name}"


def test_tensorrt_rtx_has_them_too() -> None:
    assert complaints(asked_of_rtx()) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_no_version_has_what_is_rtxs_alone(version: str) -> None:
    """Else `compiler` could aim every compiler at a chip that is not there."""
    folder = FOLDER / version
    asked_of(version)

    answer = ask(
        "tensorrt_bindings",
        RTX_ALONE,
        {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "tensorrt_bindings")},
    )

    assert set(answer["found"].values()) == {None}


BROKEN = [
    pytest.param("builder.create_networks(0)", "create_networks of Builder", id="no such name"),
    pytest.param("network.get_input(0).shapes", "shapes of ITensor", id="of what a call gave"),
    pytest.param("x = trt.OnnxParser(network, 0)\nx.parsed()", "parsed of OnnxParser", id="kept"),
    pytest.param("other.parse(b'')", "other is in neither", id="of who knows what"),
]


@pytest.mark.parametrize(("line", "complaint"), BROKEN)
def test_a_name_that_is_not_in_the_table_is_complained_of(line: str, complaint: str) -> None:
    body = "\n".join(f"    {each}" for each in line.splitlines())

    found = read("x.py", f"def f(trt: Any, builder: Any, network: Any, other: Any):\n{body}\n")

    assert len(found.unknown) == 1
    assert complaint in found.unknown[0]


WRONG = [
    pytest.param("parser.parse()", id="too few"),
    pytest.param("parser.parse(b'', '', 0)", id="too many"),
    pytest.param("parser.parse(b'', place='')", id="no such argument"),
    pytest.param("parser.parse(b'', model='')", id="given twice"),
]


@pytest.mark.parametrize("call", WRONG)
def test_a_call_that_does_not_fit_is_complained_of(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = asked_of(VERSIONS[0])
    used = read("x.py", f"def f(parser: Any):\n    {call}\n")
    monkeypatch.setattr(sys.modules[__name__], "readers", lambda: (used,))

    assert len(complaints(answer)) == 1
