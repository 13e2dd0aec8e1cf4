"""A loaded model: calls its session and decodes the answer as its task says."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgevision.errors import BundleFormatError, FrameError
from edgevision.manifest import Manifest
from edgevision.runtime.select import Selection
from edgevision.runtime.session import Session
from edgevision.runtime.tasks.semantic import SemanticResult, SemanticTask
from edgevision.runtime.tasks.tensors import TensorsResult

Array = npt.NDArray[np.generic]
Result = SemanticResult | TensorsResult


class Model:
    """A model ready to run; made by `edgevision.load`, safe to share between threads.

    Attributes:
        manifest: what the bundle says of itself.
        task: how answers are decoded; None for a model with plain tensors.
        session: the session beneath, for arrays in and arrays out.
    """

    def __init__(self, manifest: Manifest, session: Session, selection: Selection) -> None:
        self.manifest = manifest
        self.session = session
        self._selection = selection
        self.task = task_of(manifest)

    def __call__(self, frame: npt.NDArray[np.uint8] | Mapping[str, Array]) -> Result:
        """Run the model once.

        Args:
            frame: uint8[H, W, 3], host, of the size and channel order of `task`; for a model with
                plain tensors, its inputs by name.

        Raises:
            FrameError: the input has the wrong dtype or shape.
            ClosedError: the model is closed.
        """
        if self.task is None:
            if not isinstance(frame, Mapping):
                raise FrameError(
                    f"got {type(frame).__name__}, expected a dict of arrays: "
                    f"{', '.join(str(spec) for spec in self.session.inputs)}"
                )
            return TensorsResult(*self.session.run_timed(frame))
        if isinstance(frame, Mapping):
            raise FrameError("got a dict, expected one frame as a numpy array uint8[H, W, 3]")
        name = self.session.inputs[0].name
        return self.task.decode(*self.session.run_timed({name: self.task.feed(frame)}))

    def explain(self) -> str:
        """Say which artifact runs, why, and why the others do not."""
        return str(self._selection)

    def close(self) -> None:
        """Free what the model holds; safe to call twice."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def task_of(manifest: Manifest) -> SemanticTask | None:
    """Return the decoder that the manifest asks for; None for plain tensors.

    Raises:
        BundleFormatError: this version does not know the task, or its settings are wrong.
    """
    if manifest.task == "semantic":
        return SemanticTask.from_manifest(manifest.settings, manifest.stages)
    if manifest.task == "tensors":
        return None
    raise BundleFormatError(
        f"the bundle's task is '{manifest.task}', this edgevision knows semantic and tensors. "
        "Install a newer edgevision."
    )
