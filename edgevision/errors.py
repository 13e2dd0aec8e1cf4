"""Every exception that edgevision raises.

    EdgeVisionError
    ├── ExportError               a model could not be turned into the graph asked for
    ├── BuildError                an engine could not be built (`log`: what the builder said)
    │   └── InsufficientMemoryError  too little memory to build it now
    ├── ParityError               a graph or engine disagrees with its reference (`report`)
    ├── BundleError
    │   ├── BundleFormatError     not a bundle, or one this version cannot read
    │   ├── BundleIntegrityError  files differ from what the manifest lists
    │   ├── SignatureError        unsigned, of another key, changed since, too old, another model
    │   └── TargetMismatchError   nothing in the bundle fits this machine
    │       ├── PendingError      what fits is not built yet (`command`: what finishes it)
    │       └── UnverifiedError   an engine of this machine has no valid proof (`command`)
    ├── RunError
    │   ├── EngineLoadError       an artifact that should load did not
    │   ├── FrameError            an input of the wrong dtype, shape or content
    │   ├── WrongTaskError        a call that models of this task do not have
    │   ├── CudaError             a CUDA call failed (`code`: the driver's number for why)
    │   ├── HazardError           the simulated device saw a race; never raised by a real one
    │   ├── StalledError          the device has not answered for too long
    │   ├── FrameDroppedError     a frame was dropped by policy: it has no result
    │   ├── FrameLostError        a frame was in the pipeline when the engine failed
    │   ├── CallbackError         a callback raised (`ticket`: of the frame taken meanwhile)
    │   └── ClosedError           used after `close()`
    │       └── StaleViewError    a view of outputs whose memory was used again
    ├── FileReadError             a user's file is missing, empty, corrupt or of the wrong kind
    ├── FileWriteError            a file cannot be written, or exists and is not replaced
    └── MissingDependencyError    an optional package is missing (also an ImportError)

Plain misuse of a function (an unknown name, a value out of range) stays ValueError or TypeError.
Each message says what happened, what was found and expected, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevision.bundle.parity import ParityReport
    from edgevision.runtime.stream.ticket import Ticket


class EdgeVisionError(Exception):
    """Root of every error that edgevision raises on purpose."""


class ExportError(EdgeVisionError):
    """A model could not be turned into the graph asked for."""


class BuildError(EdgeVisionError):
    """An engine could not be built; `log` keeps what the builder said."""

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class InsufficientMemoryError(BuildError):
    """An engine could not be built with the memory that is free now."""


class ParityError(EdgeVisionError):
    """A graph or engine disagrees with its reference; `report` says where and by how much."""

    def __init__(self, message: str, *, report: ParityReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class BundleError(EdgeVisionError):
    """Something is wrong with a bundle."""


class BundleFormatError(BundleError):
    """The directory is not a bundle, or one that this version cannot read."""


class BundleIntegrityError(BundleError):
    """The bundle's files differ from what its manifest lists."""


class SignatureError(BundleError):
    """The bundle is unsigned, of another key, changed since, too old, or of another model."""


class TargetMismatchError(BundleError):
    """Nothing in the bundle fits this machine."""


class PendingError(TargetMismatchError):
    """What fits this machine is not built yet; `command` finishes it."""

    # Unpickling calls it with only the message; what else it holds follows.
    def __init__(self, message: str, *, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class UnverifiedError(TargetMismatchError):
    """An engine finished on this machine has no valid proof; `command` makes it again."""

    def __init__(self, message: str, *, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class RunError(EdgeVisionError):
    """Running a model failed."""


class EngineLoadError(RunError):
    """An artifact that fits this machine could not be loaded."""


class FrameError(RunError):
    """An input has the wrong dtype, shape or content."""


class WrongTaskError(RunError):
    """Models of this task do not have what was called, as `generate` of a segmenter."""


class CudaError(RunError):
    """A CUDA call failed; `code` is the driver's CUresult, 0 where it gave none."""

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class HazardError(RunError):
    """The simulated device saw work or memory used before it was ready; names both places."""


class StalledError(RunError):
    """The device has not answered for too long."""


class FrameDroppedError(RunError):
    """A frame was dropped by the pipeline's policy: it has no result."""


class FrameLostError(RunError):
    """A frame was in the pipeline when the engine failed: it has no result."""


class CallbackError(RunError):
    """A callback raised; `ticket` is of the frame that the call took all the same, or None."""

    def __init__(self, message: str, *, ticket: Ticket[Any] | None = None) -> None:
        super().__init__(message)
        self.ticket = ticket


class ClosedError(RunError):
    """A resource was used after `close()`."""


class StaleViewError(ClosedError):
    """A view of outputs was read after their memory was used again."""


class FileReadError(EdgeVisionError):
    """A file given by the user is missing, empty, corrupt or of the wrong kind."""


class FileWriteError(EdgeVisionError):
    """A file that the user names cannot be written, or exists already and is not replaced."""


class MissingDependencyError(EdgeVisionError, ImportError):
    """An optional package is missing; the message holds the pip line."""
