"""Peers, each fitted and asked in the environment that has them; scores and maps go to disk.

    python -m benchmarks.peer_models PLAN NAME FOLDER

Run by `benchmarks.peers`, and the only file that imports anomalib. PLAN is a JSON file: `weights`,
the backbone's checkpoint; `rows`, of a coreset; `seed`; `categories`, each with `name`, `train` and
`test`, lists of images; `key`, which is handed on. FOLDER gets `<number>.npz` for each category
and, when all are done, `run.json`. No metric is computed here.

The models, their defaults and their reading of images are anomalib's. The backbone is ours, so that
all see the same features: its maps have strides 4, 8, 16 and 16, and it normalises inside.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data.utils import read_image
from anomalib.models.image.dfkde.torch_model import DfkdeModel
from anomalib.models.image.dfm.torch_model import DFMModel
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor, nn
from torchvision.transforms.v2 import Resize

from trainer.backbones.checkpoints import read_checkpoint
from trainer.backbones.efficientnet_lite import LITE0, EfficientNetLite

SIDE_PX = 256
BATCH = 32
"""anomalib's default, of training."""

STRIDE_4, STRIDE_8, STRIDE_16, LAST = "blocks.2", "blocks.4", "blocks.7", "blocks.10"
"""Outputs of the backbone's stages; the last two have stride 16."""

WARM_UP = 3
"""Frames before those whose time counts."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a peer is fitted with.

    Attributes:
        backbone: Takes (B, 3, S, S) float32 in 0 … 255.
        frames: Good images, in batches of that form, to be gone through once.
        rows: For a peer that has a bank.
    """

    backbone: nn.Module
    frames: Iterator[Tensor]
    rows: int


def patchcore(material: Material) -> nn.Module:
    """PatchCore on the maps that ours uses, with as many rows as ours; 9 neighbours."""
    maps = (STRIDE_8, STRIDE_16, LAST)
    model = PatchcoreModel(layers=maps, backbone=material.backbone, num_neighbors=9)
    _show(model, material)
    patches = sum(len(each) for each in model.embedding_store)
    # It truncates the product of patches and ratio.
    model.subsample_embedding((min(material.rows, patches) + 0.5) / patches)
    fitted: nn.Module = model.eval()
    return fitted


def padim(material: Material) -> nn.Module:
    """PaDiM on maps of strides 4, 8 and 16 with 100 dimensions, as for ResNet-18."""
    maps = [STRIDE_4, STRIDE_8, LAST]
    return _fitted(PadimModel(material.backbone, maps, n_features=100), material)


def padim_deep(material: Material) -> nn.Module:
    """PaDiM on the maps that ours uses."""
    maps = [STRIDE_8, STRIDE_16, LAST]
    return _fitted(PadimModel(material.backbone, maps, n_features=100), material)


def dfm(material: Material) -> nn.Module:
    """DFM: principal components of pooled features of stride 16, error of reconstruction."""
    return _fitted(DFMModel(material.backbone, LAST), material)


def dfkde(material: Material) -> nn.Module:
    """DFKDE: kernel density of the features averaged over the image; no map."""
    return _fitted(DfkdeModel(material.backbone, [LAST]), material)


PEERS: Mapping[str, Callable[[Material], nn.Module]] = {
    "patchcore": patchcore,
    "padim": padim,
    "padim-deep": padim_deep,
    "dfm": dfm,
    "dfkde": dfkde,
}


def main() -> None:
    """Fit and ask one peer, category by category."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("name", choices=tuple(PEERS))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    plan: dict[str, Any] = json.loads(args.plan.read_text())
    backbone = EfficientNetLite(LITE0, read_checkpoint(Path(plan["weights"])))
    args.folder.mkdir(parents=True, exist_ok=True)
    fits = []
    for number, category in enumerate(plan["categories"]):
        torch.manual_seed(plan["seed"])
        np.random.seed(plan["seed"])
        wall, cpu = time.perf_counter(), time.process_time()
        frames = _batches(category["train"])
        model = PEERS[args.name](Material(backbone, frames, plan["rows"]))
        taken = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        fits.append({"category": category["name"], **taken})
        np.savez(args.folder / f"{number}.npz", **_ask(model, category["test"]))
        print(f"{args.name} {category['name']}: fitted in {taken['wall_s']:.0f} s", flush=True)
    run = {
        "key": plan["key"],
        "fits": fits,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "versions": {name: version(name) for name in ("anomalib", "torch", "torchvision")},
    }
    (args.folder / "run.json").write_text(json.dumps(run, indent=1))


def _read(path: str) -> Tensor:
    """An image file → (1, 3, S, S) float32 in 0 … 255, read and resized as anomalib does."""
    resized: Tensor = Resize((SIDE_PX, SIDE_PX), antialias=True)(read_image(path, as_tensor=True))
    return 255 * resized[None]


def _batches(paths: Sequence[str]) -> Iterator[Tensor]:
    for first in range(0, len(paths), BATCH):
        yield torch.cat([_read(path) for path in paths[first : first + BATCH]])


def _show(model: nn.Module, material: Material) -> None:
    """Let a model keep the features of good images, as it does in training mode."""
    model.train()
    for batch in material.frames:
        model(batch)


def _fitted(model: Any, material: Material) -> nn.Module:
    _show(model, material)
    model.fit()
    fitted: nn.Module = model.eval()
    return fitted


def _ask(model: nn.Module, paths: Sequence[str]) -> dict[str, Any]:
    """Score images one by one; `maps` (n, S, S) float32 is there if the peer makes maps."""
    scores, maps, wall_ms, cpu_ms = [], [], [], []
    with torch.inference_mode():
        for path in paths[:WARM_UP]:
            model(_read(path))
        for path in paths:
            frame = _read(path)
            wall, cpu = time.perf_counter(), time.process_time()
            found = model(frame)
            wall_ms.append(1000 * (time.perf_counter() - wall))
            cpu_ms.append(1000 * (time.process_time() - cpu))
            scores.append(float(found.pred_score))
            if found.anomaly_map is not None:
                maps.append(found.anomaly_map[0, 0].numpy())
    answers = {"scores": np.array(scores), "wall_ms": np.array(wall_ms), "cpu_ms": np.array(cpu_ms)}
    return answers | ({"maps": np.stack(maps)} if maps else {})


if __name__ == "__main__":
    main()
