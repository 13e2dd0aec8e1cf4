"""Opening a bundle: select, check the bytes, load, compare with what the manifest promised."""

from __future__ import annotations

import logging
import os

from edgevision.bundle import Bundle
from edgevision.errors import EngineLoadError
from edgevision.manifest import Stage
from edgevision.runtime.backends.ort import OrtProgram
from edgevision.runtime.backends.trt import trt_program
from edgevision.runtime.backends.trt_rtx import trt_rtx_program
from edgevision.runtime.cuda.device import cuda_device
from edgevision.runtime.device import Device
from edgevision.runtime.model import Model, task_of
from edgevision.runtime.options import RunOptions
from edgevision.runtime.program import Program
from edgevision.runtime.select import Selection, select
from edgevision.runtime.session import Session
from edgevision.targets import Flavour

_log = logging.getLogger(__name__)
_DEFAULTS = RunOptions()


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    device: str = "auto",
    binding: str = "auto",
    options: RunOptions = _DEFAULTS,
) -> Model:
    """Open a bundle, make its model ready and run it once; never builds or falls back silently.

    Args:
        bundle: the bundle's directory, or an open bundle.
        device: "auto" takes a GPU artifact that fits and else the CPU's; "cpu" or "cuda" insist.
        binding: how the GPU is driven: "cuda-bindings", "pycuda", or the first that works.
        options: slots, graphs, priority.

    Returns:
        The model; close it, or use it in a `with` statement. `explain()` says what was chosen.

    Raises:
        BundleError: it is no bundle, it was changed, or nothing in it fits this machine.
        EngineLoadError: the artifact that fits does not load.
        MissingDependencyError: the artifact that fits needs a package that is not installed.
        CudaError: the GPU cannot be used, or its memory is full.

    Example:
        >>> with edgevision.load("road.ev") as model:  # doctest: +SKIP
        ...     mask = model(frame).mask
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    manifest = opened.manifest
    if len(manifest.stages) != 1:
        raise EngineLoadError(
            f"'{manifest.name}' has {len(manifest.stages)} stages; this edgevision runs one."
        )
    task = task_of(manifest, opened.read)
    stage = manifest.stages[0]
    selection = select(stage, device=device)
    _log.info("%s: %s", manifest.name, selection)
    session = open_session(opened, stage, selection, binding=binding, options=options)
    try:
        session.warm_up()
        return Model(manifest, session, selection, task)
    except BaseException:
        session.close()
        raise


def open_session(
    bundle: Bundle,
    stage: Stage,
    selection: Selection,
    *,
    binding: str = "auto",
    options: RunOptions = _DEFAULTS,
) -> Session:
    """Open the session of the chosen artifact, and check that it takes what the stage says.

    Raises:
        EngineLoadError: it does not load, or its tensors are not those of the manifest.
        CudaError: the GPU cannot be used, or its memory is full.
    """
    artifact = selection.artifact
    assert artifact.path is not None  # `select` never chooses a pending one
    data = bundle.read(artifact.path)
    device = cuda_device(binding=binding) if selection.on_gpu else None
    program = _program(data, artifact.flavour, device, options)
    if (program.inputs, program.outputs) != (stage.inputs, stage.outputs):
        program.close()
        found = ", ".join(str(spec) for spec in (*program.inputs, *program.outputs))
        promised = ", ".join(str(spec) for spec in (*stage.inputs, *stage.outputs))
        raise EngineLoadError(
            f"'{artifact.path}' has {found}; the manifest promises {promised}. Build it again."
        )
    return Session(program, stage.profiles, options)


def _program(data: bytes, flavour: Flavour, device: Device | None, options: RunOptions) -> Program:
    if device is None or flavour is Flavour.ORT:
        return OrtProgram(data, device=device, cpu_threads=options.cpu_threads)
    if flavour is Flavour.TRT:
        return trt_program(data, device)
    return trt_rtx_program(data, device, graph=options.graph)
