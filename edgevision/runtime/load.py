"""Opening a bundle: select, check the bytes, load, compare with what the manifest promised."""

from __future__ import annotations

import logging
import os

from edgevision.bundle import Bundle
from edgevision.errors import EngineLoadError
from edgevision.manifest import Stage
from edgevision.runtime.model import Model, task_of
from edgevision.runtime.select import Selection, select
from edgevision.runtime.session import Session

_log = logging.getLogger(__name__)


def load(bundle: str | os.PathLike[str] | Bundle, *, device: str = "auto") -> Model:
    """Open a bundle and make its model ready; never builds, downloads or falls back silently.

    Args:
        bundle: the bundle's directory, or an open bundle.
        device: "auto" takes a GPU artifact that fits and else the CPU's; "cpu" or "cuda" insist.

    Returns:
        The model; close it, or use it in a `with` statement. `explain()` says what was chosen.

    Raises:
        BundleError: it is no bundle, it was changed, or nothing in it fits this machine.
        EngineLoadError: the artifact that fits does not load.
        MissingDependencyError: the artifact that fits needs a package that is not installed.

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
    task_of(manifest)
    stage = manifest.stages[0]
    selection = select(stage, device=device)
    _log.info("%s: %s", manifest.name, selection)
    return Model(manifest, open_session(opened, stage, selection), selection)


def open_session(bundle: Bundle, stage: Stage, selection: Selection) -> Session:
    """Open the session of the chosen artifact, and check that it takes what the stage says.

    Raises:
        EngineLoadError: it does not load, or its tensors are not those of the manifest.
    """
    artifact = selection.artifact
    assert artifact.path is not None  # `select` never chooses a pending one
    session = Session.open(
        bundle.read(artifact.path), flavour=artifact.flavour, profiles=stage.profiles
    )
    if (session.inputs, session.outputs) != (stage.inputs, stage.outputs):
        session.close()
        found = ", ".join(str(spec) for spec in (*session.inputs, *session.outputs))
        promised = ", ".join(str(spec) for spec in (*stage.inputs, *stage.outputs))
        raise EngineLoadError(
            f"'{artifact.path}' has {found}; the manifest promises {promised}. Build it again."
        )
    return session
