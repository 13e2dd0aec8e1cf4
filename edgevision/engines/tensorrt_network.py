"""From an ONNX file to engine bytes by any TensorRT flavour, handed its module.

Only names that TensorRT 10.3 to 11.4 and TensorRT-RTX all have are used unguarded; the contract
test reads this file and holds each of them against NVIDIA's bindings. It knows what an object is by
its variable's name: builder, network, parser, parser_error, config, profile, tensor, logger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from edgevision.engines.builder import BuildRequest
from edgevision.errors import BuildError
from edgevision.progress import Progress
from edgevision.tensors import DYNAMIC, DType, ShapeProfile, TensorSpec

Configure = Callable[[Any, Any], None]
"""Called with (builder, config) to add what only one flavour has."""


def build_plan(
    trt: ModuleType, request: BuildRequest, progress: Progress, configure: Configure
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Build a strongly typed engine into `request.output`; return its inputs and outputs.

    Raises:
        BuildError: the graph cannot be parsed or built; names the node, quotes the builder.
    """
    logger = _logger(trt)
    builder = trt.Builder(logger)
    # The flag's value differs between 10 and 11: the bit is made from the loaded module.
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser = trt.OnnxParser(network, logger)
    # TensorRT-RTX takes some garbage for an empty network.
    if not parser.parse(request.graph.read_bytes()) or not network.num_outputs:
        raise BuildError(_parser_message(parser, request.target.name))
    inputs = tuple(_spec(trt, network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_spec(trt, network.get_output(i)) for i in range(network.num_outputs))
    config = builder.create_builder_config()
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if request.optimization_level is not None:
        config.builder_optimization_level = request.optimization_level
    _add_profile(builder, config, inputs, request.profiles)
    monitor = _monitor(trt, progress)
    config.progress_monitor = monitor
    configure(builder, config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = "; ".join(logger.errors[-3:]) or "it gave no reason"
        raise BuildError(f"no engine could be built for '{request.target.name}': {said}")
    request.output.write_bytes(plan)
    return inputs, outputs


def _add_profile(
    builder: Any,
    config: Any,
    inputs: tuple[TensorSpec, ...],
    profiles: Mapping[str, ShapeProfile],
) -> None:
    dynamic = [spec for spec in inputs if spec.is_dynamic]
    if missing := [str(spec) for spec in dynamic if spec.name not in profiles]:
        raise BuildError(f"dynamic inputs need a profile: {', '.join(missing)}")
    if not dynamic:
        return
    profile = builder.create_optimization_profile()
    for spec in dynamic:
        bounds = profiles[spec.name]
        profile.set_shape(spec.name, bounds.minimum, bounds.optimum, bounds.maximum)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"the builder refuses the profiles {dict(profiles)}")


def _parser_message(parser: Any, target: str) -> str:
    said = "; ".join(_parser_error(parser.get_error(i)) for i in range(min(3, parser.num_errors)))
    return (
        f"the parser for '{target}' refuses the graph: {said or 'no reason given'}. Rewrite that "
        "node without the op or type it names."
    )


def _parser_error(parser_error: Any) -> str:
    name, operator = parser_error.node_name(), parser_error.node_operator()
    return f"node '{name}' ({operator}): {parser_error.desc().strip()}"


def _spec(trt: ModuleType, tensor: Any) -> TensorSpec:
    dtypes = {
        trt.DataType.BOOL: DType.BOOL,
        trt.DataType.UINT8: DType.UINT8,
        trt.DataType.INT8: DType.INT8,
        trt.DataType.INT32: DType.INT32,
        trt.DataType.INT64: DType.INT64,
        trt.DataType.HALF: DType.FLOAT16,
        trt.DataType.FLOAT: DType.FLOAT32,
    }
    if tensor.dtype not in dtypes:
        raise BuildError(f"tensor '{tensor.name}' has type {tensor.dtype}, which is not supported")
    shape = tuple(DYNAMIC if extent < 0 else int(extent) for extent in tensor.shape)
    return TensorSpec(tensor.name, dtypes[tensor.dtype], shape)


def _logger(trt: ModuleType) -> Any:
    """Return a logger that prints (into the build's log) and remembers errors."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message.strip()[:500])
            if severity != trt.ILogger.Severity.VERBOSE:
                # The child's stdout is the log.
                print(f"[{severity.name}] {message}", flush=True)  # noqa: T201

    return Logger()


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    """Return a progress monitor that passes TensorRT's outermost phase on."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if not parent:
                self.phases[name] = steps
                progress(name, 0, steps)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.phases:
                progress(name, step, self.phases[name])
            return True

        def phase_finish(self, name: str) -> None:
            if steps := self.phases.pop(name, 0):
                progress(name, steps, steps)

    return Monitor()
