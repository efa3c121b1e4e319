"""Where a figure goes: one JSON file a benchmark, with the machine and the command that made it."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

LIBRARIES = ("numpy", "onnxruntime", "opencv-python-headless", "pyzmq", "torch")


def record(name: str, figures: dict[str, Any]) -> Path:
    """Write figures to `benchmarks/results/<name>.json`.

    The command is kept without its paths, which say nothing on another machine.
    """
    module = ".".join(Path(sys.argv[0]).resolve().with_suffix("").relative_to(ROOT).parts)
    document = {
        "command": " ".join(["python -m", module, *(Path(word).name for word in sys.argv[1:])]),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
            **{library: _version(library) for library in LIBRARIES},
        },
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _version(library: str) -> str | None:
    # A machine with a GPU need not have what a camera needs; hours of figures are not lost for it.
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
