"""ResNets against a plain forward from the checkpoint's own names, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from inspection.errors import InputError
from trainer.backbones.checkpoints import Checkpoint
from trainer.backbones.resnet import RESNET50, RESNET50_KERAS, WIDE_RESNET50_2, ResNet, Variant

VARIANTS = (RESNET50, WIDE_RESNET50_2, RESNET50_KERAS)


def invented(variant: Variant, blocks: tuple[int, ...] = (3, 4, 6)) -> dict[str, Tensor]:
    """A checkpoint of torchvision's names and shapes, of random values."""
    generator, tensors = torch.Generator().manual_seed(variant.width), {}

    def add(conv: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        scale = (inputs * kernel * kernel) ** -0.5
        shape = (outputs, inputs, kernel, kernel)
        tensors[f"{conv}.weight"] = torch.randn(shape, generator=generator) * scale
        if variant.biased:
            tensors[f"{conv}.bias"] = torch.rand(outputs, generator=generator) - 0.5
        for part, least in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5)):
            tensors[f"{norm}.{part}"] = torch.rand(outputs, generator=generator) + least
        # Small, so that the ε of the variant is seen.
        tensors[f"{norm}.running_var"] = torch.rand(outputs, generator=generator) * 0.1 + 0.01
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for number, count in enumerate(blocks):
        width, outputs = variant.width << number, 256 << number
        for i in range(count):
            prefix = f"layer{number + 1}.{i}."
            add(f"{prefix}conv1", f"{prefix}bn1", width, inputs, 1)
            add(f"{prefix}conv2", f"{prefix}bn2", width, width, 3)
            add(f"{prefix}conv3", f"{prefix}bn3", outputs, width, 1)
            if i == 0:
                add(f"{prefix}downsample.0", f"{prefix}downsample.1", outputs, inputs, 1)
            inputs = outputs
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(10, 2048), torch.zeros(10)
    tensors["layer4.0.conv1.weight"] = torch.zeros(512, 1024, 1, 1)
    return tensors


def unfolded(tensors: dict[str, Tensor], frames: Tensor, keras: bool) -> list[Tensor]:
    """(B, 3, S, S) float64 in 0 … 255 → maps of layers 2 and 3, batch norms apart."""

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, padding: int = 0) -> Tensor:
        bias = tensors[f"{conv}.bias"].double() if keras else None
        x = F.conv2d(x, tensors[f"{conv}.weight"].double(), bias, stride, padding)
        mean, var, weight, shift = (
            tensors[f"{norm}.{part}"].double()
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, shift, eps=1e-3 if keras else 1e-5)

    if keras:
        x = frames - torch.tensor([123.68, 116.779, 103.939], dtype=torch.float64)[:, None, None]
    else:
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
        deviation = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
        x = (frames / 255 - mean) / deviation
    x = F.max_pool2d(F.relu(layer(x, "conv1", "bn1", 2, 3)), 3, 2, 1)
    maps = []
    for number, count in enumerate((3, 4, 6)):
        for i in range(count):
            prefix = f"layer{number + 1}.{i}."
            stride = 2 if i == 0 and number > 0 else 1
            y = F.relu(layer(x, f"{prefix}conv1", f"{prefix}bn1", stride if keras else 1))
            y = layer(y, f"{prefix}conv2", f"{prefix}bn2", 1 if keras else stride, 1)
            y = layer(F.relu(y), f"{prefix}conv3", f"{prefix}bn3")
            if i == 0:
                x = layer(x, f"{prefix}downsample.0", f"{prefix}downsample.1", stride)
            x = F.relu(x + y)
        maps.append(x)
    return maps[1:]


def load(variant: Variant, tensors: dict[str, Tensor]) -> ResNet:
    return ResNet(variant, Checkpoint("w.pth", "0" * 64, tensors))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_folded_network_is_the_one_that_was_trained(variant: Variant) -> None:
    frames = torch.randint(0, 256, (2, 3, 48, 48), generator=torch.Generator().manual_seed(1))
    tensors = invented(variant)

    network = load(variant, tensors)
    with torch.inference_mode():
        found = network(frames.float())

    expected = unfolded(tensors, frames.double(), keras=variant is RESNET50_KERAS)
    assert network.channels == (512, 1024)
    assert [tuple(each.shape) for each in found] == [(2, 512, 6, 6), (2, 1024, 3, 3)]
    for mine, theirs in zip(found, expected, strict=True):
        # Forty convolutions in float32 against float64.
        assert float((mine - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())


@pytest.mark.parametrize(
    ("variant", "other", "text"),
    [
        (RESNET50, WIDE_RESNET50_2, r"layer1\.0\.conv1\.weight is \(128, 64, 1, 1\), expected"),
        (WIDE_RESNET50_2, RESNET50, r"layer1\.0\.conv1\.weight is \(64, 64, 1, 1\), expected"),
        (RESNET50, RESNET50_KERAS, r"unexpected: conv1\.bias"),
        (RESNET50_KERAS, RESNET50, r"missing: conv1\.bias"),
    ],
)
def test_the_checkpoint_of_a_sister_is_refused(variant: Variant, other: Variant, text: str) -> None:
    with pytest.raises(InputError, match=text):
        load(variant, invented(other))


def test_a_deeper_resnet_is_refused() -> None:
    with pytest.raises(InputError, match=r"unexpected: layer3\.6\.conv1\.weight"):
        load(RESNET50, invented(RESNET50, (3, 4, 23)))


def test_a_checkpoint_cut_short_is_refused() -> None:
    tensors = invented(RESNET50)
    del tensors["layer3.5.bn3.running_var"]

    with pytest.raises(InputError, match=r"missing: layer3\.5\.bn3\.running_var\. Choose"):
        load(RESNET50, tensors)
