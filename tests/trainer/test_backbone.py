"""The folded backbone against the network as its authors wrote it, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inspection.errors import InputError
from trainer import backbone
from trainer.backbone import MAPS, STAGES, SameConv, installed_weights, load_backbone


def state() -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(installed_weights(), weights_only=True)
    return found


def same(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's "same" for any size: pad to ceil(size / stride) outputs, the odd one behind."""
    pads = []
    for size, kernel in zip(reversed(x.shape[-2:]), reversed(weight.shape[-2:]), strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def unfolded(state: Mapping[str, Tensor], frames: Tensor) -> list[Tensor]:
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
    for repeats, _, stride, expansion, inputs, outputs in STAGES:
        for repeat in range(repeats):
            prefix, before = f"_blocks.{number}.", x
            width = (outputs if repeat else inputs) * expansion
            if expansion != 1:
                x = F.relu6(norm(conv(x, f"{prefix}_expand_conv"), f"{prefix}_bn0"))
            x = conv(x, f"{prefix}_depthwise_conv", 1 if repeat else stride, width)
            x = F.relu6(norm(x, f"{prefix}_bn1"))
            x = norm(conv(x, f"{prefix}_project_conv"), f"{prefix}_bn2")
            x = x + before if repeat else x
            if number in MAPS:
                maps.append(x)
            number += 1
    return maps


def test_folding_the_batch_norms_changes_nothing() -> None:
    frames = torch.randint(0, 256, (2, 3, 48, 48), generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        found = load_backbone()(frames.float())

    expected = unfolded(state(), frames.double())
    assert [tuple(each.shape) for each in found] == [(2, 40, 6, 6), (2, 80, 3, 3), (2, 112, 3, 3)]
    for mine, theirs in zip(found, expected, strict=True):
        # Eleven blocks in float32 against float64; the maps reach 10 and more.
        assert float((mine - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


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


def test_another_checkpoint_is_refused_by_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    data = bytearray(installed_weights().read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(InputError, match=r"other\.pth has SHA-256 .*, expected 579344248a93"):
        load_backbone(path)


def save_as_known(
    path: Path, tensors: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> Path:
    torch.save(dict(tensors), path)
    monkeypatch.setattr(backbone, "WEIGHTS_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize("missing", ["_conv_stem.weight", "_blocks.3._bn1.running_var"])
def test_a_tensor_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    tensors = state()
    del tensors[missing]
    path = save_as_known(tmp_path / "w.pth", tensors, monkeypatch)

    with pytest.raises(InputError, match=f"no tensor '{missing}'"):
        load_backbone(path)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = state()
    tensors["_conv_stem.weight"] = tensors["_conv_stem.weight"][:, :, :1, :1]
    path = save_as_known(tmp_path / "w.pth", tensors, monkeypatch)

    with pytest.raises(InputError, match=r"_conv_stem.weight is \(32, 3, 1, 1\), expected"):
        load_backbone(path)


def test_the_backbone_is_frozen() -> None:
    network = load_backbone()

    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
