"""Names of engines: they say everything that an engine depends on, and are read back strictly."""

from __future__ import annotations

import pytest

from inspection.bundle import TRUNK
from inspection.engines import EngineKey, Provider, engines_for, key_of
from inspection.errors import InputError

SHA, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
KEY = EngineKey("fp16", SHA[:12], "tensorrt", "10.3.0", (8, 7))


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        EngineKey("int8", SHA[:12], "tensorrt_rtx", "1.7.1.116", (12, 0)),
        EngineKey("fp32", SHA[:12], "tensorrt", "10.13.3.9.post1", (9, 0)),
    ],
    ids=lambda key: key.name,
)
def test_a_name_is_read_back_as_it_was_written(key: EngineKey) -> None:
    assert key_of(key.name) == key


@pytest.mark.parametrize(
    "name",
    [
        "trunk.engine",
        KEY.name.replace("fp16", "fp8"),
        KEY.name.replace("tensorrt", "openvino"),
        KEY.name.replace("10.3.0", "../10"),
        KEY.name.replace("sm87", "sm8"),
        "../" + KEY.name,
        KEY.name + "\n",
    ],
)
def test_what_is_no_name_of_an_engine_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="expected an engine's name"):
        key_of(name)


@pytest.mark.parametrize(
    "changes", [{"onnx": "0123"}, {"version": "10/3"}, {"capability": (8, 17)}], ids=str
)
def test_a_key_that_no_name_can_say_is_none(changes: dict[str, object]) -> None:
    fields = {name: getattr(KEY, name) for name in EngineKey.__slots__}

    with pytest.raises(InputError, match="there can be no engine"):
        EngineKey(**{**fields, **changes})


def named(**changes: object) -> str:
    fields = {name: getattr(KEY, name) for name in EngineKey.__slots__}
    return EngineKey(**{**fields, **changes}).name


def test_only_engines_that_fit_in_everything_are_chosen_and_the_fastest_first() -> None:
    runtimes: list[tuple[Provider, str]] = [("tensorrt", "10.3.0"), ("tensorrt_rtx", "1.7.1")]
    fit = [named(), named(precision="fp32"), named(provider="tensorrt_rtx", version="1.7.1")]
    others = [
        named(onnx=OTHER[:12]),
        named(version="10.3.1"),
        named(capability=(8, 6)),
        named(precision="int8"),  # of trunk.onnx, but INT8 is made of another graph
    ]
    digests = dict.fromkeys([TRUNK, *others, *fit], SHA)

    chosen = engines_for(digests, runtimes, (8, 7))

    assert [key.precision for key in chosen] == ["fp16", "fp16", "fp32"]
    assert {key.name for key in chosen} == {*fit}


def test_an_int8_engine_belongs_to_the_graph_with_the_ranges() -> None:
    names = {TRUNK: SHA, "trunk.int8.onnx": OTHER}
    ours = named(precision="int8", onnx=OTHER[:12])

    chosen = engines_for({**names, ours: SHA}, [("tensorrt", "10.3.0")], (8, 7))

    assert [key.name for key in chosen] == [ours]
    moved = {**names, "trunk.int8.onnx": SHA, ours: SHA}
    assert engines_for(moved, [("tensorrt", "10.3.0")], (8, 7)) == []
