"""Compiles a trunk with TensorRT or TensorRT-RTX, by names and arguments that 10.3 to 11 share.

What is compiled, and in which precision, is in the graph: see `precision`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.precision import FRAMES
from inspection.engines import Provider, dotted
from inspection.errors import DualbankError, InputError

MOST_FRAMES = 8
"""Frames, or views of one frame, that an engine takes at once: a batch fills a GPU long before
that, and the space an engine asks for grows with it."""

WORKSPACE_BYTES = 1 << 30
"""What a layer may take beside its tensors. More brings nothing to a trunk, and an Orin has 8 GB
that it shares with the CPU."""


class CompileError(DualbankError):
    """A graph became no engine: no compiler, an operator it does not know, no memory."""


@dataclass(frozen=True, slots=True)
class InstalledProvider:
    """A compiler that is installed here.

    Attributes:
        name: Which.
        version: Of the library, whole.
        module: Its Python bindings.
    """

    name: Provider
    version: str
    module: Any

    @property
    def keeps_timings(self) -> bool:
        """Whether it has a timing cache: that of TensorRT-RTX does nothing since 1.2."""
        return self.name == "tensorrt"


def find_provider(name: Provider) -> InstalledProvider:
    """Import a compiler, only now: it is large, and most commands need none.

    Raises:
        CompileError: It is not installed.
    """
    try:
        module = _tensorrt() if name == "tensorrt" else _tensorrt_rtx()
    except (ImportError, OSError) as error:
        package = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}[name]
        raise CompileError(
            f"{name} is not installed here; install {package}, or use --plan ({error})"
        ) from error
    return InstalledProvider(name, str(module.__version__), module)


def check_capability(provider: InstalledProvider, capability: tuple[int, int]) -> None:
    """Refuse a chip that TensorRT-RTX does not list.

    Raises:
        InputError: It lists others, which are named.
    """
    listed = provider.module.ComputeCapability.__members__
    if _listed_as(capability) not in listed:
        known = ", ".join(
            dotted(divmod(int(each[2:]), 10)) for each in listed if each.startswith("SM")
        )
        raise InputError(
            f"{provider.name} {provider.version} does not compile for compute capability "
            f"{dotted(capability)}; it does for {known}"
        )


def compile_trunk(
    provider: InstalledProvider,
    graph: bytes,
    capability: tuple[int, int],
    most_frames: int = MOST_FRAMES,
    timing_cache: bytes = b"",
) -> tuple[bytes, bytes]:
    """Compile a graph for chips of one compute capability.

    Args:
        provider: The compiler. TensorRT compiles for the GPU that is here, whatever is said.
        graph: ONNX: `frames` (B, S, S, 3) uint8 → `patch_features` (B, P, D) float32.
        capability: Compute capability (major, minor).
        most_frames: Largest B that the engine takes, >= 1; 1 is what it is fast for.
        timing_cache: Of an earlier compilation with this version on this GPU, or nothing.

    Returns:
        The engine, and a timing cache for the next compilation.

    Raises:
        CompileError: The graph cannot be compiled; the node is named where the compiler names it.
    """
    trt = provider.module
    said: list[tuple[Any, str]] = []
    logger = _listener(trt, said)
    builder = trt.Builder(logger)
    # In 11 there is no other kind of network; before, it must be asked for.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    _parse(parser, graph)
    config = builder.create_builder_config()
    # TF32 has 10 bits of mantissa: FP32 must mean FP32, or nothing tells what INT8 costs.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if provider.name == "tensorrt_rtx":
        _aim(trt, config, capability)
    _shape(builder, network, config, most_frames)
    if provider.keeps_timings:
        cache = config.create_timing_cache(timing_cache)
        if cache is None or not config.set_timing_cache(cache, False):
            raise CompileError(
                "the timing cache is of another TensorRT or of another GPU; remove it, or name "
                f"another file{_in_words(trt, said)}"
            )
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise CompileError(
            f"{provider.name} {provider.version} built nothing for compute capability "
            f"{dotted(capability)}{_in_words(trt, said)}"
        )
    if provider.keeps_timings:
        timings = config.get_timing_cache()
        timing_cache = bytes(timings.serialize())
    return bytes(plan), timing_cache


def _tensorrt() -> Any:
    import tensorrt

    return tensorrt


def _tensorrt_rtx() -> Any:
    try:
        import tensorrt_rtx
    except ImportError:
        # The wheel of the bindings, without the one that gives them their short name.
        import tensorrt_rtx_bindings

        return tensorrt_rtx_bindings
    return tensorrt_rtx


def _listener(trt: Any, said: list[tuple[Any, str]]) -> Any:
    """Make a logger that keeps warnings and errors, and prints nothing."""
    worth_keeping = (
        trt.ILogger.Severity.WARNING,
        trt.ILogger.Severity.ERROR,
        trt.ILogger.Severity.INTERNAL_ERROR,
    )

    # The library asks for a class of its own tree.
    class Listener(trt.ILogger):  # type: ignore[misc]
        """Called from threads of the builder: appending to a list is safe there."""

        def __init__(self) -> None:
            # Not super(): pybind11 wants its own constructor called by name.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in worth_keeping:
                said.append((severity, msg))

    return Listener()


def _in_words(trt: Any, said: list[tuple[Any, str]]) -> str:
    """What the compiler said on the way, on one line: its errors, or else its warnings."""
    errors = [text for severity, text in said if severity != trt.ILogger.Severity.WARNING]
    texts = errors or [text for _, text in said]
    return "".join(f"; it said: {' '.join(text.split())}" for text in texts[-3:])


def _parse(parser: Any, graph: bytes) -> None:
    if parser.parse(graph):
        return
    reasons = []
    for number in range(parser.num_errors):
        error = parser.get_error(number)
        reasons.append(
            f"node {error.node()} {error.node_name()!r}, operator {error.node_operator()!r}: "
            f"{' '.join(error.desc().split())}"
        )
    raise CompileError(
        f"the compiler does not take this graph: {'; '.join(reasons) or 'it gives no reason'}"
    )


def _aim(trt: Any, config: Any, capability: tuple[int, int]) -> None:
    """Compile for one chip, which need not be here."""
    listed = getattr(trt.ComputeCapability, _listed_as(capability))
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(listed, 0):
        raise CompileError(f"the compiler refused compute capability {dotted(capability)}")


def _shape(builder: Any, network: Any, config: Any, most_frames: int) -> None:
    """Take 1 to `most_frames` frames at once, and be fast for one."""
    if network.num_inputs != 1 or network.get_input(0).name != FRAMES:
        raise CompileError(f"the compiler found no input {FRAMES!r} in this graph")
    side = tuple(network.get_input(0).shape)[1:]
    profile = builder.create_optimization_profile()
    profile.set_shape(FRAMES, (1, *side), (1, *side), (most_frames, *side))
    if config.add_optimization_profile(profile) < 0:
        raise CompileError(f"the compiler refused 1 to {most_frames} frames of {side}")


def _listed_as(capability: tuple[int, int]) -> str:
    major, minor = capability
    return f"SM{major}{minor}"
