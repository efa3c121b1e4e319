"""The trunk of a backbone that is an ONNX file: planes → the file's graph → one grid, in one graph.

Torch cannot export what ONNX Runtime runs. So the part before is written as text, the part behind
is exported on its own, and the three are joined by name.
"""

from __future__ import annotations

from onnx import ModelProto, compose, parser

from trainer.backbones.onnx_file import IR_VERSION, OPSET, OnnxBackbone

BACKBONE, JOINT = "backbone/", "joint/"


def assemble(backbone: OnnxBackbone, joint: ModelProto) -> ModelProto:
    """Join the three parts: `frames` (B, S, S, 3) uint8 → `patch_features` (B, P, D) float32.

    Args:
        backbone: What lies in the middle.
        joint: Takes one map an input, in the backbone's order, and gives `patch_features`.
    """
    planes = parser.parse_model(
        f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}]>\n'
        f"planes (uint8[B, {backbone.size_px}, {backbone.size_px}, 3] frames) => "
        f"(float[B, 3, {backbone.size_px}, {backbone.size_px}] planes) {{\n"
        "    levels = Cast <to = 1> (frames)\n"
        "    planes = Transpose <perm = [0, 3, 1, 2]> (levels)\n"
        "}"
    )
    front = compose.merge_models(
        planes,
        compose.add_prefix(backbone.graph, BACKBONE),
        io_map=[("planes", BACKBONE + backbone.feed)],
    )
    behind = compose.add_prefix(joint, JOINT, rename_outputs=False)
    maps = [BACKBONE + name for name in backbone.outputs]
    joined = compose.merge_models(
        front,
        behind,
        io_map=[(name, each.name) for name, each in zip(maps, behind.graph.input, strict=True)],
    )
    # Merging lists the same operator set once for each part.
    del joined.opset_import[1:]
    del joined.graph.value_info[:]
    return joined
