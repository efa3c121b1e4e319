"""Who is ahead of whom, and when a peer must run again; a stub stands for its environment."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.contestants import Contestant, ask_peer
from benchmarks.paired import Answers
from benchmarks.peers import OURS, compare
from inspection.errors import InputError
from tests.trainer.parts import write_category
from trainer.dataset import Category, find_categories

STUB = """\
#!{python}
import json, sys
from pathlib import Path
import numpy as np
module, plan, name, folder = sys.argv[2:]
plan, folder = json.loads(Path(plan).read_text()), Path(folder)
with (folder / "runs").open("a") as file:
    file.write(name + "\\n")
for number, category in enumerate(plan["categories"]):
    n = len(category["test"])
    times = np.arange(n, dtype=float)
    np.savez(folder / f"{{number}}.npz", scores=times, wall_ms=times, cpu_ms=2 * times)
fits = [{{"category": each["name"], "wall_s": 2, "cpu_s": 3}} for each in plan["categories"]]
run = {{"key": plan["key"], "fits": fits, "peak_rss_mib": 7.0, "versions": {{"anomalib": "0"}}}}
(folder / "run.json").write_text(json.dumps(run))
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for product in ("bolt", "washer"):
        write_category(tmp_path / "data" / product, product, train=2)
    return tmp_path / "data"


@pytest.fixture
def peer_python(tmp_path: Path) -> Path:
    """Stands for the interpreter of the peers' environment: `-m benchmarks.peer_models …`."""
    path = tmp_path / "python"
    path.write_text(STUB.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_a_peer_is_asked_once_for_the_same_images(
    data: Path, peer_python: Path, tmp_path: Path
) -> None:
    categories, folder = find_categories(data), tmp_path / "out"

    first = ask_peer("padim", categories, 0, folder, peer_python)
    second = ask_peer("padim", categories, 0, folder, None)

    assert (folder / "runs").read_text() == "padim\n"
    assert first.cost == second.cost
    assert (first.made_of["earlier_run"], second.made_of["earlier_run"]) == (False, True)
    assert first.cost["fit_s"] == 2 * len(categories)
    assert first.cost["fit_cpu_s"] == 3 * len(categories)
    assert set(second.answers) == {"bolt", "washer"}
    assert len(second.answers["bolt"].scores) == len(categories[0].test)


@pytest.mark.parametrize("changed", ["image", "seed"])
def test_a_peer_is_asked_again_when_what_it_was_asked_changes(
    data: Path, peer_python: Path, tmp_path: Path, changed: str
) -> None:
    categories, folder = find_categories(data), tmp_path / "out"
    ask_peer("padim", categories, 0, folder, peer_python)
    if changed == "image":
        path = categories[0].train[0]
        path.write_bytes(categories[1].train[0].read_bytes())

    ask_peer("padim", categories, int(changed == "seed"), folder, peer_python)

    assert (folder / "runs").read_text() == "padim\npadim\n"


def test_a_peer_that_must_run_needs_its_environment(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--peer-python"):
        ask_peer("padim", find_categories(data), 0, tmp_path / "out", None)


def contestant(categories: tuple[Category, ...], strength: float) -> Contestant:
    """Noise, the same for every contestant, raised by `strength` where there is a defect."""
    rng = np.random.default_rng(0)
    said: dict[str, Answers] = {}
    for category in categories:
        defects = np.array([sample.defect is not None for sample in category.test])
        maps = [strength * has + rng.random((8, 8), np.float32) for has in defects]
        said[category.name] = Answers(
            rng.normal(size=len(defects)) + strength * defects, maps, grow
        )
    return Contestant(said, {"fit_s": 1.0}, {"seed": 0})


def grow(anomaly_map: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(np.resize(anomaly_map, shape), np.float32)


def compared(data: Path, peer: float, ours: float) -> Mapping[str, dict[str, object]]:
    categories = find_categories(data)
    systems = {"padim": contestant(categories, peer), OURS: contestant(categories, ours)}
    return compare(systems, categories, rounds=100)


def test_who_says_the_same_is_neither_ahead_nor_behind(data: Path) -> None:
    figures = compared(data, peer=1.0, ours=1.0)

    assert figures["padim"]["ours_ahead_by"] == {"image_auroc": [0, 0, 0], "aupro": [0, 0, 0]}
    assert figures[OURS]["ours_ahead_by"] is None
    assert figures[OURS]["image_auroc"] == figures["padim"]["image_auroc"]


def test_a_clear_lead_has_an_interval_above_nothing(data: Path) -> None:
    figures = compared(data, peer=0.0, ours=5.0)

    ahead = figures["padim"]["ours_ahead_by"]
    assert isinstance(ahead, dict)
    points, low, high = ahead["image_auroc"]
    assert 0 < low < points < high
    assert figures[OURS]["image_auroc"] == 100.0
