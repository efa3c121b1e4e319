"""What is taken for a checkpoint, and what is refused before a network believes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from inspection.errors import InputError
from trainer.backbones.checkpoints import Checkpoint, Folding, fold, read_checkpoint, select

TENSORS = {"a.weight": torch.arange(4.0), "b.bias": torch.ones(2, 3)}


def checkpoint(tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint("w.pth", "0" * 64, tensors)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(TENSORS, id="bare"),
        pytest.param({"state_dict": TENSORS, "epoch": 3}, id="beside an epoch"),
        pytest.param({"model": {"state_dict": TENSORS}}, id="wrapped twice"),
        pytest.param({f"module.{k}": v for k, v in TENSORS.items()}, id="a parallel wrapper"),
        pytest.param(
            {"state_dict": {f"model.backbone.{k}": v for k, v in TENSORS.items()}}, id="a field"
        ),
    ],
)
def test_tensors_are_found_under_their_bare_names(tmp_path: Path, document: object) -> None:
    path = tmp_path / "w.pth"
    torch.save(document, path)

    found = read_checkpoint(path)

    assert sorted(found.tensors) == sorted(TENSORS)
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_safetensors_are_read_like_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file({f"model.{k}": v for k, v in TENSORS.items()}, path)

    assert sorted(read_checkpoint(path).tensors) == sorted(TENSORS)


class Runs:
    """Would be run by a reader that runs what it reads."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('it was run')",))


@pytest.mark.parametrize(
    ("name", "document"),
    [
        pytest.param("w.pth", Runs(), id="a program"),
        pytest.param("w.pth", {"a": Runs()}, id="a program among tensors"),
        pytest.param("w.pth", nn.Linear(2, 2), id="a whole module"),
    ],
)
def test_a_checkpoint_that_would_run_is_refused(
    tmp_path: Path, name: str, document: object
) -> None:
    torch.save(document, tmp_path / name)

    with pytest.raises(InputError, match="without running it"):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        pytest.param([torch.ones(2)], "holds list, expected tensors by name", id="a list"),
        pytest.param({}, "holds dict, expected tensors by name", id="nothing"),
        pytest.param({"a": 3}, "'a' is int, expected tensors alone", id="a number"),
        pytest.param({3: torch.ones(1)}, "3 is Tensor, expected tensors alone", id="no name"),
    ],
)
def test_what_is_not_tensors_by_name_is_refused(
    tmp_path: Path, document: object, text: str
) -> None:
    torch.save(document, tmp_path / "w.pth")

    with pytest.raises(InputError, match=text):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("data", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_a_file_of_something_else_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes
) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(InputError, match=rf"{name} is no checkpoint"):
        read_checkpoint(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of weights"):
        read_checkpoint(tmp_path / "none.pth")


def test_another_digest_is_refused(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pth")

    with pytest.raises(InputError, match="expected 000000000000…"):
        read_checkpoint(tmp_path / "w.pth", "0" * 64)


def test_every_kind_of_misfit_is_named_with_its_first_names() -> None:
    tensors = {f"x{i}": torch.ones(1) for i in range(5)} | {"a": torch.ones(2, 3)}

    with pytest.raises(InputError) as caught:
        select(checkpoint(tensors), "net", {"a": (3, 2), "b": (1,), "c": (1,)}, "head")

    text = str(caught.value)
    assert "w.pth does not fit net" in text
    assert "missing: b, c;" in text
    assert "unexpected: x0, x1, x2 and 2 more" in text
    assert "of another shape: a is (2, 3), expected (3, 2)" in text


def test_what_may_be_there_besides_is_not_complained_of() -> None:
    tensors = {"a": torch.ones(2), "head.weight": torch.ones(3)}

    assert list(select(checkpoint(tensors), "net", {"a": (2,)}, r"head\.")) == ["a"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="a is not finite"):
        select(checkpoint({"a": torch.tensor([1.0, value])}), "net", {"a": (2,)}, "head")


@pytest.mark.parametrize("biased", [False, True])
def test_a_folded_convolution_is_both_layers(biased: bool) -> None:
    torch.manual_seed(4)
    conv = nn.Conv2d(3, 5, 3, bias=biased).double()
    norm = nn.BatchNorm2d(5, eps=0.01).double().eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.3, 1.5)
    tensors = {f"c.{k}": v for k, v in conv.state_dict().items()}
    tensors |= {f"n.{k}": v for k, v in norm.state_dict().items()}
    into = nn.Conv2d(3, 5, 3)

    fold(
        checkpoint(tensors), "net", [Folding("c", "n", into)], eps=0.01, biased=biased, ignored="x"
    )

    x = torch.randn(2, 3, 9, 9)
    # One layer in float32 against float64 on values about 1.
    assert torch.allclose(into(x).double(), norm(conv(x.double())), atol=1e-5)
