"""Pretrained weights from a file: read without running it, and held against a network's names.

A checkpoint that does not fit is refused whole. Batch norms are folded into the convolutions before
them, so that what trains banks is what is exported.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from inspection.errors import InputError

MAX_BYTES = 2 << 30
"""A larger file is not read: the largest network here has 0.3 GB with its classifier."""

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Where training programs put the tensors beside optimiser and epoch."""

PREFIXES = ("module.", "model.", "backbone.")
"""What they put before every name: a parallel wrapper, or the field of a larger model."""

NORM = ("weight", "bias", "running_mean", "running_var")

SHOWN = 3
"""Names that an error lists of each kind."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors of one file under their bare names.

    Attributes:
        file: Its name, for errors.
        sha256: Digest of its bytes.
        tensors: Name → tensor, on the CPU.
    """

    file: str
    sha256: str
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Folding:
    """A convolution, the batch norm behind it, and the convolution that becomes both."""

    conv: str
    norm: str
    into: nn.Conv2d


def read_checkpoint(path: Path, sha256: str | None = None) -> Checkpoint:
    """Read a checkpoint: safetensors by its suffix, else what `torch.save` wrote.

    Wrappers and prefixes around the tensors' names are taken off.

    Args:
        path: The file.
        sha256: The digest it must have, if that is known.

    Raises:
        InputError: No such file, too large, another digest, damaged, or it holds more than tensors.
    """
    if not path.is_file():
        raise InputError(f"there is no file of weights at {path}; give one with --weights FILE")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise InputError(
            f"{path.name} has SHA-256 {found[:12]}…, expected {sha256[:12]}…; "
            "install or fetch it again"
        )
    try:
        if path.suffix == ".safetensors":
            document: object = safetensors.torch.load(data)
        else:
            document = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # Both readers raise whatever their parsers do; the first line says it, the rest is advice.
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{path.name} is no checkpoint that can be read without running it: {reason}; "
            "expected safetensors, or tensors alone as torch.save writes them"
        ) from error
    return Checkpoint(path.name, found, _bare(_unwrapped(document, path.name)))


def _unwrapped(document: object, file: str) -> dict[str, Tensor]:
    for _ in WRAPPERS:
        inner = document if isinstance(document, dict) else {}
        name = next((each for each in WRAPPERS if isinstance(inner.get(each), dict)), None)
        if name is None:
            break
        document = inner[name]
    if not isinstance(document, dict) or not document:
        raise InputError(f"{file} holds {type(document).__name__}, expected tensors by name")
    for name, value in document.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{file}: {name!r} is {type(value).__name__}, expected tensors alone; save the "
                "network's state_dict()"
            )
    return document


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what stands before every name."""
    bare = dict(tensors)
    while prefix := next(
        (each for each in PREFIXES if all(name.startswith(each) for name in bare)), None
    ):
        bare = {name.removeprefix(prefix): tensor for name, tensor in bare.items()}
    return bare


def select(
    checkpoint: Checkpoint,
    network: str,
    expected: Mapping[str, Sequence[int]],
    ignored: str,
) -> dict[str, Tensor]:
    """Pick the tensors a network needs, if the checkpoint is that network's.

    Args:
        checkpoint: Where to pick from.
        network: Its name, for errors.
        expected: Name → shape of every tensor that is needed.
        ignored: Regular expression, matched from the start, of names that may be there besides:
            what lies behind the cut, the classifier.

    Raises:
        InputError: A tensor is missing, unexpected, of another shape or not finite; the first
            names of each kind are given.
    """
    tensors, beside = checkpoint.tensors, re.compile(ignored)
    wrong = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    complaints = [
        *_listed("missing", [name for name in expected if name not in tensors]),
        *_listed(
            "unexpected",
            [name for name in tensors if name not in expected and not beside.match(name)],
        ),
        *_listed("of another shape", wrong),
    ]
    if complaints:
        raise InputError(
            f"{checkpoint.file} does not fit {network}: {'; '.join(complaints)}. "
            "Choose the --backbone that it belongs to, or other --weights"
        )
    chosen = {name: tensors[name] for name in expected}
    broken = [name for name, tensor in chosen.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise InputError(f"{checkpoint.file}: {broken[0]} is not finite; the file is damaged")
    return chosen


def _listed(kind: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return [f"{kind}: {', '.join(names[:SHOWN])}{more}"]


def fold(
    checkpoint: Checkpoint,
    network: str,
    foldings: Iterable[Folding],
    *,
    eps: float,
    biased: bool,
    ignored: str,
) -> None:
    """Fill convolutions, each with the batch norm behind it: w·γ/√(σ²+ε), β + (b − μ)·γ/√(σ²+ε).

    Args:
        checkpoint: The weights.
        network: Its name, for errors.
        foldings: Every convolution of the network; changed in place.
        eps: The ε that the network was trained with.
        biased: Whether the checkpoint's convolutions have a bias b of their own.
        ignored: As for `select`.

    Raises:
        InputError: As `select`.
    """
    foldings = tuple(foldings)
    expected: dict[str, Sequence[int]] = {}
    for each in foldings:
        shape, width = each.into.weight.shape, (each.into.out_channels,)
        expected[f"{each.conv}.weight"] = shape
        if biased:
            expected[f"{each.conv}.bias"] = width
        expected.update({f"{each.norm}.{part}": width for part in NORM})
    state = select(checkpoint, network, expected, rf"(?:{ignored})|.*\.num_batches_tracked$")
    for each in foldings:
        gain, shift, mean, variance = (state[f"{each.norm}.{part}"].double() for part in NORM)
        if biased:
            mean = mean - state[f"{each.conv}.bias"].double()
        factor = gain / torch.sqrt(variance + eps)
        assert each.into.bias is not None
        with torch.no_grad():
            weight = state[f"{each.conv}.weight"].double()
            each.into.weight.copy_(weight * factor[:, None, None, None])
            each.into.bias.copy_(shift - mean * factor)
