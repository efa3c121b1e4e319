"""The trunk in FP16: what is half, what is not, and how far its answers lie from FP32."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from benchmarks.half_precision import rounded
from deploy.precision import checked_quantised, checked_trunk, in_half
from inspection.errors import BundleError
from tests.bundles import TILES, good_frame, tiny_files
from tests.deploy.frames import SIDE_PX, drawn_frames

HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT

# Half has 11 bits of mantissa: 5e-4 of a value each time a layer's output is rounded, through
# some 50 layers. Measured on blocks of colour 3.1e-3, on the worst pattern (a 1 px chequerboard)
# 1.0e-2, of rows of length 0.6 to 1.
FARTHEST = 0.03
USUALLY = 0.006


@pytest.fixture(scope="module")
def half(real_trunk: bytes) -> bytes:
    return in_half("trunk.onnx", real_trunk)


def run(graph: bytes, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["patch_features"], {"frames": frames})[0]
    return found


def run_half(graph: bytes, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run a graph in FP16 as FP16: of itself ONNX Runtime would compute it in FP32 on a CPU."""
    return run(rounded(graph), frames)


def kinds(graph: bytes) -> dict[str, int]:
    """Element type of every tensor of a graph by name."""
    inferred = shape_inference.infer_shapes(onnx.load_from_string(graph), strict_mode=True).graph
    computed = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    return computed | {each.name: each.data_type for each in inferred.initializer}


def small_trunk(body: str, weights: str = "") -> bytes:
    """A trunk of one line or two, for what the real one does not have."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        trunk (uint8[B, 4, 4, 3] frames) => (float[B, 16, 3] patch_features)
        <int64[3] patches = {{-1, 16, 3}} {weights}>
        {{ {body} }}""")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


PATTERNS = {
    "blocks": drawn_frames(2),
    "noise": np.random.default_rng(0).integers(0, 256, (1, SIDE_PX, SIDE_PX, 3)).astype(np.uint8),
    "black": np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8),
    "white": np.full((1, SIDE_PX, SIDE_PX, 3), 255, np.uint8),
    "chequered": np.tile(
        (np.indices((SIDE_PX, SIDE_PX)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None],
        (1, 1, 1, 3),
    ),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_half_answers_as_full_does_but_for_its_rounding(
    real_trunk: bytes, half: bytes, pattern: str
) -> None:
    frames = PATTERNS[pattern]

    apart = np.linalg.norm(run_half(half, frames) - run(real_trunk, frames), axis=-1)

    assert apart.max() < FARTHEST
    if pattern in ("blocks", "noise"):
        assert apart.mean() < USUALLY
    assert apart.max() > 0  # FP32 under another name would pass too


def test_convolutions_are_half_and_pixels_and_lengths_are_not(half: bytes) -> None:
    kind = kinds(half)
    nodes = onnx.load_from_string(half).graph.node

    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 45
    for node in convolutions:
        assert [kind[name] for name in (*node.input, *node.output)] == [HALF] * 4
    for node in nodes:
        if node.op_type in ("Sub", "Pow", "ReduceSum", "Sqrt"):
            assert {kind[node.input[0]], kind[node.output[0]]} == {FULL}
    assert kind["frames"] == TensorProto.UINT8
    assert kind["patch_features"] == FULL


def test_nothing_that_stays_full_is_rounded_on_the_way(half: bytes, real_trunk: bytes) -> None:
    kind = kinds(half)
    graph = onnx.load_from_string(half).graph
    casts = [node for node in graph.node if node.op_type == "Cast"]
    made_by = {output: node for node in graph.node for output in node.output}

    for cast in casts:
        before = made_by.get(cast.input[0])
        if before is not None and before.op_type == "Cast" and before.input[0] != "frames":
            assert (kind[before.input[0]], kind[cast.output[0]]) != (FULL, FULL)
    # The mean and the deviation of pixels are the trunk's own, to the bit.
    weights = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    before = onnx.load_from_string(real_trunk).graph
    given = {each.name: numpy_helper.to_array(each) for each in before.initializer}
    for operator in ("Sub", "Div"):
        was, now = (
            next(node for node in each.node if node.op_type == operator) for each in (before, graph)
        )
        np.testing.assert_array_equal(weights[now.input[1]], given[was.input[1]])


def test_bytes_are_converted_before_anything_else(half: bytes) -> None:
    """TensorRT refuses any other operator on uint8."""
    nodes = onnx.load_from_string(half).graph.node

    assert [node.op_type for node in nodes if "frames" in node.input] == ["Cast"]


def test_a_sum_of_squares_beyond_half_is_finite() -> None:
    body = """
        pixels = Cast <to = 1> (frames)
        strong = Conv <kernel_shape = [1, 1]> (planes, weight)
        squared = Pow (strong, two)
        summed = ReduceSum <keepdims = 1> (squared, channel)
        length = Sqrt (summed)
        scaled = Div (strong, length)
        back = Transpose <perm = [0, 2, 3, 1]> (scaled)
        patch_features = Reshape (back, patches)"""
    body = body.replace(
        "strong = Conv", "planes = Transpose <perm = [0, 3, 1, 2]> (pixels)\n        strong = Conv"
    )
    weights = f""", float two = {{2.0}}, int64[1] channel = {{1}},
        float[3, 3, 1, 1] weight = {{{", ".join(["4.0"] * 9)}}}"""
    trunk = small_trunk(body, weights)
    frames = np.full((1, 4, 4, 3), 255, np.uint8)  # 3 · (4 · 3 · 255)² = 2.8e7

    found = run_half(in_half("trunk.onnx", trunk), frames)

    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, run(trunk, frames), atol=1e-3)


@pytest.mark.parametrize(
    "squares",
    [
        pytest.param("squared = Mul (far, far)", id="multiplied by itself"),
        pytest.param("squared = Pow (far, two)", id="to the power of two"),
    ],
)
@pytest.mark.parametrize(
    "root", ["summed = ReduceSum (squared, last)", "summed = ReduceMean <axes = [2]> (squared)"]
)
def test_lengths_are_known_by_how_they_are_computed(squares: str, root: str) -> None:
    trunk = small_trunk(
        f"""
        pixels = Cast <to = 1> (frames)
        flat = Reshape (pixels, patches)
        far = Relu (flat)
        {squares}
        {root}
        length = Sqrt (summed)
        patch_features = Div (far, length)""",
        ", int64[1] last = {2}, float two = {2.0}",
    )
    frames = np.full((2, 4, 4, 3), 255, np.uint8)  # 255² + 255² + 255² = 195,075

    found = run_half(in_half("trunk.onnx", trunk), frames)

    np.testing.assert_allclose(found, run(trunk, frames), atol=1e-3)


def test_a_trunk_without_a_convolution_is_half_behind_its_pixels() -> None:
    tiny = tiny_files(TILES)["trunk.onnx"]
    kind = kinds(in_half("trunk.onnx", tiny))
    frames = good_frame()[None]

    found = run_half(in_half("trunk.onnx", tiny), frames)

    assert kind["colours"] == HALF
    np.testing.assert_allclose(found, run(tiny, frames), atol=1e-3)


def test_constants_between_the_operators_are_weights_like_any_other() -> None:
    trunk = small_trunk("""
        mean = Constant <value = float {123.675}> ()
        pixels = Cast <to = 1> (frames)
        centred = Sub (pixels, mean)
        flat = Reshape (centred, patches)
        patch_features = Relu (flat)""")
    frames = np.full((1, 4, 4, 3), 124, np.uint8)

    found = run_half(in_half("trunk.onnx", trunk), frames)

    # Half would have 123.6875 for the mean: 4 % of what is left of these pixels.
    np.testing.assert_allclose(found, 124 - 123.675, rtol=1e-3)


def test_nodes_without_names_are_told_apart(real_trunk: bytes, half: bytes) -> None:
    model = onnx.load_from_string(real_trunk)
    for node in model.graph.node:
        node.name = ""

    again = in_half("trunk.onnx", model.SerializeToString())

    assert again == half


def test_a_graph_in_half_is_half_as_large(real_trunk: bytes, half: bytes) -> None:
    assert 0.45 < len(half) / len(real_trunk) < 0.6


# --- what is no trunk -----------------------------------------------------------------------------


def of_tensors(inputs: dict[str, tuple[int, int]], outputs: dict[str, tuple[int, int]]) -> bytes:
    """A graph that gives its first input back under every name; (type, rank) by name."""
    described = [
        [
            helper.make_tensor_value_info(name, kind, [1] * rank)
            for name, (kind, rank) in tensors.items()
        ]
        for tensors in (inputs, outputs)
    ]
    first = next(iter(inputs))
    kind = next(iter(outputs.values()))[0]
    nodes = [helper.make_node("Cast", [first], [name], to=kind) for name in outputs]
    graph = helper.make_graph(nodes, "other", *described)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


FRAMES, FEATURES = {"frames": (TensorProto.UINT8, 4)}, {"patch_features": (FULL, 3)}

NO_TRUNKS = [
    pytest.param(b"", "no ONNX", id="nothing"),
    pytest.param(b"nor a graph", "no ONNX", id="other bytes"),
    pytest.param(of_tensors({"images": (TensorProto.UINT8, 4)}, FEATURES), "images in", id="name"),
    pytest.param(of_tensors({"frames": (FULL, 4)}, FEATURES), "uint8 in", id="type"),
    pytest.param(of_tensors({"frames": (TensorProto.UINT8, 3)}, FEATURES), "no trunk", id="rank"),
    pytest.param(
        of_tensors({**FRAMES, "places": (FULL, 3)}, FEATURES), "frames, places in", id="two inputs"
    ),
    pytest.param(of_tensors(FRAMES, {"scores": (FULL, 3)}), "scores out", id="output"),
    pytest.param(
        of_tensors(FRAMES, {"patch_features": (HALF, 3)}), "float32 out", id="half already"
    ),
]


@pytest.mark.parametrize(("data", "said"), NO_TRUNKS)
@pytest.mark.parametrize("check", [checked_trunk, checked_quantised, in_half])
def test_what_is_no_trunk_is_refused_by_its_name(check, data: bytes, said: str) -> None:
    with pytest.raises(BundleError, match=said) as refused:
        check("that.onnx", data)

    assert str(refused.value).startswith("that.onnx ")
    assert "\n" not in str(refused.value)


def test_a_quantised_trunk_must_be_quantised(real_trunk: bytes) -> None:
    with pytest.raises(BundleError, match="no QuantizeLinear"):
        checked_quantised("trunk.int8.onnx", real_trunk)


def test_a_trunk_in_fp32_is_compiled_to_the_byte(real_trunk: bytes) -> None:
    assert checked_trunk("trunk.onnx", real_trunk) is real_trunk
