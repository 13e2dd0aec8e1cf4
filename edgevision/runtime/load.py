"""Opening a bundle: select, check the bytes, load, compare with what the manifest promised."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from edgevision.bundle.directory import Bundle
from edgevision.bundle.manifest import Stage
from edgevision.bundle.printable import printable
from edgevision.bundle.record import Finished, engines_folder, finished
from edgevision.bundle.signature import check_signature
from edgevision.errors import EngineLoadError, SignatureError, UnverifiedError
from edgevision.machine.identity import machine_name
from edgevision.runtime.backends.program import Program, program_of
from edgevision.runtime.device.cuda.device import check_binding, cuda_device
from edgevision.runtime.device.device import Device
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions
from edgevision.runtime.select import Selection, select
from edgevision.runtime.session import Session
from edgevision.runtime.streaming import StreamingCaptioner
from edgevision.tasks.caption import TASK as CAPTION
from edgevision.tasks.task import decoder_of

_log = logging.getLogger(__name__)
_DEFAULTS = RunOptions()


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    device: str = "auto",
    binding: str = "auto",
    options: RunOptions = _DEFAULTS,
    require_signature: str | os.PathLike[str] | None = None,
    minimum_version: int = 0,
    expected_name: str | None = None,
    engines: str | os.PathLike[str] | None = None,
    allow_unverified: bool = False,
    target: str | None = None,
) -> Model[Any]:
    """Open a bundle, make its model ready and run it once; never builds or falls back silently.

    ONNX Runtime's telemetry is off, unless it was imported before or ORT_DISABLE_TELEMETRY is set.

    Args:
        bundle: the bundle's directory, or an open bundle.
        device: "auto" takes a GPU artifact that fits and else the CPU's; "cpu" or "cuda" insist.
        binding: how the GPU is driven: "cuda-bindings", "pycuda", or the first that works.
        options: slots, graphs, priority.
        require_signature: a public key's file; a bundle that it did not sign is refused.
        minimum_version: a signed bundle below it is refused, e.g. the last version that ran.
        expected_name: a bundle of another model is refused; a key alone takes every net of its
            maker. The name is in the manifest, which the signature covers.
        engines: where the engines finished on this machine lie; beside the bundle by default. No
            signature covers them: with `require_signature` a folder of them is used only if it is
            named here, and then whoever can write there is trusted.
        allow_unverified: run such an engine though its proof is not sound; a warning says so.
        target: the target whose artifact runs, e.g. "openvino-cpu"; by default what fits best.

    Returns:
        The model; close it, or use it in a `with` statement. `explain()` says what was chosen.

    Raises:
        BundleError: it is not a bundle, it was changed, or nothing in it fits this machine.
        SignatureError: it is unsigned, signed by another, changed since, too old, or another model.
        UnverifiedError: an engine finished on this machine has no sound proof, or lies in a folder
            that is not named though a signature is required.
        EngineLoadError: the artifact that fits does not load.
        MissingDependencyError: the artifact that fits needs a package that is not installed.
        CudaError: the GPU cannot be used, or its memory is full.
        ValueError: the device or binding is unknown.
        TypeError: `options` is of another type.

    Example:
        >>> with edgevision.load("road.ev") as model:  # doctest: +SKIP
        ...     mask = model(frame).mask
    """
    _check(binding, options)
    opened = _open(bundle, require_signature, minimum_version, expected_name)
    manifest = opened.manifest
    if len(manifest.stages) != 1:
        raise EngineLoadError(
            f"'{manifest.name}' has {len(manifest.stages)} stages, load() runs one. A captioner "
            "built with form='step' opens with edgevision.load_streaming."
        )
    decoder = decoder_of(manifest, opened.read)
    stage = manifest.stages[0]
    beside = engines_beside(opened, engines, must_be_named=require_signature is not None)
    selection = select(
        stage,
        device=device,
        beside=beside,
        allow_unverified=allow_unverified,
        target=target,
        bundle=opened.root,
    )
    _log.info("%s: %s", manifest.name, selection)
    session = open_session(opened, stage, selection, binding=binding, options=options)
    try:
        session.warm_up()
        return Model(manifest, session, selection, decoder)
    except BaseException:
        session.close()
        raise


def load_streaming(
    bundle: Bundle | str | os.PathLike[str],
    *,
    device: str = "auto",
    binding: str = "auto",
    options: RunOptions = _DEFAULTS,
    require_signature: str | os.PathLike[str] | None = None,
    minimum_version: int = 0,
    expected_name: str | None = None,
    engines: str | os.PathLike[str] | None = None,
    allow_unverified: bool = False,
    target: str | None = None,
) -> StreamingCaptioner:
    """Open a bundle of a captioner that was built with form="step"; see `load`.

    Raises:
        BundleError: it is no such bundle, it was changed, or nothing in it fits this machine.
        EngineLoadError: an artifact that fits does not load.
        MissingDependencyError: an artifact that fits needs a package that is not installed.
        CudaError: the GPU cannot be used, or its memory is full.

    Example:
        >>> with edgevision.load_streaming("say.ev") as captioner:  # doctest: +SKIP
        ...     print(*captioner.words(frame))
    """
    _check(binding, options)
    opened = _open(bundle, require_signature, minimum_version, expected_name)
    manifest = opened.manifest
    decoder, end, max_length = CAPTION.streaming(manifest, opened.read)
    beside = engines_beside(opened, engines, must_be_named=require_signature is not None)
    chosen = [
        select(
            stage,
            device=device,
            beside=beside,
            allow_unverified=allow_unverified,
            target=target,
            bundle=opened.root,
        )
        for stage in manifest.stages
    ]
    if len({selection.on_gpu for selection in chosen}) > 1:
        raise EngineLoadError(
            f"the stages of '{manifest.name}' would run on different devices: "
            f"{'; '.join(map(str, chosen))}. Build both for one target, or give device='cpu'."
        )
    gpu = cuda_device(binding=binding) if chosen[0].on_gpu else None
    programs: list[Program] = []
    try:
        for stage, selection in zip(manifest.stages, chosen, strict=True):
            programs.append(open_program(opened, stage, selection, gpu, options))
    except BaseException:
        for program in programs:
            program.close()
        raise
    return StreamingCaptioner(
        (programs[0], programs[1]),
        decoder,
        end=end,
        max_length=max_length,
        explained="\n".join(map(str, chosen)),
        options=options,
    )


def load_words(bundle: Bundle | str | os.PathLike[str], **options: Any) -> StreamingCaptioner:
    """Call `load_streaming`, which this was called before 0.2."""
    warnings.warn(
        "edgevision.load_words is now edgevision.load_streaming, and goes in 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return load_streaming(bundle, **options)


def engines_beside(
    bundle: Bundle,
    engines: str | os.PathLike[str] | None = None,
    *,
    must_be_named: bool = False,
) -> list[Finished]:
    """Return the engines that were finished on a device, with what speaks against each.

    Args:
        bundle: what they were finished for.
        engines: where they lie; beside the bundle by default.
        must_be_named: refuse such a folder unless `engines` names it, for the caller trusts a
            signature, which does not cover it.

    Raises:
        UnverifiedError: the folder is not named, or cannot be listed.
    """
    folder = engines_folder(bundle.root, engines)
    if must_be_named and engines is None and os.path.lexists(folder):
        raise UnverifiedError(
            f"'{printable(folder)}' holds engines that the bundle's signature does not cover: "
            "whoever can write there decides what runs. If only this device can, name the folder: "
            "--engines DIR, engines= in Python; or remove it to run what was signed",
            command="",
        )
    return finished(bundle, folder, machine_name)


def _check(binding: str, options: RunOptions) -> None:
    """Refuse wrong arguments also where this machine would not get as far as using them."""
    check_binding(binding)
    if not isinstance(options, RunOptions):
        raise TypeError(f"options: got {type(options).__name__}, expected edgevision.RunOptions")


def _open(
    bundle: str | os.PathLike[str] | Bundle,
    key: str | os.PathLike[str] | None,
    minimum_version: int,
    expected_name: str | None,
) -> Bundle:
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if key is not None:
        check_signature(opened, key, minimum_version=minimum_version)
    elif minimum_version:
        raise ValueError("minimum_version: without require_signature a version proves nothing")
    if expected_name is not None and opened.manifest.name != expected_name:
        raise SignatureError(
            f"'{opened.root}' is the model '{opened.manifest.name}', expected '{expected_name}': "
            "give the bundle that belongs here, or another expected_name"
        )
    return opened


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
    device = cuda_device(binding=binding) if selection.on_gpu else None
    return Session(open_program(bundle, stage, selection, device, options), stage.profiles, options)


def open_program(
    bundle: Bundle, stage: Stage, selection: Selection, device: Device | None, options: RunOptions
) -> Program:
    """Load the chosen artifact on `device`, None for the host, and check its tensors.

    Raises:
        EngineLoadError: it does not load, or its tensors are not those of the manifest.
    """
    artifact = selection.artifact
    data = selection.read(bundle, stage.name)
    program = program_of(data, artifact.flavour, device, options)
    if (program.inputs, program.outputs) != (stage.inputs, stage.outputs):
        program.close()
        found = ", ".join(str(spec) for spec in (*program.inputs, *program.outputs))
        promised = ", ".join(str(spec) for spec in (*stage.inputs, *stage.outputs))
        raise EngineLoadError(
            f"'{artifact.path}' has {found}; the manifest promises {promised}. Build it again."
        )
    return program
