"""DINOv2 against a plain forward from the checkpoint's own names, positions and export included."""

from __future__ import annotations

import math

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inspection.errors import InputError
from inspection.preprocessing import Preprocessing
from trainer.backbones.checkpoints import Checkpoint
from trainer.backbones.vit import DinoV2, at_side
from trainer.export import export_trunk
from trainer.features import extract
from trainer.trunk import Trunk

SIZE_PX = 64  # 4 × 4 tokens


def invented() -> dict[str, Tensor]:
    """A checkpoint of the authors' names and shapes, of random values."""
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape: int, around: float = 0.0, scale: float = 1.0) -> Tensor:
        return around + scale * torch.randn(shape, generator=generator)

    tensors = {
        "cls_token": drawn(1, 1, 384),
        "pos_embed": drawn(1, 1370, 384),
        "mask_token": drawn(1, 384),
        "patch_embed.proj.weight": drawn(384, 3, 14, 14, scale=0.04),
        "patch_embed.proj.bias": drawn(384),
        "norm.weight": drawn(384, around=1.0, scale=0.2),
        "norm.bias": drawn(384),
    }
    for i in range(12):
        for name, shape in (
            ("attn.qkv", (1152, 384)),
            ("attn.proj", (384, 384)),
            ("mlp.fc1", (1536, 384)),
            ("mlp.fc2", (384, 1536)),
        ):
            tensors[f"blocks.{i}.{name}.weight"] = drawn(*shape, scale=shape[1] ** -0.5)
            tensors[f"blocks.{i}.{name}.bias"] = drawn(shape[0], scale=0.1)
        for name in ("norm1", "norm2"):
            tensors[f"blocks.{i}.{name}.weight"] = drawn(384, around=1.0, scale=0.2)
            tensors[f"blocks.{i}.{name}.bias"] = drawn(384, scale=0.1)
        for name in ("ls1", "ls2"):
            tensors[f"blocks.{i}.{name}.gamma"] = drawn(384, scale=0.5)
    return tensors


def build(tensors: dict[str, Tensor], size_px: int = SIZE_PX) -> DinoV2:
    return DinoV2(Checkpoint("w.pth", "0" * 64, tensors), size_px)


def cubic(positions: Tensor, side: int) -> Tensor:
    """(37, 37, C) float64 → (side, side, C): Keys' kernel, a = −0.75, edges repeated."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (-0.75 + 2) * x**3 - (-0.75 + 3) * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    weights = torch.zeros(side, 37, dtype=torch.float64)
    for out in range(side):
        centre = (out + 0.5) * 37 / (side + 0.1) - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[out, min(max(tap, 0), 36)] += kernel(centre - tap)
    return torch.einsum("yh,xw,hwc->yxc", weights, weights, positions)


def plain(tensors: dict[str, Tensor], frames: Tensor) -> list[Tensor]:
    """(B, 3, S, S) float64 in 0 … 255 → tokens of blocks 5, 8 and 11 as maps."""
    state = {name: tensor.double() for name, tensor in tensors.items()}

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]

    side = frames.shape[-1] // 16
    x = F.interpolate(frames, size=(14 * side, 14 * side), mode="bilinear")
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    x = (x / 255 - mean) / torch.tensor([0.229, 0.224, 0.225]).double()[:, None, None]
    # (B, 3, G, 14, G, 14) → (B, G·G, 3·14·14)
    pieces = x.unflatten(3, (side, 14)).unflatten(2, (side, 14)).permute(0, 2, 4, 1, 3, 5)
    tokens = pieces.reshape(len(x), side * side, -1) @ state["patch_embed.proj.weight"].flatten(1).T
    tokens = tokens + state["patch_embed.proj.bias"]
    positions = state["pos_embed"][0, 1:].reshape(37, 37, 384)
    tokens = tokens + cubic(positions, side).reshape(1, side * side, 384)
    first = (state["cls_token"] + state["pos_embed"][:, :1]).expand(len(x), 1, 384)
    x = torch.cat([first, tokens], 1)
    maps = []
    for i in range(12):
        name = f"blocks.{i}."
        heads = linear(norm(x, f"{name}norm1"), f"{name}attn.qkv").chunk(3, -1)
        query, key, value = (each.unflatten(-1, (6, 64)).transpose(1, 2) for each in heads)
        mixed = (query @ key.mT / 8).softmax(-1) @ value
        mixed = linear(mixed.transpose(1, 2).flatten(2), f"{name}attn.proj")
        x = x + state[f"{name}ls1.gamma"] * mixed
        hidden = linear(norm(x, f"{name}norm2"), f"{name}mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + state[f"{name}ls2.gamma"] * linear(hidden, f"{name}mlp.fc2")
        if i in (5, 8, 11):
            grid = norm(x, "norm")[:, 1:].unflatten(1, (side, side))
            maps.append(grid.permute(0, 3, 1, 2))
    return maps


def frames(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randint(0, 256, (count, SIZE_PX, SIZE_PX, 3), generator=generator).to(torch.uint8)


def test_the_network_is_the_one_that_was_trained() -> None:
    planes, tensors = frames(2).permute(0, 3, 1, 2), invented()

    with torch.inference_mode():
        found = build(tensors)(planes.float())

    expected = plain(tensors, planes.double())
    assert [tuple(each.shape) for each in found] == [(2, 384, 4, 4)] * 3
    for mine, theirs in zip(found, expected, strict=True):
        # Twelve blocks in float32 against float64, normalised: values about 1.
        assert float((mine - theirs).abs().max()) < 1e-3


@pytest.mark.parametrize("side", [2, 16, 32, 64])
def test_positions_are_sampled_as_the_authors_do(side: int) -> None:
    positions = torch.randn(1, 1370, 8, generator=torch.Generator().manual_seed(7))
    padded = torch.cat([positions, torch.zeros(1, 1370, 376)], 2)

    found = at_side(padded, side)

    expected = cubic(padded[0, 1:].double().reshape(37, 37, 384), side).reshape(-1, 384)
    assert torch.equal(found[:, 0], padded[:, 0])
    assert float((found[0, 1:] - expected).abs().max()) < 1e-4  # float32 positions of samples


def test_positions_of_the_trained_side_are_left_alone() -> None:
    positions = torch.randn(1, 1370, 384)

    assert at_side(positions, 37) is positions


def test_the_mask_token_may_be_absent_as_in_timm() -> None:
    tensors = invented()
    del tensors["mask_token"]

    assert build(tensors).channels == (384, 384, 384)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"register_tokens": torch.zeros(1, 4, 384)}, "unexpected: register_tokens"),
        ({"blocks.12.norm1.weight": torch.ones(384)}, r"unexpected: blocks\.12\.norm1\.weight"),
        ({"cls_token": torch.zeros(1, 1, 768)}, r"cls_token is \(1, 1, 768\), expected"),
        ({"pos_embed": torch.zeros(1, 257, 384)}, r"pos_embed is \(1, 257, 384\), expected"),
    ],
)
def test_the_checkpoint_of_a_sister_is_refused(changed: dict[str, Tensor], text: str) -> None:
    with pytest.raises(InputError, match=text):
        build(invented() | changed)


def test_a_frame_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"takes 64 px, got \(32, 32\)"):
        build(invented())(torch.zeros(1, 3, 32, 32))


def test_its_trunk_has_a_patch_for_every_cell_and_is_exported_as_it_is() -> None:
    trunk = Trunk(build(invented())).eval()
    trunk.learn_lengths(frames(2))
    shown = frames(3).numpy()

    expected = extract(trunk, shown)
    session = onnxruntime.InferenceSession(
        export_trunk(trunk, Preprocessing(SIZE_PX)), providers=["CPUExecutionProvider"]
    )
    found = session.run(["patch_features"], {"frames": shown})[0]

    assert expected.shape == (3, 64, 1152)
    assert np.abs(found - expected).max() < 1e-4
