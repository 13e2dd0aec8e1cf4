"""Opening a bundle: select, check the bytes, load, compare with what the manifest promised."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from edgevision.bundle.directory import Bundle, settled
from edgevision.bundle.files import PathLike
from edgevision.bundle.manifest import Stage
from edgevision.bundle.printable import printable
from edgevision.bundle.state import engines_place
from edgevision.bundle.trust import Trust
from edgevision.errors import EngineLoadError, UnverifiedError
from edgevision.machine.identity import machine_name
from edgevision.runtime.backends.program import Program, make_program
from edgevision.runtime.device.device import Device
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions
from edgevision.runtime.select import Selection, select
from edgevision.runtime.session import Session
from edgevision.runtime.slots.slots import NO_STATE
from edgevision.tasks.decoders import bundle_decoder, state_names

if TYPE_CHECKING:  # what not every load needs is imported by what does: half of its time
    from edgevision.bundle.record import EngineFolder
    from edgevision.runtime.streaming import StreamingCaptioner


_log = logging.getLogger(__name__)
_DEFAULTS = RunOptions()


def load(
    bundle: PathLike | Bundle,
    *,
    device: str = "auto",
    binding: str = "auto",
    options: RunOptions = _DEFAULTS,
    require_signature: PathLike | Sequence[PathLike] | None = None,
    minimum_version: int = 0,
    expected_name: str | None = None,
    engines: PathLike | None = None,
    allow_unverified: bool = False,
    target: str | None = None,
) -> Model[Any]:
    """Open a bundle and make its model ready to run; never builds or falls back silently.

    On a GPU it is run once, so that no frame pays for what is slow at first. On a CPU the first
    frame pays for the memory that the runtime allocates; `model.session.warm_up()` runs it before.
    ONNX Runtime's telemetry is off, unless it was imported before or ORT_DISABLE_TELEMETRY is set.

    Args:
        bundle: the bundle's directory, or an open bundle.
        device: "auto" takes a GPU artifact that fits and else the CPU's; "cpu" or "cuda" insist.
        binding: how the GPU is driven: "cuda-bindings", "pycuda", or the first that works.
        options: slots, graphs, priority.
        require_signature: a public key's file, or several, as while keys change; a bundle that
            none of them signed is refused, and one that is older than what ran on this device,
            which is kept in its state directory (EDGEVISION_STATE).
        minimum_version: a signed bundle below it is refused.
        expected_name: a bundle of another model is refused; a key by itself takes every net of its
            maker. The name is in the manifest, which the signature covers.
        engines: where the engines finished on this machine lie. By default in this device's state
            directory, where only those are believed whose record this device wrote. In a folder
            that is named here, whoever can write there is trusted.
        allow_unverified: run such an engine though its proof is not valid; a warning says so.
        target: the target whose artifact runs, e.g. "openvino-cpu"; by default what fits best.

    Returns:
        The model; close it, or use it in a `with` statement. `explain()` says what was chosen.

    Raises:
        BundleError: it is not a bundle, it was changed, or nothing in it fits this machine.
        SignatureError: it is unsigned, signed by another, changed since, too old, or another model.
        UnverifiedError: an engine finished on this machine has no valid proof, or lies beside the
            bundle, which is not named.
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

    def loaded(opened: Bundle) -> Model[Any]:
        manifest = opened.manifest
        if len(manifest.stages) != 1:
            raise EngineLoadError(
                f"'{manifest.name}' has {len(manifest.stages)} stages, load() runs one. A "
                "captioner built with form='step' opens with edgevision.load_streaming."
            )
        decoder = bundle_decoder(manifest, opened.read)
        stage = manifest.stages[0]
        selection = select(
            stage,
            device=device,
            beside=engines_beside(opened, engines),
            allow_unverified=allow_unverified,
            target=target,
            bundle=opened.root,
        )
        _log.info("%s: %s", manifest.name, selection)
        session = open_session(
            opened,
            stage,
            selection,
            binding=binding,
            options=options,
            state=state_names(manifest.settings, stage),
        )
        try:
            if session.program.device.capabilities.async_copies:
                session.warm_up()
            return Model(manifest, session, selection, decoder)
        except BaseException:
            session.close()
            raise

    trust = Trust.of(require_signature, minimum_version, expected_name)
    return _checked(bundle, trust, loaded)


def load_streaming(
    bundle: Bundle | PathLike,
    *,
    device: str = "auto",
    binding: str = "auto",
    options: RunOptions = _DEFAULTS,
    require_signature: PathLike | Sequence[PathLike] | None = None,
    minimum_version: int = 0,
    expected_name: str | None = None,
    engines: PathLike | None = None,
    allow_unverified: bool = False,
    target: str | None = None,
) -> StreamingCaptioner:
    """Open a bundle of a captioner that was built with form="step"; see `load`.

    Raises:
        BundleError: there is no such bundle, it was changed, or nothing in it fits this machine.
        EngineLoadError: an artifact that fits does not load.
        MissingDependencyError: an artifact that fits needs a package that is not installed.
        CudaError: the GPU cannot be used, or its memory is full.

    Example:
        >>> with edgevision.load_streaming("say.ev") as captioner:  # doctest: +SKIP
        ...     print(*captioner.words(frame))
    """
    from edgevision.runtime.streaming import StreamingCaptioner
    from edgevision.tasks.caption import TASK as CAPTION

    _check(binding, options)

    def loaded(opened: Bundle) -> StreamingCaptioner:
        manifest = opened.manifest
        decoder, end, max_length = CAPTION.streaming(manifest, opened.read)
        beside = engines_beside(opened, engines)
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
        gpu = _gpu(binding) if chosen[0].on_gpu else None
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

    trust = Trust.of(require_signature, minimum_version, expected_name)
    return _checked(bundle, trust, loaded)


def load_words(bundle: Bundle | PathLike, **options: Any) -> StreamingCaptioner:
    """Call `load_streaming`, which this was called before 0.2."""
    warnings.warn(
        "edgevision.load_words is now edgevision.load_streaming, and goes in 0.3",
        DeprecationWarning,
        stacklevel=2,
    )
    return load_streaming(bundle, **options)


def engines_beside(bundle: Bundle, engines: PathLike | None = None) -> list[EngineFolder]:
    """Return the engines that were finished on this device, with what speaks against each.

    Args:
        bundle: what they were finished for.
        engines: where they lie; None for this device's place.

    Raises:
        UnverifiedError: there are some beside the bundle, which nobody named, or the folder cannot
            be listed.
    """
    beside = bundle.root.with_name(f"{bundle.root.name}.engines")
    if engines is None and os.path.lexists(beside):
        from edgevision.bundle.record import finish_command

        raise UnverifiedError(
            f"'{printable(beside)}' holds engines beside the bundle, and whoever can write there "
            "decides what runs. If only this device can, name the folder: --engines DIR, engines= "
            "in Python; or remove it, and finish them in this device's own place: "
            f"{finish_command(bundle.root, 'TARGET')}",
            command="",
        )
    with contextlib.suppress(FileNotFoundError):  # whoever has no home has no place
        if engines is None and not os.path.lexists(engines_place(bundle.root)):
            return []
    from edgevision.bundle.record import finished

    return finished(bundle, engines, machine_name)


def _gpu(binding: str) -> Device:
    from edgevision.runtime.device.cuda.device import cuda_device

    return cuda_device(binding=binding)


def _check(binding: str, options: RunOptions) -> None:
    """Refuse wrong arguments also where this machine would not get as far as using them."""
    if binding != "auto":
        from edgevision.runtime.device.cuda.device import check_binding

        check_binding(binding)
    if not isinstance(options, RunOptions):
        raise TypeError(f"options: got {type(options).__name__}, expected edgevision.RunOptions")


class _Loaded(Protocol):
    def close(self) -> None: ...


_L = TypeVar("_L", bound=_Loaded)


def _checked(bundle: PathLike | Bundle, trust: Trust, load: Callable[[Bundle], _L]) -> _L:
    """Return what `load` makes of a bundle, of which nothing was changed.

    What it reads is compared with its hash before it is used, and all the other files beside that
    on a thread of their own: runtimes take their time over a graph, and hold no lock meanwhile.
    """
    if isinstance(bundle, Bundle):
        return _kept(load(trust.open(bundle)), trust, bundle)
    path = Path(bundle)

    def attempt() -> _L:
        opened = trust.open(Bundle.open(path, check_hashes=False))
        hashes = _Beside(opened.check_hashes)
        try:
            loaded = load(opened)
        except Exception:
            hashes.join()  # a file that was changed explains what failed
            raise
        try:
            hashes.join()
        except BaseException:
            loaded.close()
            raise
        return _kept(loaded, trust, opened)

    return settled(path, attempt)


class _Beside:
    """Work on a thread of its own, or here and now where none can be started."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="edgevision hashes", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._run()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def join(self) -> None:
        """Wait for it, and raise what it raised."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error


def _kept(loaded: _L, trust: Trust, opened: Bundle) -> _L:
    """Note the version that runs: only now, so that one that does not run bars no earlier one."""
    try:
        trust.keep(opened)
    except BaseException:
        loaded.close()
        raise
    return loaded


def open_session(
    bundle: Bundle,
    stage: Stage,
    selection: Selection,
    *,
    binding: str = "auto",
    options: RunOptions = _DEFAULTS,
    state: Mapping[str, str] = NO_STATE,
) -> Session:
    """Open the session of the chosen artifact, and check that it takes what the stage says.

    With `state` it is handed from run to run; without, every tensor is fed and given.

    Raises:
        EngineLoadError: it does not load, or its tensors are not those of the manifest.
        CudaError: the GPU cannot be used, or its memory is full.
    """
    device = _gpu(binding) if selection.on_gpu else None
    program = open_program(bundle, stage, selection, device, options)
    return Session(program, stage.profiles, options, state=state)


def open_program(
    bundle: Bundle, stage: Stage, selection: Selection, device: Device | None, options: RunOptions
) -> Program:
    """Load the chosen artifact on `device`, None for the host, and check its tensors.

    Raises:
        EngineLoadError: it does not load, or its tensors are not those of the manifest.
    """
    artifact = selection.artifact
    data = selection.read(bundle, stage.name)
    program = make_program(data, artifact.flavour, device, options)
    if (program.inputs, program.outputs) != (stage.inputs, stage.outputs):
        program.close()
        found = ", ".join(str(spec) for spec in (*program.inputs, *program.outputs))
        promised = ", ".join(str(spec) for spec in (*stage.inputs, *stage.outputs))
        raise EngineLoadError(
            f"'{artifact.path}' has {found}; the manifest promises {promised}. Build it again."
        )
    return program
