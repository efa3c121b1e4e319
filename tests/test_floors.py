"""The floors of the house: who may import whom, and what no module may be called, hold or hide.

Every rule is a function from sources (path → text) to complaints, so that the same file shows that
each one complains when it is broken on purpose. Standard library and pytest only.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Sources = Mapping[str, str]
Complaints = list[str]

ROOT = Path(__file__).resolve().parents[1]

# --- the tables: a new program, package or file of the station is declared here first -------------

# What a program may import beside the standard library and itself. Everything else is refused,
# torch in a station and a socket in the trainer among it.
MAY_IMPORT = {
    "inspection": {"msgpack", "numpy", "pydantic", "safetensors"},
    "trainer": {
        *("inspection", "cv2", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript"),
        *("pydantic", "rich", "safetensors", "torch"),
    },
    "calibration": {
        *("inspection", "jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "pydantic"),
        *("pydantic_settings", "rich", "starlette", "zmq"),
    },
    "deploy": {
        *("inspection", "cryptography", "numpy", "onnx", "onnxruntime", "pydantic"),
        *("pydantic_settings", "rich", "securesystemslib", "tensorrt", "tensorrt_rtx"),
        *("tensorrt_rtx_bindings", "tuf", "zmq"),
    },
    "edge": {
        *("inspection", "asyncua", "cuda", "cv2", "msgpack", "numpy", "onnxruntime", "paho"),
        *("prometheus_client",),
        *("pycuda", "pydantic", "pydantic_settings", "rich", "tensorrt", "tensorrt_rtx"),
        *("tensorrt_rtx_bindings", "zmq"),
    },
}

# What the pure core may use of the standard library: nothing that knows of a disk, a socket, a
# clock, a thread or another process.
PURE = {
    *("__future__", "collections", "dataclasses", "enum", "functools", "hashlib", "itertools"),
    *("json", "math", "operator", "re", "reprlib", "struct", "typing"),
}
# Nor of the functions that reach a disk all the same.
REACHES_A_DISK = {
    *("open", "input", "np.load", "np.save", "np.savez", "np.savez_compressed", "np.memmap"),
    *("np.fromfile", "np.loadtxt", "np.savetxt", "np.genfromtxt"),
    *("safetensors.safe_open", "safetensors.numpy.load_file", "safetensors.numpy.save_file"),
}
REACHES_A_DISK_AS_METHOD = {"tofile", "read_bytes", "write_bytes", "read_text", "write_text"}

# The station's storeys. A file imports from storeys below its own; doors may open other doors, and
# tools may use tools. Stages never know of each other: what they share is a tool.
STOREYS = ("doors", "assembly", "stages", "tools")


def named(modules: str) -> set[str]:
    """The modules of a storey, by name below `edge`."""
    return set(modules.split())


EDGE = {
    "doors": named(
        """
        cli commands.bridge commands.camera commands.check commands.doctor commands.keys
        commands.ledger commands.ledger_tables commands.options commands.replay
        commands.run commands.swap commands.watch proof service
        """
    ),
    "assembly": named(
        """
        bridges.mqtt bridges.opcua check doctor pipeline player replay standby swapping
        """
    ),
    "stages": named(
        """
        answers camera capture control finishing follow gpu_scorer http_server judging
        onnx_scorer preparing pulse reception watch
        """
    ),
    "tools": named(
        """
        access addresses admission backlog bank_rows bank_scan batches bell bridges.latest
        bridges.levels bridges.serving bundle_folder bundle_store catch_up decode device
        device_bank device_heads device_pixels findings first_bundle frame_archive
        gpu_looks graphs health imagezmq_senders intake kernels.arguments kernels.binary
        kernels.build key_looks keys label_queue lane latencies ledger ledger_audit
        ledger_carry_over ledger_export ledger_reader ledger_stats ledger_table
        log_lines metrics notify outcome peers plausibility publish questions recent
        relay resize scorer self_test settings shadow sightings slot sockets sources stages
        state_dir status streams swap_desk swap_report tensorrt_engine trial trunk
        workers
        """
    ),
}
AMONG_THEMSELVES = ("doors", "tools")

MOST_LINES = 350
SAYS_NOTHING = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
RUNS_WHAT_IT_READS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
CATCHES_ALL = {"Exception", "BaseException"}

# Where a package is called otherwise than what installs it.
DISTRIBUTION = {
    "cuda": "cuda-bindings",
    "paho": "paho-mqtt",
    "cv2": "opencv-python-headless",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "zmq": "pyzmq",
}
# No extra installs these: JetPack brings its own, and elsewhere it is a matter of the CUDA at hand.
BROUGHT_BY_THE_MACHINE = {"tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"}
# The extras that install what a program imports, beyond what every installation has.
EXTRAS = {
    "inspection": (),
    "trainer": ("train",),
    "calibration": ("calibrate",),
    "deploy": ("deploy",),
    "edge": ("edge", "gpu", "bridges"),
}

# --- the rules ------------------------------------------------------------------------------------


def programs_keep_to_their_table(sources: Sources) -> Complaints:
    """A program imports itself, the core, and the packages of its row; never another program."""
    return [
        f"{path}:{line} imports {name}, which {program_of(path)} may not"
        for path, line, name in every_import(sources)
        if root_of(name) not in sys.stdlib_module_names
        and root_of(name) not in {program_of(path), *MAY_IMPORT[program_of(path)]}
    ]


def the_core_is_pure(sources: Sources) -> Complaints:
    """`inspection` has no disk, socket, clock, thread or other process."""
    core = {path: text for path, text in sources.items() if program_of(path) == "inspection"}
    return [
        f"{path}:{line} imports {name}: the core is pure"
        for path, line, name in every_import(core)
        if root_of(name) in sys.stdlib_module_names and root_of(name) not in PURE
    ] + [
        f"{path}:{call.lineno} calls {ast.unparse(call.func)}: the core has no disk"
        for path, call in every(ast.Call, core)
        if ast.unparse(call.func) in REACHES_A_DISK
        or (isinstance(call.func, ast.Attribute) and call.func.attr in REACHES_A_DISK_AS_METHOD)
    ]


def the_station_keeps_to_its_storeys(sources: Sources) -> Complaints:
    """In `edge`, every file has a storey and imports downwards; stages never import each other."""
    inside = {path: text for path, text in sources.items() if program_of(path) == "edge"}
    complaints = [
        f"{path} has no storey: declare it in EDGE"
        for path in inside
        if name_of(path) != "__init__" and storey_of(place_of(path)) is None
    ]
    for path, line, name in every_import(inside):
        here = storey_of(place_of(path))
        there = storey_of(name.removeprefix("edge.")) if name.startswith("edge.") else None
        if here is None or there is None:
            continue
        below = STOREYS.index(there) > STOREYS.index(here)
        if not below and not (here == there and here in AMONG_THEMSELVES):
            complaints.append(f"{path}:{line} ({here}) imports {name} ({there})")
    return complaints


def nobody_imports_a_command(sources: Sources) -> Complaints:
    """A command line is where a process begins: what others need of it belongs below."""
    return [
        f"{path}:{line} imports {name}"
        for path, line, name in every_import(sources)
        if name.split(".")[1:2] == ["cli"] and root_of(name) in MAY_IMPORT
    ]


def imports_are_absolute(sources: Sources) -> Complaints:
    """A line that imports says where from."""
    return [
        f"{path}:{node.lineno} imports relatively"
        for path, node in every(ast.ImportFrom, sources)
        if node.level
    ]


def imports_are_written_down(sources: Sources) -> Complaints:
    """A module that is imported by a name made at run time escapes every table above."""
    return [
        f"{path}:{call.lineno} imports what no table can see"
        for path, call in every(ast.Call, sources)
        if is_dynamic_import(call) and not constant_argument(call)
    ]


def no_name_is_the_standard_librarys(sources: Sources) -> Complaints:
    """A module named as one of the standard library hides it, or is hidden by it."""
    return [
        f"{path} is named as a module of the standard library"
        for path in sources
        if name_of(path) in sys.stdlib_module_names - {"__main__"}
    ]


def every_name_says_what_is_inside(sources: Sources) -> Complaints:
    """`utils` is where things go that nobody thought about."""
    return [
        f"{path} has a name that says nothing"
        for path in sources
        if SAYS_NOTHING
        & {word for part in Path(path).with_suffix("").parts for word in words(part)}
    ]


def every_module_says_what_it_is(sources: Sources) -> Complaints:
    """A module opens with what it is."""
    return [
        f"{path} has no docstring"
        for path, text in sources.items()
        if not (ast.get_docstring(ast.parse(text)) or "").strip()
    ]


def no_module_is_too_long(sources: Sources) -> Complaints:
    """What does not fit is two things."""
    return [
        f"{path} has {len(text.splitlines())} lines, more than {MOST_LINES}"
        for path, text in sources.items()
        if len(text.splitlines()) > MOST_LINES
    ]


def nothing_that_is_read_is_run(sources: Sources) -> Complaints:
    """No pickle under any name, no eval, no exec: a file from elsewhere never becomes code."""
    return [
        f"{path}:{line} imports {name}"
        for path, line, name in every_import(sources)
        if root_of(name) in RUNS_WHAT_IT_READS
    ] + [
        f"{path}:{call.lineno} {ast.unparse(call)[:60]}"
        for path, call in every(ast.Call, sources)
        if (isinstance(call.func, ast.Name) and call.func.id in {"eval", "exec"})
        or any(
            (keyword.arg, ast.unparse(keyword.value))
            in {("allow_pickle", "True"), ("weights_only", "False")}
            for keyword in call.keywords
        )
    ]


def no_failure_is_swallowed(sources: Sources) -> Complaints:
    """Whoever catches everything does something about it; whoever catches nothing says what."""
    complaints = [
        f"{path}:{handler.lineno} catches everything and does nothing"
        for path, handler in every(ast.ExceptHandler, sources)
        if handler.type is None or (catches_all(handler.type) and does_nothing(handler.body))
    ]
    return complaints + [
        f"{path}:{call.lineno} suppresses everything"
        for path, call in every(ast.Call, sources)
        if ast.unparse(call.func) in {"suppress", "contextlib.suppress"}
        and any(catches_all(argument) for argument in call.args)
    ]


RULES: tuple[Callable[[Sources], Complaints], ...] = (
    programs_keep_to_their_table,
    the_core_is_pure,
    the_station_keeps_to_its_storeys,
    nobody_imports_a_command,
    imports_are_absolute,
    imports_are_written_down,
    no_name_is_the_standard_librarys,
    every_name_says_what_is_inside,
    every_module_says_what_it_is,
    no_module_is_too_long,
    nothing_that_is_read_is_run,
    no_failure_is_swallowed,
)

# --- reading sources ------------------------------------------------------------------------------


def every_import(sources: Sources) -> Iterator[tuple[str, int, str]]:
    """(path, line, dotted name) of every absolute import, wherever in the module it stands."""
    for path, node in every((ast.Import, ast.ImportFrom, ast.Call), sources):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from edge import ledger` imports edge.ledger.
            names = [f"{node.module}.{alias.name}" for alias in node.names if not node.level]
        else:
            names = [constant_argument(node)] if is_dynamic_import(node) else []
        yield from ((path, node.lineno, name) for name in names if name)


def every(kinds, sources: Sources):
    """(path, node) of every syntax node of some kinds."""
    for path, text in sources.items():
        for node in ast.walk(ast.parse(text, path)):
            if isinstance(node, kinds):
                yield path, node


def is_dynamic_import(call: ast.Call) -> bool:
    return ast.unparse(call.func) in {"__import__", "import_module", "importlib.import_module"}


def constant_argument(call: ast.Call) -> str:
    """The first argument if it is a text, else nothing."""
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def catches_all(kind: ast.expr) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(ast.unparse(one).removeprefix("builtins.") in CATCHES_ALL for one in kinds)


def does_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(statement, ast.Pass | ast.Continue)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in body
    )


def program_of(path: str) -> str:
    return Path(path).parts[0]


def name_of(path: str) -> str:
    return Path(path).stem


def root_of(name: str) -> str:
    return name.split(".")[0]


def words(name: str) -> list[str]:
    return name.lower().split("_")


def place_of(path: str) -> str:
    """Where a module lies within its program: `kernels.build`."""
    return ".".join(Path(path).with_suffix("").parts[1:])


def storey_of(module: str) -> str | None:
    """The storey of a module of the station, or of something in it: `ledger.Ledger`."""
    parts = module.split(".")
    names = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return next((storey for storey in STOREYS if names & EDGE[storey]), None)


def read_sources() -> dict[str, str]:
    """Every module of every program, path below the repository → text."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for program in MAY_IMPORT
        for path in sorted((ROOT / program).rglob("*.py"))
    }


# --- the rules hold -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    return read_sources()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule, sources):
    assert rule(sources) == []


def test_the_house_was_looked_at(sources):
    found = {program_of(path) for path in sources}

    assert {"inspection", "trainer", "edge"} <= found
    assert "inspection/messages.py" in sources


def test_every_storey_of_the_station_names_files_that_exist(sources):
    declared = [name for storey in STOREYS for name in EDGE[storey]]

    assert len(declared) == len(set(declared)), "a file is on two storeys"
    files = [f"edge/{name.replace('.', '/')}.py" for name in declared]
    assert [path for path in files if path not in sources] == []


def test_what_a_program_imports_is_what_its_extra_installs(sources):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def names(requirements):
        return {
            "".join(c if c.isalnum() or c in "-_" else " " for c in r).split()[0]
            for r in requirements
        }

    missing = []
    for path, line, name in every_import(sources):
        extras, package = EXTRAS[program_of(path)], root_of(name)
        if package in sys.stdlib_module_names or package in MAY_IMPORT:
            continue
        if package in BROUGHT_BY_THE_MACHINE:
            continue
        installed = names(project["dependencies"]).union(
            *(names(project["optional-dependencies"][extra]) for extra in extras)
        )
        if DISTRIBUTION.get(package, package) not in installed:
            missing.append(f"{path}:{line} imports {name}, which {extras or 'nothing'} installs")
    assert missing == []


# --- and complain when they are broken on purpose -------------------------------------------------

DOC = '"""A module."""\n'

BROKEN = [
    # rule, path, source without its docstring
    (programs_keep_to_their_table, "edge/scorer.py", "import torch"),
    (programs_keep_to_their_table, "edge/scorer.py", "import torch.nn.functional as F"),
    (programs_keep_to_their_table, "edge/scorer.py", "def late():\n    from torch import nn"),
    (programs_keep_to_their_table, "edge/scorer.py", "importlib.import_module('torch')"),
    (programs_keep_to_their_table, "edge/check.py", "from trainer.runtime import Runtime"),
    (programs_keep_to_their_table, "trainer/fit.py", "import edge.settings"),
    (programs_keep_to_their_table, "trainer/fit.py", "from deploy import rollout"),
    (programs_keep_to_their_table, "trainer/fit.py", "import zmq"),
    (programs_keep_to_their_table, "trainer/dataset.py", "import elpv_dataset"),
    (programs_keep_to_their_table, "calibration/report.py", "import torch"),
    (programs_keep_to_their_table, "calibration/report.py", "import tensorrt"),
    (programs_keep_to_their_table, "deploy/build.py", "import torch"),
    (programs_keep_to_their_table, "inspection/scoring.py", "import cv2"),
    (programs_keep_to_their_table, "inspection/scoring.py", "from edge import settings"),
    (programs_keep_to_their_table, "inspection/scoring.py", "if TYPE_CHECKING:\n    import torch"),
    (programs_keep_to_their_table, "edge/scorer.py", "import tests.bundles"),
    (the_core_is_pure, "inspection/bank.py", "import os"),
    (the_core_is_pure, "inspection/bank.py", "from pathlib import Path"),
    (the_core_is_pure, "inspection/bank.py", "import time, math"),
    (the_core_is_pure, "inspection/bank.py", "from datetime import datetime"),
    (the_core_is_pure, "inspection/bank.py", "def f():\n    import threading"),
    (the_core_is_pure, "inspection/bank.py", "import subprocess"),
    (the_core_is_pure, "inspection/bank.py", "import socket"),
    (the_core_is_pure, "inspection/bank.py", "open('x').read()"),
    (the_core_is_pure, "inspection/bank.py", "np.load('x.npy')"),
    (the_core_is_pure, "inspection/bank.py", "array.tofile('x')"),
    (the_core_is_pure, "inspection/bank.py", "safetensors.numpy.load_file('x')"),
    (the_station_keeps_to_its_storeys, "edge/judging.py", "from edge.finishing import Finish"),
    (the_station_keeps_to_its_storeys, "edge/judging.py", "from edge import finishing"),
    (the_station_keeps_to_its_storeys, "edge/judging.py", "import edge.finishing"),
    (the_station_keeps_to_its_storeys, "edge/decode.py", "from edge.pipeline import Station"),
    (the_station_keeps_to_its_storeys, "edge/kernels/build.py", "from edge.judging import judge"),
    (the_station_keeps_to_its_storeys, "edge/kernels/not_declared.py", ""),
    (the_station_keeps_to_its_storeys, "edge/backlog.py", "from edge.capture import Capture"),
    (the_station_keeps_to_its_storeys, "edge/settings.py", "from edge.service import serve"),
    (the_station_keeps_to_its_storeys, "edge/pipeline.py", "from edge.service import serve"),
    (the_station_keeps_to_its_storeys, "edge/pipeline.py", "from edge.check import warm_up"),
    (the_station_keeps_to_its_storeys, "edge/not_declared.py", ""),
    (nobody_imports_a_command, "edge/service.py", "from edge.cli import main"),
    (nobody_imports_a_command, "trainer/fit.py", "from trainer import cli"),
    (imports_are_absolute, "edge/decode.py", "from .outcome import Outcome"),
    (imports_are_absolute, "edge/decode.py", "from . import outcome"),
    (imports_are_written_down, "edge/decode.py", "importlib.import_module(name)"),
    (imports_are_written_down, "edge/decode.py", "__import__('to' + 'rch')"),
    (no_name_is_the_standard_librarys, "edge/queue.py", ""),
    (no_name_is_the_standard_librarys, "inspection/types.py", ""),
    (every_name_says_what_is_inside, "edge/utils.py", ""),
    (every_name_says_what_is_inside, "edge/image_helpers.py", ""),
    (every_name_says_what_is_inside, "edge/common/frames.py", ""),
    (every_name_says_what_is_inside, "trainer/bank_manager.py", ""),
    (every_name_says_what_is_inside, "trainer/base.py", ""),
    (no_module_is_too_long, "edge/decode.py", "\n" * MOST_LINES),
    (nothing_that_is_read_is_run, "trainer/fit.py", "import pickle"),
    (nothing_that_is_read_is_run, "trainer/fit.py", "from joblib import load"),
    (nothing_that_is_read_is_run, "trainer/fit.py", "eval('1')"),
    (nothing_that_is_read_is_run, "trainer/fit.py", "exec(text)"),
    (nothing_that_is_read_is_run, "trainer/fit.py", "torch.load(path, weights_only=False)"),
    (nothing_that_is_read_is_run, "edge/decode.py", "np.load(path, allow_pickle=True)"),
    (no_failure_is_swallowed, "edge/decode.py", "try:\n    f()\nexcept Exception:\n    pass"),
    (no_failure_is_swallowed, "edge/decode.py", "try:\n    f()\nexcept:\n    g()"),
    (no_failure_is_swallowed, "edge/decode.py", "try:\n    f()\nexcept (E, Exception):\n    0"),
    (no_failure_is_swallowed, "edge/decode.py",
     "for x in y:\n    try:\n        f()\n    except BaseException as error:\n        continue"),
    (no_failure_is_swallowed, "edge/decode.py", "with contextlib.suppress(Exception):\n    f()"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [pytest.param(*case, id=f"{case[0].__name__}-{i}") for i, case in enumerate(BROKEN)],
)
def test_a_rule_that_is_broken_on_purpose_complains_of_the_file(rule, path, text):
    complaints = rule({path: DOC + text})

    assert len(complaints) == 1
    assert complaints[0].startswith(path)


@pytest.mark.parametrize("text", ["", "x = 1\n", '"""   """\n', "# a comment\n", "f'''{x}'''\n"])
def test_a_module_without_a_docstring_is_complained_of(text):
    assert every_module_says_what_it_is({"edge/decode.py": text}) == [
        "edge/decode.py has no docstring"
    ]


def test_every_rule_is_broken_on_purpose_somewhere():
    broken = {rule for rule, _, _ in BROKEN} | {every_module_says_what_it_is}

    assert broken == set(RULES)


ALLOWED = {
    "inspection/bank.py": "import json\nimport safetensors.numpy\nx = safetensors.numpy.load(b'')",
    "trainer/fit.py": "import torch\nfrom inspection.bank import MemoryBank\nmodel.eval()",
    "edge/cli.py": "from edge.service import serve\nfrom edge.pipeline import Station",
    "edge/pipeline.py": "from edge.decode import decode\nfrom edge.backlog import Backlog",
    "edge/decode.py": "import os, cv2\nfrom edge.outcome import Outcome\nnp.load(f)",
    "edge/outcome.py": "from edge.health import Stopwatch\n" + "\n" * (MOST_LINES - 2),
    "edge/ledger.py": "try:\n    f()\nexcept Exception as error:\n    raise E from error",
    "edge/publish.py": "try:\n    f()\nexcept KeyError:\n    pass",
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_what_is_allowed_is_not_complained_of(rule):
    assert rule({path: DOC + text for path, text in ALLOWED.items()}) == []
