"""A compiler and the machine around it, in place of TensorRT and a GPU."""

from __future__ import annotations

from types import SimpleNamespace

from deploy.build import Tools
from deploy.compiler import InstalledProvider
from deploy.plan import Machine
from inspection.engines import Provider
from inspection.errors import DeviceError


class Factory:
    """A compiler, and the machine around it: counts what is asked, and builds a text.

    Attributes:
        version: Of TensorRT.
        chip: Its compute capability; None for a machine without a GPU.
        compiled: (capability, most frames, timing cache) of every compilation.
        graphs: What was compiled.
        fails: Raised instead of compiling.
    """

    def __init__(self, version: str = "10.3.0", chip: tuple[int, int] | None = (8, 7)) -> None:
        self.version, self.chip = version, chip
        self.compiled: list[tuple[tuple[int, int], int, bytes]] = []
        self.graphs: list[bytes] = []
        self.fails: Exception | None = None

    def find(self, name: Provider) -> InstalledProvider:
        listed = {"SM86": 1, "SM120": 2, "CURRENT": 3}
        module = SimpleNamespace(ComputeCapability=SimpleNamespace(__members__=listed))
        return InstalledProvider(name, self.version, module)

    def capability(self) -> tuple[int, int]:
        if self.chip is None:
            raise DeviceError("no GPU here: build on the machine that will run it, or use --plan")
        return self.chip

    def compile(
        self,
        provider: InstalledProvider,
        graph: bytes,
        capability: tuple[int, int],
        most_frames: int,
        timings: bytes,
    ) -> tuple[bytes, bytes]:
        self.compiled.append((capability, most_frames, timings))
        self.graphs.append(graph)
        if self.fails is not None:
            raise self.fails
        return b"engine %d of %d bytes" % (len(self.compiled), len(graph)), timings + b"+"

    def tools(self, check: tuple[str, ...]) -> Tools:
        return Tools(Machine(self.find, self.capability), self.compile, check)
