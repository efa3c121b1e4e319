"""Compiling: real engines by TensorRT-RTX, which needs no GPU, and what is said when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from deploy.compiler import (
    MOST_FRAMES,
    CompileError,
    InstalledProvider,
    check_capability,
    compile_trunk,
    find_provider,
)
from deploy.precision import checked_quantised, in_half
from inspection.errors import BundleError, InputError
from tests.deploy.frames import drawn_frames

AMPERE = (8, 6)


class Shown(CalibrationDataReader):  # type: ignore[misc]
    """A few frames, for ranges that a test can do with."""

    def __init__(self) -> None:
        self.frames: Iterator[Any] = iter(drawn_frames(4, seed=5))

    def get_next(self) -> dict[str, Any] | None:
        frame = next(self.frames, None)
        return None if frame is None else {"frames": frame[None]}


def quantise(real_trunk: bytes, folder: Path, **more: bool) -> bytes:
    """Give a trunk INT8 ranges around its convolutions: Q/DQ, zero points 0, biases as they are."""
    (folder / "trunk.onnx").write_bytes(real_trunk)
    quantize_static(
        folder / "trunk.onnx",
        folder / "trunk.int8.onnx",
        Shown(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, **more},
    )
    return (folder / "trunk.int8.onnx").read_bytes()


@pytest.fixture(scope="module")
def quantised_trunk(real_trunk: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return quantise(real_trunk, tmp_path_factory.mktemp("int8"), QuantizeBias=False)


@pytest.fixture(scope="module")
def graphs(real_trunk: bytes, quantised_trunk: bytes) -> dict[str, bytes]:
    return {
        "fp32": real_trunk,
        "fp16": in_half("trunk.onnx", real_trunk),
        "int8": checked_quantised("trunk.int8.onnx", quantised_trunk),
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_real_trunk_becomes_an_engine(
    rtx: InstalledProvider, graphs: dict[str, bytes], precision: str
) -> None:
    graph = graphs[precision]

    engine, timings = compile_trunk(rtx, graph, AMPERE)

    # The weights are inside. TensorRT-RTX 1.7 has no INT8 convolution: it folds those weights back
    # to FP32, 10.2 MB, so INT8 is worth building with TensorRT alone.
    assert 0.9 * len(graph) < len(engine) < 1.5 * len(graphs["fp32"])
    assert timings == b""


def test_engines_of_a_lower_precision_are_smaller(
    rtx: InstalledProvider, graphs: dict[str, bytes]
) -> None:
    """Else FP16 and INT8 were words in a name."""
    full, half = (len(compile_trunk(rtx, graphs[each], AMPERE)[0]) for each in ("fp32", "fp16"))

    assert half < 0.7 * full


def test_the_quantised_trunk_still_answers_as_the_trunk_does(
    graphs: dict[str, bytes],
) -> None:
    """Else it proves nothing that it compiles. 8 bits a tensor, ranges of four frames: coarse."""
    frames = drawn_frames(2, seed=9)

    found, expected = (
        onnxruntime.InferenceSession(graphs[each], providers=["CPUExecutionProvider"]).run(
            ["patch_features"], {"frames": frames}
        )[0]
        for each in ("int8", "fp32")
    )

    apart = np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert 0 < np.median(apart) < 0.5


def test_pixels_are_not_quantised_before_they_are_prepared(quantised_trunk: bytes) -> None:
    graph = onnx.load_from_string(quantised_trunk).graph
    first = next(i for i, node in enumerate(graph.node) if node.op_type == "QuantizeLinear")
    before = [node.op_type for node in graph.node[:first] if node.op_type != "DequantizeLinear"]

    assert before == ["Cast", "Transpose", "Sub", "Div"]


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (8, 9), (12, 0)])
def test_every_chip_that_rtx_lists_can_be_aimed_at(
    rtx: InstalledProvider, graphs: dict[str, bytes], capability: tuple[int, int]
) -> None:
    check_capability(rtx, capability)

    engine, _ = compile_trunk(rtx, graphs["fp16"], capability)

    assert len(engine) > 1 << 20


@pytest.mark.parametrize("capability", [(5, 3), (9, 9), (8, 60)])
def test_a_chip_that_rtx_does_not_list_is_refused_with_those_it_does(
    rtx: InstalledProvider, capability: tuple[int, int]
) -> None:
    major, minor = capability

    with pytest.raises(InputError, match=rf"capability {major}\.{minor}; it does for .*8\.6"):
        check_capability(rtx, capability)


def test_an_operator_that_is_not_known_is_named_with_its_node(rtx: InstalledProvider) -> None:
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("BankScan", ["pixels"], ["patch_features"], "scan_7", domain="our.own"),
    ]
    given = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["B", 8, 8, 3])
    found = helper.make_tensor_value_info("patch_features", TensorProto.FLOAT, ["B", 1, 3])
    versions = [helper.make_opsetid("", 18), helper.make_opsetid("our.own", 1)]
    graph = helper.make_graph(nodes, "trunk", [given], [found])
    model = helper.make_model(graph, ir_version=9, opset_imports=versions)

    with pytest.raises(CompileError, match="node 1 'scan_7', operator 'BankScan'") as refused:
        compile_trunk(rtx, model.SerializeToString(), AMPERE)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("graph", [b"", b"nor a graph at all, and long enough", b"\x00" * 64])
def test_what_is_no_graph_is_refused(rtx: InstalledProvider, graph: bytes) -> None:
    """The parser takes some of these, as graphs of nothing."""
    with pytest.raises(CompileError):
        compile_trunk(rtx, graph, AMPERE)


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_graph_that_was_cut_is_refused(
    rtx: InstalledProvider, real_trunk: bytes, cut: float
) -> None:
    with pytest.raises(CompileError):
        compile_trunk(rtx, real_trunk[: int(cut * len(real_trunk))], AMPERE)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param({"QuantizeBias": True}, "it has int32", id="biases"),
        pytest.param({"ActivationSymmetric": False}, "it has others", id="zero points"),
    ],
)
def test_ranges_that_tensorrt_does_not_take_are_refused_before_it_is_asked(
    real_trunk: bytes, tmp_path: Path, more: dict[str, bool], said: str
) -> None:
    graph = quantise(real_trunk, tmp_path, **{"QuantizeBias": False, **more})

    with pytest.raises(BundleError, match=rf"trunk\.int8\.onnx: \w+ .* must be int8 .*{said}"):
        checked_quantised("trunk.int8.onnx", graph)


# --- a TensorRT that does what a test wants -------------------------------------------------------


class Pretended:
    """TensorRT 10.3's names as far as `compile_trunk` asks for them; keeps what it was asked.

    Attributes:
        plan: What the builder gives.
        says: (severity, text) that the builder logs.
        takes_timings: Whether the timing cache fits.
    """

    def __init__(self) -> None:
        self.plan: bytes | None = b"an engine"
        self.says: list[tuple[str, str]] = []
        self.takes_timings = True
        self.asked: list[tuple[Any, ...]] = []

    def module(self) -> ModuleType:
        outer, trt = self, ModuleType("tensorrt")

        class Logger:
            class Severity:
                WARNING, ERROR, INTERNAL_ERROR, INFO = "warning", "error", "internal", "info"

        class Enum:
            STRONGLY_TYPED, TF32, WORKSPACE = 1, "tf32", "workspace"

        class Thing:
            """Builder, network, parser and config in one: each method only notes its arguments."""

            num_inputs, name, shape = 1, "frames", (-1, 64, 64, 3)

            def __init__(self, *made_of: Any) -> None:
                self.made_of = made_of

            def __getattr__(self, name: str) -> Callable[..., Any]:
                def note(*arguments: Any) -> Any:
                    outer.asked.append((name, *arguments))
                    return Thing()

                return note

            def __lt__(self, number: int) -> bool:
                return False

            def __bytes__(self) -> bytes:
                return b"timings"

            def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
                assert ignore_mismatch is False
                return outer.takes_timings

            def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
                for severity, text in outer.says:
                    self.made_of[0].log(severity, text)
                return outer.plan

        trt.__dict__.update(
            ILogger=Logger,
            Builder=Thing,
            OnnxParser=Thing,
            NetworkDefinitionCreationFlag=Enum,
            BuilderFlag=Enum,
            MemoryPoolType=Enum,
            __version__="10.3.0",
        )
        return trt

    def provider(self) -> InstalledProvider:
        return InstalledProvider("tensorrt", "10.3.0", self.module())


@pytest.fixture
def pretended() -> Pretended:
    return Pretended()


def test_networks_are_strongly_typed_without_tf32_for_one_frame_to_most(
    pretended: Pretended,
) -> None:
    engine, timings = compile_trunk(pretended.provider(), b"graph", (8, 7), 5, b"before")

    assert (engine, timings) == (b"an engine", b"timings")
    asked = {name: arguments for name, *arguments in pretended.asked}
    assert asked["create_network"] == [1 << 1]
    assert asked["clear_flag"] == ["tf32"]
    assert asked["parse"] == [b"graph"]
    assert asked["set_shape"] == ["frames", (1, 64, 64, 3), (1, 64, 64, 3), (5, 64, 64, 3)]
    assert asked["create_timing_cache"] == [b"before"]
    assert "set_compute_capability" not in asked


def test_without_being_told_an_engine_takes_up_to_eight_frames(pretended: Pretended) -> None:
    compile_trunk(pretended.provider(), b"graph", (8, 7))

    shape = next(arguments for name, *arguments in pretended.asked if name == "set_shape")
    assert shape[3][0] == MOST_FRAMES == 8


def test_a_builder_that_builds_nothing_is_quoted_its_errors_before_its_warnings(
    pretended: Pretended,
) -> None:
    pretended.plan = None
    pretended.says = [
        ("warning", "slow"),
        ("error", "no tactic\nfor layer 3"),
        ("info", "so it goes"),
        ("internal", "out of memory"),
    ]

    with pytest.raises(CompileError) as failed:
        compile_trunk(pretended.provider(), b"graph", (8, 7))

    assert str(failed.value) == (
        "tensorrt 10.3.0 built nothing for compute capability 8.7; it said: no tactic for layer 3; "
        "it said: out of memory"
    )


def test_a_builder_that_only_warns_is_quoted_too(pretended: Pretended) -> None:
    pretended.plan, pretended.says = None, [("warning", "no room")]

    with pytest.raises(CompileError, match="it said: no room"):
        compile_trunk(pretended.provider(), b"graph", (8, 7))


def test_timings_of_another_machine_are_refused(pretended: Pretended) -> None:
    pretended.takes_timings = False

    with pytest.raises(CompileError, match="timing cache is of another TensorRT or of another GPU"):
        compile_trunk(pretended.provider(), b"graph", (8, 7), MOST_FRAMES, b"foreign")


def test_rtx_is_asked_for_no_timings(pretended: Pretended) -> None:
    """Its timing cache does nothing and warns of being deprecated."""
    provider = pretended.provider()
    provider.module.ComputeCapability = type("Listed", (), {"SM87": 87})

    _, timings = compile_trunk(replace(provider, name="tensorrt_rtx"), b"graph", (8, 7))

    assert timings == b""
    asked = {name: arguments for name, *arguments in pretended.asked}
    assert "create_timing_cache" not in asked
    assert asked["set_compute_capability"] == [87, 0]


# --- what is installed ----------------------------------------------------------------------------


def test_a_compiler_is_found_with_its_version(a_module: Callable[..., ModuleType]) -> None:
    module = a_module("tensorrt", __version__="10.3.0")

    found = find_provider("tensorrt")

    assert found == InstalledProvider("tensorrt", "10.3.0", module)


def test_rtx_is_found_by_either_name(
    a_module: Callable[..., ModuleType], no_module: Callable[[str], None]
) -> None:
    bindings = a_module("tensorrt_rtx_bindings", __version__="1.7.1.116")
    no_module("tensorrt_rtx")
    assert find_provider("tensorrt_rtx").module is bindings

    whole = a_module("tensorrt_rtx", __version__="1.7.1.116")
    assert find_provider("tensorrt_rtx").module is whole


def test_what_is_not_installed_is_named_with_what_to_install(
    no_module: Callable[[str], None],
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        no_module(name)

    with pytest.raises(CompileError, match="tensorrt is not installed here; install tensorrt, or"):
        find_provider("tensorrt")
    with pytest.raises(CompileError, match=r"tensorrt_rtx is not .* install tensorrt-rtx, or"):
        find_provider("tensorrt_rtx")


def test_bindings_without_their_library_are_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_module: Callable[[str], None]
) -> None:
    text = "raise OSError('libnvinfer.so.10: cannot open shared object file')"
    (tmp_path / "tensorrt.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(CompileError, match=r"not installed here.*libnvinfer\.so\.10"):
        find_provider("tensorrt")
