"""From an ONNX file to engine bytes by any TensorRT flavour, handed its module.

Only names that TensorRT 10.3 to 11.4 and TensorRT-RTX all have are used unguarded. The contract
test reads this file and holds each against NVIDIA's bindings: annotate what comes from the module.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgevision.bundle.onnx_bytes import external_weights
from edgevision.bundle.tensors import DYNAMIC, Profiles, TensorSpec
from edgevision.engines.profiles import check_profiles
from edgevision.engines.request import BuildRequest
from edgevision.errors import BuildError
from edgevision.progress import Progress
from edgevision.runtime.backends.tensorrt_log import without_noise
from edgevision.runtime.backends.tensorrt_program import engine_dtypes

if TYPE_CHECKING:
    import tensorrt

Configure = Callable[["tensorrt.IBuilderConfig"], None]
"""Called with the builder's config to add what only one flavour has."""

_QUOTED_ERRORS = 3
_MAX_ERROR_CHARS = 500
_ADVICE = (
    ("zero point", "Quantise symmetrically: int8 with zero point 0."),
    ("UInt8", "Let Cast be the first op on a uint8 input, and the last before a uint8 output."),
    ("K exceeds", "Take fewer candidates: TopK goes to 3840."),
    ("plugin", "No target has this op. Write it with native ops and fixed sizes."),
    ("no runners", "No kernel does this op. Write it with native ops and fixed sizes."),
    ("ParseFromCodedStream", "Check that the file is ONNX and complete."),
    ("no outputs", "Check that the file is ONNX and complete."),
    ("workspace limit", "Raise workspace_bytes (--set workspace_bytes=1GB), or leave it out."),
    (
        "memory",
        "Close other programs, or lower workspace_bytes or optimization_level (--set KEY=VALUE).",
    ),
)


def build_plan(
    trt: ModuleType,
    request: BuildRequest,
    progress: Progress,
    configure: Configure | None = None,
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Build a strongly typed engine into `request.output`; return its inputs and outputs.

    Raises:
        BuildError: the graph cannot be parsed or built; names the node, quotes the builder.
    """
    name = request.target.name
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:
        # How the binding says that the library gave no builder.
        raise BuildError(f"TensorRT does not start: {_told(logger.errors)}") from error
    # The flag's value differs between 10 and 11: the bit is made from the loaded module.
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    if network is None:
        raise BuildError(f"TensorRT makes no network: {_told(logger.errors)}")
    graph = request.graph.read_bytes()
    try:
        found = external_weights(graph)
    except ValueError as error:
        raise BuildError(
            f"'{name}' refuses the graph: {error}. Check that the file is ONNX and complete."
        ) from error
    if found is not None:
        raise BuildError(
            f"the graph for '{name}' keeps the weights {found[:80]!r} in another file. Save it as "
            "one file"
        )
    parser = trt.OnnxParser(network, logger)
    # TensorRT-RTX takes some garbage for an empty network.
    if not parser.parse(graph) or not network.num_outputs:
        errors = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        payload = _told(errors[:_QUOTED_ERRORS] or ["it has no outputs"])
        raise BuildError(f"the parser for '{name}' refuses the graph: {payload}")
    inputs = tuple(_spec(trt, network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_spec(trt, network.get_output(i)) for i in range(network.num_outputs))
    config = builder.create_builder_config()
    if config is None:
        raise BuildError(f"TensorRT makes no builder config: {_told(logger.errors)}")
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    check_profiles(inputs, request.profiles)
    if request.profiles:
        profile = builder.create_optimization_profile()
        _fill_profile(profile, request.profiles)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"the builder refuses the profiles: {_told(logger.errors)}")
    monitor = make_monitor(trt, progress)
    config.progress_monitor = monitor
    if configure is not None:
        configure(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"no engine could be built for '{name}': {_told(logger.errors)}")
    request.output.write_bytes(plan)
    return inputs, outputs


def _fill_profile(profile: tensorrt.IOptimizationProfile, profiles: Profiles) -> None:
    for name, bounds in profiles.items():
        profile.set_shape(name, bounds.minimum, bounds.optimum, bounds.maximum)


def _parser_error(parser_error: tensorrt.ParserError) -> str:
    name, operator = parser_error.node_name(), parser_error.node_operator()
    said = str(parser_error.desc()).strip()
    if said.lower() in ("", "false"):  # the condition that failed, in place of a reason
        said = "it gives no reason; most likely it has no such operator"
    if not operator:
        return said
    return f"node '{name or parser_error.node()}' ({operator}): {said}"


def _told(errors: list[str]) -> str:
    """Return the last errors in the builder's words, and what to do about them."""
    said = [
        " ".join(without_noise(error))[:_MAX_ERROR_CHARS].rstrip(". ")
        for error in errors[-_QUOTED_ERRORS:]
    ]
    quoted = "; ".join(filter(None, said)) or "it gave no reason"
    advice = (advice for sign, advice in _ADVICE if sign in quoted)
    return f"{quoted}. {next(advice, 'The log has the rest.')}"


def _spec(trt: ModuleType, tensor: tensorrt.ITensor) -> TensorSpec:
    dtypes = engine_dtypes(trt)
    if tensor.dtype not in dtypes:
        supported = ", ".join(dtype.value for dtype in dtypes.values())
        raise BuildError(
            f"tensor '{tensor.name}' is {tensor.dtype}; supported are {supported}. Cast it in the "
            "graph"
        )
    shape = tuple(DYNAMIC if extent < 0 else int(extent) for extent in tensor.shape)
    try:
        return TensorSpec(tensor.name, dtypes[tensor.dtype], shape)
    except ValueError as error:
        raise BuildError(f"the graph has a tensor that no engine takes: {error}") from error


def make_logger(trt: ModuleType) -> Any:
    """Return a logger that prints (into the build's log) and remembers its `errors`."""
    bad = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            if severity in bad:
                self.errors.append(msg.strip())
            if severity != trt.ILogger.Severity.VERBOSE:
                # The child's stdout is the log.
                print(f"[{severity.name}] {msg.rstrip()}", flush=True)  # noqa: T201

    return Logger()


def make_monitor(trt: ModuleType, progress: Progress) -> Any:
    """Return a progress monitor that passes TensorRT's outermost phase on."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self.steps[phase_name] = num_steps
                progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                progress(phase_name, step + 1, self.steps[phase_name])
            return True

        def phase_finish(self, phase_name: str) -> None:
            if steps := self.steps.pop(phase_name, 0):
                progress(phase_name, steps, steps)

    return Monitor()
