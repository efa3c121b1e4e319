"""Have ours and a peer fitted and asked: what each said of the test images, and what it cost.

Ours goes through its own command line and the runtime that the station has; a peer runs in its own
environment as `benchmarks.peer_models` and leaves files. Nothing is judged here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.paired import Answers, Map
from inspection.errors import InputError
from inspection.preprocessing import Preprocessing, prepare
from trainer.backbones.catalogue import DEFAULT, installed_file
from trainer.bundle_folder import open_bundle
from trainer.dataset import Category, read_image, resize
from trainer.evaluate import inspect_tests
from trainer.pictures import full_size_map
from trainer.progress import Progress
from trainer.runtime import Runtime
from trainer.settings import FitSettings

ROOT = Path(__file__).parents[1]
PEER_MODELS = Path(__file__).with_name("peer_models.py")
WARM_UP = 3
"""Images of a category that are asked once more before the others."""

ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_WAIT_POLICY": "passive",
    # Large buffers on huge pages: without them page faults were three quarters of the CPU time of
    # PatchCore's coreset (measured). Ours is fitted with the same setting.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Of whatever is fitted."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A system that was fitted and asked.

    Attributes:
        answers: By category.
        cost: `fit_s`, `fit_cpu_s`, `peak_rss_mib` of the whole process that fitted, and
            `image_ms`, `image_cpu_ms`, the medians for one prepared image.
        made_of: Versions or settings that say what it is; `earlier_run` for kept answers.
    """

    answers: Mapping[str, Answers]
    cost: Mapping[str, float]
    made_of: Mapping[str, Any]


def ask_ours(data: Path, categories: Sequence[Category], seed: int, scratch: Path) -> Contestant:
    """Fit one bundle of all categories with default settings, and score every test image."""
    folder = scratch / "bundle"
    words = ("trainer.cli", "fit", data, "--out", folder, "--seed", seed, "--quiet")
    cost = _run_measured([sys.executable, "-m", *map(str, words)])
    runtime = Runtime(open_bundle(folder))
    spec = runtime.bundle.preprocessing
    answers = {
        each.name: Answers(
            each.scores, [image.anomaly_map for image in each.images], _enlarge(spec)
        )
        for each in inspect_tests(runtime, categories, Progress(shown=False))
    }
    made_of = {"size_px": spec.size_px, "rows_each": FitSettings().rows_each, "seed": seed}
    return Contestant(answers, cost | _times(runtime, categories), made_of)


def ask_peer(
    name: str, categories: Sequence[Category], seed: int, folder: Path, python: Path | None
) -> Contestant:
    """Read what a peer left in its folder, after running it if that is missing or of other inputs.

    Raises:
        InputError: It must be run, but its environment was not given.
    """
    plan = _plan(categories, seed)
    kept = _is_of(folder, plan["key"])
    if not kept:
        if python is None:
            raise InputError(
                f"there are no results of {name} for these images in {folder}; give the "
                "environment that has anomalib with --peer-python"
            )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(json.dumps(plan, indent=1))
        words = ("benchmarks.peer_models", folder / "plan.json", name, folder)
        _run_measured([str(python), "-m", *map(str, words)])
    run = json.loads((folder / "run.json").read_text())
    answers, wall_ms, cpu_ms = {}, [], []
    for number, category in enumerate(categories):
        with np.load(folder / f"{number}.npz") as found:
            maps = list(found["maps"]) if "maps" in found else []
            answers[category.name] = Answers(found["scores"], maps, _stretch)
            wall_ms.append(found["wall_ms"])
            cpu_ms.append(found["cpu_ms"])
    cost = {
        "fit_s": sum(each["wall_s"] for each in run["fits"]),
        "fit_cpu_s": sum(each["cpu_s"] for each in run["fits"]),
        "peak_rss_mib": run["peak_rss_mib"],
        "image_ms": float(np.median(np.concatenate(wall_ms))),
        "image_cpu_ms": float(np.median(np.concatenate(cpu_ms))),
    }
    return Contestant(answers, cost, {**run["versions"], "seed": seed, "earlier_run": kept})


def _times(runtime: Runtime, categories: Sequence[Category]) -> dict[str, float]:
    """Median wall and CPU milliseconds of one prepared test image, product known."""
    wall_ms, cpu_ms = [], []
    for category in categories:
        route = runtime.bundle.route(category.name)
        for sample in (*category.test[:WARM_UP], *category.test):
            prepared = prepare(read_image(sample.image), runtime.bundle.preprocessing, resize)
            wall, cpu = time.perf_counter(), time.process_time()
            runtime.inspect(prepared, route)
            wall_ms.append(1000 * (time.perf_counter() - wall))
            cpu_ms.append(1000 * (time.process_time() - cpu))
    return {"image_ms": float(np.median(wall_ms)), "image_cpu_ms": float(np.median(cpu_ms))}


def _enlarge(spec: Preprocessing) -> Callable[[Map, tuple[int, int]], Map]:
    return lambda anomaly_map, shape: full_size_map(anomaly_map, spec, shape)


def _stretch(anomaly_map: Map, shape: tuple[int, int]) -> Map:
    """A peer smooths at its input size; what is left is to stretch."""
    return np.asarray(cv2.resize(anomaly_map, shape[::-1], interpolation=cv2.INTER_LINEAR))


def _plan(categories: Sequence[Category], seed: int) -> dict[str, Any]:
    """What a peer is told; `key` changes with anything that its answers depend on."""
    weights = installed_file(DEFAULT)
    if weights is None:
        raise InputError(f"the weights of {DEFAULT} are not installed; install the extra `train`")
    plan: dict[str, Any] = {
        "weights": str(weights),
        "rows": FitSettings().rows_each,
        "seed": seed,
        "categories": [
            {
                "name": category.name,
                "train": [str(path) for path in category.train],
                "test": [str(sample.image) for sample in category.test],
            }
            for category in categories
        ],
    }
    images = [path for each in plan["categories"] for path in (*each["train"], *each["test"])]
    files = [PEER_MODELS, weights, *map(Path, images)]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    counts = [(each["name"], len(each["train"])) for each in plan["categories"]]
    told = json.dumps([digests, counts, plan["rows"], seed])
    return plan | {"key": hashlib.sha256(told.encode()).hexdigest()}


def _is_of(folder: Path, key: str) -> bool:
    try:
        run = json.loads((folder / "run.json").read_text())
    except (OSError, json.JSONDecodeError):
        return False
    return bool(run.get("key") == key)


def _run_measured(command: Sequence[str]) -> dict[str, float]:
    """Run a program to its end: wall and CPU seconds, and its largest resident memory.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    started = time.perf_counter()
    with subprocess.Popen(command, env=os.environ | ENVIRONMENT) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "fit_s": time.perf_counter() - started,
        "fit_cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_mib": usage.ru_maxrss / 1024,
    }
