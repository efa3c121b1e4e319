"""The model as ONNX: trunk, head, and `full.onnx`, which joins them around the bank scan.

Banks are inputs of `full.onnx`, so that a bank changes without a new graph. Scan and head are
written out in ONNX's own text form: they are short, and every operator is chosen.
"""

from __future__ import annotations

import logging
import warnings

import onnx
import torch
from onnx import ModelProto, TensorProto, compose, helper, parser
from torch import Tensor, nn

from inspection.preprocessing import Preprocessing
from inspection.retrieval import EVEN_SHARE
from inspection.scoring import enhanced_length
from trainer.assembly import assemble
from trainer.backbones.onnx_file import IR_VERSION, OPSET, OnnxBackbone
from trainer.trunk import Trunk, join

_HEAD = """
    hidden = Gemm(enhanced, hidden_weight, hidden_bias)
    active = Relu(hidden)
    output_column = Unsqueeze(output_weight, axis_one)
    logit_column = Gemm(active, output_column, output_bias)
    logits = Squeeze(logit_column, axis_one)
"""


def export_trunk(trunk: Trunk, spec: Preprocessing) -> bytes:
    """Export `frames` (B, S, S, 3) uint8 RGB → `patch_features` (B, P, D) float32."""
    if isinstance(trunk.backbone, OnnxBackbone):
        return _checked(assemble(trunk.backbone, _export_joint(trunk, trunk.backbone, spec)))
    frames = torch.zeros(2, spec.size_px, spec.size_px, 3, dtype=torch.uint8)
    return bytes(_exported(trunk, frames, ["frames"]).SerializeToString())


class Joint(nn.Module):
    """What lies behind the backbone: its maps in, patch features out."""

    usual_length: Tensor

    def __init__(self, trunk: Trunk, spec: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("usual_length", trunk.usual_length)
        self.side, self.recipe = spec.grid[0], trunk.recipe

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, C, ., .) → (B, P, D)."""
        return join(maps, self.usual_length, self.side, self.recipe)


def _export_joint(trunk: Trunk, backbone: OnnxBackbone, spec: Preprocessing) -> ModelProto:
    maps = backbone(torch.zeros(2, 3, spec.size_px, spec.size_px))
    return _exported(Joint(trunk, spec), maps, [f"map_{i}" for i in range(len(maps))])


def _exported(module: nn.Module, shown: Tensor | list[Tensor], inputs: list[str]) -> ModelProto:
    """Export a module that takes one tensor, or one list of them, and gives `patch_features`."""
    batch = {0: torch.export.Dim("B", min=1, max=1024)}
    # The exporter reports every pass at warning level; what matters is checked by parity.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (shown,),
            dynamo=True,
            input_names=inputs,
            output_names=["patch_features"],
            dynamic_shapes=(batch if isinstance(shown, Tensor) else [batch] * len(shown),),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    # Where each operator came from in the source is of no use to a station, and names its paths.
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, graph, model):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def export_head(dimensions: int, k: int) -> bytes:
    """Write `enhanced` (P, Z) float32 and the head's weights → `logits` (P,) float32."""
    return _checked(
        parser.parse_model(
            f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>\n'
            f"head (float[P, {enhanced_length(dimensions, k)}] enhanced, "
            f"{_weights(dimensions, k)}) => (float[P] logits)\n"
            f"<int64[1] axis_one = {{1}}> {{ {_HEAD} }}"
        )
    )


def export_full(trunk: bytes, k: int, top_patches: int, spec: Preprocessing) -> bytes:
    """Join trunk, bank scan and head; `inspection.bundle.Bundle.bank_feeds` states the contract."""
    first = onnx.load_from_string(trunk)
    dimensions = first.graph.output[0].type.tensor_type.shape.dim[2].dim_value
    scan = onnx.load_from_string(export_scan(dimensions, k, top_patches, spec))
    joined = compose.merge_models(
        compose.add_prefix(first, "trunk/", rename_inputs=False, rename_outputs=False),
        scan,
        io_map=[("patch_features", "patches")],
        outputs=["anomaly_map", "image_score"],
    )
    # Merging lists the same operator set once for each of the two.
    del joined.opset_import[1:]
    grid = spec.grid[0] * spec.grid[1]
    joined.graph.output.append(
        helper.make_tensor_value_info("patch_features", TensorProto.FLOAT, ["B", grid, dimensions])
    )
    return _checked(joined)


def export_scan(dimensions: int, k: int, top_patches: int, spec: Preprocessing) -> bytes:
    """Write the bank scan alone: `patches` (B, P, D) float32 in place of `frames`."""
    return _checked(parser.parse_model(_scan_text(dimensions, k, top_patches, spec)))


def _weights(dimensions: int, k: int) -> str:
    """The head's weights as inputs: a head is taught anew without a new graph."""
    return (
        f"float[{enhanced_length(dimensions, k)}, U] hidden_weight, float[U] hidden_bias, "
        "float[U] output_weight, float[1] output_bias"
    )


def _checked(model: ModelProto) -> bytes:
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _scan_text(dimensions: int, k: int, top_patches: int, spec: Preprocessing) -> str:
    """Bank scan and fusion as ONNX text; M = B · P patches of all frames together."""
    height, width = spec.grid
    patches = height * width
    return f"""
<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>
bank_scan (
    float[B, {patches}, {dimensions}] patches, float[B, {patches}, 2] places,
    float[N, {dimensions}] normal_rows, bool[N] normal_valid, float[N, 2] normal_places,
    float[A, {dimensions}] abnormal_rows, bool[A] abnormal_valid,
    float temperature, float abnormal_weight, {_weights(dimensions, k)},
    float[{height}, {width}] foreground
) => (float[B, {height}, {width}] anomaly_map, float[B] image_score)
<
    int64[2] flat_shape = {{-1, {dimensions}}}, int64[2] located_shape = {{-1, {dimensions + 2}}},
    int64[3] map_shape = {{-1, {height}, {width}}},
    int64[2] frame_shape = {{-1, {patches}}},
    int64[1] axis_one = {{1}}, int64[1] axis_two = {{2}}, int64[1] zero_index = {{0}},
    int64[1] k = {{{k}}}, int64[1] top = {{{top_patches}}}, int64[1] shown = {{{dimensions}}},
    float never = {{3.0e38}}, float zero = {{0.0}}, float unity = {{1.0}},
    float tiny = {{1.0e-6}}, float even_share = {{{EVEN_SHARE!r}}}
>
{{
    located = Concat <axis = 2> (patches, places)
    located_flat = Reshape(located, located_shape)
    located_rows = Concat <axis = 1> (normal_rows, normal_places)
    {_knowledge("normal", "located_flat", "located_rows")}
    evidence = ReduceL2 <keepdims = 0> (normal_residual, axis_one)
    uses_abnormal = Greater(abnormal_weight, zero)
    scores = If (uses_abnormal) <
        then_branch = both_banks () => (float[M] fused) {{
            flat = Reshape(patches, flat_shape)
            {_knowledge("abnormal", "flat", "abnormal_rows")}
            {_distances("normal")}
            {_distances("abnormal")}
            mean_distance = ReduceMean <keepdims = 1> (normal_distances, axis_one)
            nearest_distance = Gather <axis = 1> (normal_distances, zero_index)
            mean_above_zero = Add(mean_distance, tiny)
            density = Div(nearest_distance, mean_above_zero)
            shown_residual = Slice(normal_residual, zero_index, shown, axis_one)
            enhanced = Concat <axis = 1> (flat, shown_residual, abnormal_residual,
                                          normal_distances, abnormal_distances, density)
            {_HEAD}
            suspicion = Relu(logits)
            raise = Mul(suspicion, abnormal_weight)
            factor = Add(raise, unity)
            fused = Mul(evidence, factor)
        }},
        else_branch = normal_bank_alone () => (float[M] alone) {{
            alone = Identity(evidence)
        }}
    >
    unmasked = Reshape(scores, map_shape)
    anomaly_map = Mul(unmasked, foreground)
    by_frame = Reshape(anomaly_map, frame_shape)
    highest, highest_index = TopK <axis = 1> (by_frame, top)
    image_score = ReduceMean <keepdims = 0> (highest, axis_one)
}}
"""


def _knowledge(bank: str, queries: str, rows: str) -> str:
    """Squared distances to the K nearest rows, and the residual q − r of the attention over them.

    |b|² − 2qb in one product only chooses the candidates. In float32 it puts identical unit vectors
    up to 1.1e-3 apart, so the distances that count are taken from the differences.
    """
    return f"""
    {bank}_norms = ReduceSumSquare <keepdims = 0> ({rows}, axis_one)
    {bank}_reach = Where({bank}_valid, {bank}_norms, never)
    {bank}_partial = Gemm <alpha = -2.0, transB = 1> ({queries}, {rows}, {bank}_reach)
    {bank}_unused, {bank}_index = TopK <axis = 1, largest = 0> ({bank}_partial, k)
    {bank}_near = Gather({rows}, {bank}_index)
    {bank}_queries_3d = Unsqueeze({queries}, axis_one)
    {bank}_gap = Sub({bank}_queries_3d, {bank}_near)
    {bank}_squared = ReduceSumSquare <keepdims = 0> ({bank}_gap, axis_two)
    {bank}_lowest = ReduceMin <keepdims = 1> ({bank}_squared, axis_one)
    {bank}_behind = Sub({bank}_lowest, {bank}_squared)
    {bank}_logits = Div({bank}_behind, temperature)
    {bank}_likeness = Exp({bank}_logits)
    {bank}_farthest = ReduceMin <keepdims = 1> ({bank}_likeness, axis_one)
    {bank}_above = Sub({bank}_likeness, {bank}_farthest)
    {bank}_shares = Add({bank}_above, even_share)
    {bank}_total = ReduceSum <keepdims = 1> ({bank}_shares, axis_one)
    {bank}_weights = Div({bank}_shares, {bank}_total)
    {bank}_weights_3d = Unsqueeze({bank}_weights, axis_one)
    {bank}_residual_3d = MatMul({bank}_weights_3d, {bank}_gap)
    {bank}_residual = Squeeze({bank}_residual_3d, axis_one)
    """


def _distances(bank: str) -> str:
    """Distances to the K nearest rows, nearest first; only the head needs them."""
    return f"""
    {bank}_sorted, {bank}_order = TopK <axis = 1, largest = 0> ({bank}_squared, k)
    {bank}_distances = Sqrt({bank}_sorted)
    """
