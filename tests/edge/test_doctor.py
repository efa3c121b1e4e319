"""What the doctor finds on machines that are well, and on machines that lack something."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from edge import doctor, gpu_looks
from edge.bundle_folder import open_bundle
from edge.cli import DONE, FAILED, main
from edge.doctor import examine
from edge.findings import Finding, State
from edge.keys import Role, new_peer, new_station
from edge.settings import StationSettings
from inspection.bundle import TRUNK
from inspection.engines import EngineKey
from inspection.errors import DeviceError
from tests.bundles import replace_file, write_tiny_bundle

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def settings(tmp_path: Path) -> StationSettings:
    """Of a station that could run here; `ipc`, so that tests need no ports."""
    return StationSettings(
        bundle=write_tiny_bundle(tmp_path / "bundle"),
        state_dir=tmp_path / "state",
        frames=f"ipc://{tmp_path}/frames",
        verdicts=f"ipc://{tmp_path}/verdicts",
    )


def found(settings: StationSettings, what: str, **changes: object) -> Finding:
    changed = settings.model_copy(update=changes)
    return {each.what: each for each in examine(changed)}[what]


def test_nothing_is_broken_where_a_station_can_run(settings: StationSettings) -> None:
    findings = examine(settings)

    assert not [each for each in findings if each.state is State.BROKEN]
    assert all(bool(each.remedy) == (each.state is not State.FINE) for each in findings)


def test_nothing_is_changed(settings: StationSettings, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))

    examine(settings)

    assert sorted(tmp_path.rglob("*")) == before


def test_no_bundle_and_a_damaged_one_are_broken(settings: StationSettings) -> None:
    assert found(settings, "bundle", bundle=None).state is State.BROKEN
    assert settings.bundle is not None
    files = sorted((settings.bundle / "files").iterdir())
    files[0].write_bytes(b"x")

    damaged = found(settings, "bundle")

    assert damaged.state is State.BROKEN
    assert "damaged" in damaged.found


def test_a_state_dir_that_is_a_file_is_broken(settings: StationSettings, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")

    assert found(settings, "state_dir").state is State.BROKEN


@pytest.mark.parametrize(("mode", "state"), [(0o700, State.FINE), (0o750, State.LACKING)])
def test_a_state_dir_that_others_may_read_is_told_of(
    settings: StationSettings, tmp_path: Path, mode: int, state: State
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)

    assert found(settings, "state_dir").state is state


def test_a_disk_with_too_little_room_is_told_of(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings.label_queue_bytes + doctor.LEDGER_BYTES
    for free, state in ((wanted, State.FINE), (wanted - 1, State.LACKING)):
        monkeypatch.setattr(shutil, "disk_usage", lambda place, free=free: Usage(1, 1, free))

        assert found(settings, "disk").state is state


def test_a_taken_port_is_told_of_and_a_foreign_address_is_broken(settings: StationSettings) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        taken = found(settings, "frames", frames=f"tcp://127.0.0.1:{port}")

    assert taken.state is State.LACKING
    assert found(settings, "frames", frames="tcp://192.0.2.1:5555").state is State.BROKEN
    assert found(settings, "frames", frames="ipc:///nowhere/frames").state is State.BROKEN


def test_a_station_that_runs_is_not_disturbed(settings: StationSettings) -> None:
    with (
        zmq.Context() as context,
        context.socket(zmq.PULL) as station,
        context.socket(zmq.PUSH) as camera,
    ):
        station.bind(settings.frames)
        station.rcvtimeo = camera.sndtimeo = 5000

        assert found(settings, "frames").state is State.FINE
        camera.connect(settings.frames)
        camera.send(b"frame")

        assert station.recv() == b"frame"


@pytest.mark.parametrize(("answer", "state"), [(0, State.FINE), (5, State.LACKING)])
def test_a_clock_that_nobody_sets_is_told_of(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch, answer: int, state: State
) -> None:
    monkeypatch.setattr(doctor, "_adjtimex", lambda: answer)

    assert found(settings, "clock").state is state


@pytest.mark.parametrize(
    ("says", "state"),
    [
        ("echo 'NV Power Mode: MAXN_SUPER'", State.FINE),
        ("echo 'NV Power Mode: 15W'", State.LACKING),
        ("exit 1", State.LACKING),
    ],
)
def test_a_jetson_below_its_clocks_is_told_of(
    settings: StationSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    state: State,
) -> None:
    tool = tmp_path / "bin" / "nvpmodel"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{says}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.setattr(doctor, "TEGRA", tool)

    assert found(settings, "power mode").state is state


@pytest.mark.parametrize(
    ("ranges", "state", "says"),
    [
        pytest.param(
            {"17000000.gpu": (1300500000, 1300500000), "bwmgr": (204, 3199)},
            State.FINE,
            "GPU held at 1300 MHz",
            id="held, whatever the memory's clock does",
        ),
        pytest.param(
            {"17000000.gpu": (306000000, 1300500000)},
            State.LACKING,
            "306 to 1300 MHz",
            id="moving",
        ),
        pytest.param(
            {"gpu-gpc-0": (1575000000, 1575000000), "gpu-gpc-1": (315000000, 1575000000)},
            State.LACKING,
            "1575, 315 to 1575 MHz",
            id="one of two moving",
        ),
    ],
)
def test_a_jetson_whose_gpu_clock_is_not_held_is_told_of(
    settings: StationSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ranges: dict[str, tuple[int, int]],
    state: State,
    says: str,
) -> None:
    for name, (low, high) in ranges.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "min_freq").write_text(f"{low}\n")
        (tmp_path / name / "max_freq").write_text(f"{high}\n")
    monkeypatch.setattr(doctor, "TEGRA", tmp_path)
    monkeypatch.setattr(doctor, "GPU_CLOCKS", tmp_path)

    clocks = found(settings, "clocks")

    assert clocks.state is state
    assert says in clocks.found
    assert "only root" not in found(settings, "power mode").found


@pytest.mark.parametrize("content", [None, "", "unknown"])
def test_clocks_that_cannot_be_read_are_not_guessed(
    settings: StationSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str | None,
) -> None:
    if content is not None:
        (tmp_path / "17000000.gpu").mkdir()
        (tmp_path / "17000000.gpu" / "min_freq").write_text(content)
    monkeypatch.setattr(doctor, "TEGRA", tmp_path)
    monkeypatch.setattr(doctor, "GPU_CLOCKS", tmp_path)

    findings = {each.what: each for each in examine(settings)}

    assert "clocks" not in findings
    assert "only root can see" in findings["power mode"].found


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("8.6.1", State.LACKING),
        ("10.2.0", State.LACKING),
        ("10.3.0", State.FINE),
        ("11.4.0.1", State.FINE),
        ("12.0.0", State.LACKING),
    ],
)
def test_tensorrt_must_be_of_a_version_that_engines_are_built_for(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch, version: str, state: State
) -> None:
    installed = {"tensorrt": SimpleNamespace(__version__=version)}
    monkeypatch.setattr(gpu_looks, "installed", lambda: installed)

    assert found(settings, "TensorRT").state is state


def test_tensorrt_rtx_will_do_as_well_and_nothing_will_not(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx = {"tensorrt_rtx": SimpleNamespace(__version__="1.7.1")}
    monkeypatch.setattr(gpu_looks, "installed", lambda: rtx)
    assert found(settings, "TensorRT") == Finding("TensorRT", State.FINE, "tensorrt_rtx 1.7.1")

    both = {"tensorrt": SimpleNamespace(__version__="8.6.1"), **rtx}
    monkeypatch.setattr(gpu_looks, "installed", lambda: both)
    assert found(settings, "TensorRT").state is State.FINE

    monkeypatch.setattr(gpu_looks, "installed", dict)
    assert found(settings, "TensorRT").state is State.LACKING


def have_nodes(monkeypatch: pytest.MonkeyPatch, devices: Path, groups: dict[str, str]) -> None:
    """Make device nodes of these groups, which this user may open."""
    for name in groups:
        (devices / name).parent.mkdir(parents=True, exist_ok=True)
        (devices / name).touch()
    monkeypatch.setattr(gpu_looks, "DEVICES", devices)
    monkeypatch.setattr(gpu_looks, "_group", lambda node: groups[str(node.relative_to(devices))])
    close(monkeypatch)


def close(monkeypatch: pytest.MonkeyPatch, *places: Path, reading: bool = True) -> None:
    """Let this user not write these files, nor read them; root may do both, which tests can be."""

    def access(place: Path, mode: int) -> bool:
        return Path(place) not in places or (not reading and not mode & os.W_OK)

    monkeypatch.setattr(os, "access", access)


def test_device_nodes_that_this_user_may_not_open_are_named(
    settings: StationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = tmp_path / "dev"
    names = ("nvmap", "nvhost-ctrl-gpu", "nvgpu/igpu0/ctrl", "nvidia0", "dri/renderD128", "null")
    have_nodes(monkeypatch, devices, dict.fromkeys(names, "video"))
    assert "5 device nodes" in found(settings, "permissions").found

    for name in names[:-1]:
        close(monkeypatch, devices / name)
        finding = found(settings, "permissions")

        assert finding.state is State.LACKING
        assert str(devices / name) in finding.found
        assert "usermod -aG video,render" in finding.remedy


def test_nodes_for_debuggers_and_schedulers_may_be_closed_unless_all_are(
    settings: StationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"nvmap": "video", "nvgpu/igpu0/dbg": "debug", "nvgpu/igpu0/sched": "root"}
    have_nodes(monkeypatch, tmp_path, groups)
    special = [tmp_path / name for name in groups if name != "nvmap"]

    close(monkeypatch, *special)
    assert found(settings, "permissions").state is State.FINE

    monkeypatch.setattr(gpu_looks, "_group", lambda node: "root")
    close(monkeypatch, *special, tmp_path / "nvmap")
    assert found(settings, "permissions").state is State.LACKING


def test_nvmap_need_only_be_readable(
    settings: StationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_nodes(monkeypatch, tmp_path, {"nvmap": "video", "nvgpu/igpu0/ctrl": "video"})

    close(monkeypatch, tmp_path / "nvmap", reading=False)
    assert found(settings, "permissions").state is State.FINE

    close(monkeypatch, tmp_path / "nvgpu/igpu0/ctrl", reading=False)
    assert found(settings, "permissions").state is State.LACKING


def test_a_card_needs_no_render_node(
    settings: StationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_nodes(monkeypatch, tmp_path, {"nvidia0": "root", "dri/renderD128": "render"})

    close(monkeypatch, tmp_path / "dri/renderD128")

    assert found(settings, "permissions").state is State.FINE


def test_machines_without_such_nodes_have_nothing_to_open(
    settings: StationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_looks, "DEVICES", tmp_path)

    assert found(settings, "permissions") == Finding("permissions", State.FINE, "nothing to open")


def have_driver(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Put a driver of this CUDA version, as the driver writes it, in place of the machine's."""

    def get_version(into: Any) -> int:
        into._obj.value = version
        return 0

    driver = SimpleNamespace(cuDriverGetVersion=get_version)
    loads = {**vars(ctypes), "CDLL": lambda name: driver}
    monkeypatch.setattr(gpu_looks, "ctypes", SimpleNamespace(**loads))


@pytest.mark.parametrize(
    ("driver", "bindings", "remedy"),
    [
        pytest.param(12060, "12.9.4", "", id="of the driver's CUDA"),
        pytest.param(13020, "12.9.4", "", id="older"),
        pytest.param(12060, "13.0.3", "pip install 'cuda-bindings==12.*'", id="newer: no"),
        pytest.param(13000, None, "pip install 'cuda-bindings==13.*'", id="none: no"),
    ],
)
def test_cuda_bindings_are_held_to_the_driver(
    settings: StationSettings,
    monkeypatch: pytest.MonkeyPatch,
    driver: int,
    bindings: str | None,
    remedy: str,
) -> None:
    have_driver(monkeypatch, driver)
    have_bindings(monkeypatch, bindings)

    finding = found(settings, "cuda-bindings")

    assert finding.state is (State.LACKING if remedy else State.FINE)
    assert finding.remedy == remedy


def test_the_driver_says_its_cuda_version(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    have_driver(monkeypatch, 12060)

    assert found(settings, "driver") == Finding("driver", State.FINE, "CUDA 12.6")


def have_bindings(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    """Let cuda-bindings be of a version, or absent."""
    real = importlib.metadata.version

    def version(package: str) -> str:
        if package != "cuda-bindings":
            return real(package)
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)


@contextmanager
def orin(gpu: int, kernels: Path) -> Iterator[SimpleNamespace]:
    """A GPU that opens: the second of a machine."""
    if gpu != 1:
        raise DeviceError(f"there is no GPU {gpu}; look again")
    yield SimpleNamespace(name="Orin", capability=(8, 7))


def with_engine(folder: Path, capability: tuple[int, int]) -> str:
    """Name the engine, for such chips, that the bundle now has."""
    digest = open_bundle(folder).manifest.files[TRUNK].sha256
    name = EngineKey("fp16", digest[:12], "tensorrt", "10.3.0", capability).name
    replace_file(folder, name, b"an engine")
    return name


def test_the_engine_of_this_machine_is_found_and_one_of_another_is_not(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.bundle is not None
    monkeypatch.setattr(
        gpu_looks, "installed", lambda: {"tensorrt": SimpleNamespace(__version__="10.3.0")}
    )
    monkeypatch.setattr(gpu_looks, "open_device", orin)
    with_engine(settings.bundle, (11, 0))

    other = found(settings, "engine", gpu=1)
    assert other.state is State.LACKING
    assert "8.7; the bundle has engines for tensorrt 10.3.0, compute capability 11.0" in other.found
    assert "dualbank-deploy build BUNDLE" in other.remedy

    ours = with_engine(settings.bundle, (8, 7))
    assert found(settings, "engine", gpu=1) == Finding("engine", State.FINE, ours)


def test_the_gpu_that_the_station_would_take_is_the_one_that_is_opened(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_looks, "open_device", orin)

    assert found(settings, "GPU", gpu=0).state is State.LACKING
    assert found(settings, "GPU", gpu=1).state is State.FINE


def test_who_insists_on_a_gpu_has_a_broken_station_without_one(
    settings: StationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_looks, "installed", dict)

    assert found(settings, "engine").state is State.FINE
    assert found(settings, "TensorRT").state is State.LACKING
    assert found(settings, "TensorRT", scorer="gpu").state is State.BROKEN
    assert found(settings, "engine", scorer="gpu").state is State.BROKEN
    assert found(settings, "disk", scorer="gpu").state is State.FINE


def test_the_command_fails_if_a_station_could_not_run(
    settings: StationSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", "--json", "--state-dir", str(settings.state_dir)]
    addresses = ["--frames", settings.frames, "--verdicts", settings.verdicts]

    assert main([*words, *addresses]) == FAILED
    assert json.loads(capsys.readouterr().out)["bundle"][0] == "broken"
    assert main([*words[:1], *words[2:], *addresses, "--bundle", str(settings.bundle)]) == DONE
    said = capsys.readouterr().out
    assert "files whole" in said
    assert "→" in said


def test_the_doctor_tells_who_may_enter_and_what_is_encrypted(
    settings: StationSettings, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    assert found(settings, "keys").state is State.FINE
    assert found(settings, "keys", keys=keys).state is State.BROKEN

    new_station(keys)
    assert found(settings, "keys", keys=keys).state is State.LACKING
    new_peer(Role.CAMERA, "left", keys, tmp_path / "out")

    both = found(settings, "keys", keys=keys)
    assert both.state is State.FINE
    assert "1 cameras, 0 subscribers" in both.found
    assert "encrypted" in found(settings, "addresses", keys=keys).found


def test_keys_that_others_may_read_or_add_to_are_broken(
    settings: StationSettings, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    new_station(keys)
    new_peer(Role.CAMERA, "left", keys, tmp_path / "out")
    (keys / "cameras").chmod(0o770)
    assert "may let peers in" in found(settings, "keys", keys=keys).found
    (keys / "cameras").chmod(0o700)

    (keys / "cameras" / "left.key").write_text("damaged")
    assert found(settings, "keys", keys=keys).state is State.LACKING

    (keys / "station.key_secret").chmod(0o644)
    readable = found(settings, "keys", keys=keys)
    assert readable.state is State.BROKEN
    assert "chmod 600" in readable.found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"insecure": True}, "nothing needs it"),
        ({"insecure": True, "frames": "tcp://*:5555"}, "in plain text: frames tcp://*:5555"),
    ],
)
def test_plain_text_that_others_reach_is_told_of(
    settings: StationSettings, changes: dict[str, object], said: str
) -> None:
    addresses = found(settings, "addresses", **changes)

    assert addresses.state is State.LACKING
    assert said in addresses.found
