"""Several heads of one net on the run side: one frame in, a result of each head out.

An output's name says whose it is: HEAD.TASK.NAME, such as "road.semantic.classes".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy.typing as npt

from edgevision.bundle.forms import Form
from edgevision.bundle.manifest import Settings, Stage
from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.bundle.reading import Reader
from edgevision.bundle.tensors import Array, Arrays, Image, TensorSpec
from edgevision.errors import BundleFormatError
from edgevision.tasks.camera import CameraFrame, FrameDecoder
from edgevision.tasks.camera_task import CameraTask
from edgevision.tasks.task import Decoder, Read, Result, Summary, get_task
from edgevision.tasks.timings import Timings

MAX_HEADS = 16


def output_name(head: str, task: str, name: str) -> str:
    """Return what the graph calls an output of a head."""
    return f"{head}.{task}.{name}"


@dataclass(frozen=True, slots=True)
class MultiResult(Mapping[str, Any]):
    """What every head says of one frame: a mapping from its name to its task's result.

    Attributes:
        results: by the head's name.
        timings: how long it took, all heads together.
        tasks: whose result it is, by the head's name.
    """

    results: Mapping[str, Result]
    timings: Timings
    tasks: Mapping[str, str]

    def __getitem__(self, head: str) -> Any:
        """Return a head's result."""
        return self.results[head]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def summary(self) -> Summary:
        """Return what each head says, one behind the other."""
        said = {head: result.summary() for head, result in self.results.items()}
        text = "; ".join(f"{head}: {summary.text}" for head, summary in said.items())
        return Summary(text, {head: summary.fields for head, summary in said.items()})

    def pictures(self, frame: Image) -> dict[str, Image]:
        """Return each head's pictures, its name before their ends: ".road.overlay.jpg"."""
        return {
            f".{head}{end}": picture
            for head, result in self.results.items()
            for end, picture in result.pictures(frame).items()
        }


@dataclass(frozen=True, slots=True)
class MultiDecoder(FrameDecoder):
    """Turns frames into feeds and outputs into `MultiResult`.

    Attributes:
        heads: each head's task and decoder, by its name.
        camera: the frame that the graph takes.
    """

    heads: Mapping[str, tuple[str, Decoder[Any]]]
    camera: CameraFrame

    def decode(self, outputs: Mapping[str, Array], timings: Timings) -> MultiResult:
        """Return the result of one inference; see `Decoder`."""
        parts = _by_head(outputs)
        results = {
            head: decoder.decode(parts[head, task], timings)
            for head, (task, decoder) in self.heads.items()
        }
        tasks = {head: task for head, (task, _) in self.heads.items()}
        return MultiResult(results, timings, tasks)


class MultiTask(CameraTask[MultiResult]):
    """Several answers to one frame; each is held against its reference as its own task does it."""

    name = "multitask"
    golden_count = 8

    def decoder(self, settings: Settings, stages: tuple[Stage, ...], read: Read) -> MultiDecoder:
        """Return the decoder of one bundle; see `Task`."""
        stage, camera = self.read_camera(settings, stages)
        try:
            described = Reader(settings, "settings").inner("heads")
            heads = {head: described.inner(head).text("task") for head in described.fields}
            own = {head: described.inner(head).mapping("settings") for head in heads}
        except ValueError as error:
            raise BundleFormatError(f"task {self}: {error}") from error
        outputs = _by_head({spec.name: spec for spec in stage.outputs})
        if not 1 <= len(heads) <= MAX_HEADS or set(outputs) != set(heads.items()):
            raise BundleFormatError(
                f"task {self}: the settings name {sorted(heads.items())[:MAX_HEADS]}, the graph "
                f"gives {sorted(outputs)[:MAX_HEADS]}"
            )
        if self.name in heads.values():
            raise BundleFormatError(f"task {self}: a head cannot have heads of its own")
        shared = {key: value for key, value in settings.items() if key != "heads"}
        decoders = {
            head: (
                task,
                get_task(task).decoder(
                    {**shared, **cast(Settings, own[head])},
                    (_head_stage(stage, head, task, outputs[head, task]),),
                    read,
                ),
            )
            for head, task in heads.items()
        }
        return MultiDecoder(decoders, camera)

    def masks(self, result: MultiResult) -> dict[str, npt.NDArray[Any]]:
        """Return what each head's own task does, the head's name before: "road.classes"."""
        return {
            f"{head}.{name}": mask
            for head, task in result.tasks.items()
            for name, mask in get_task(task).masks(result[head]).items()
        }

    def tolerances(self, form: Form, golden: Arrays) -> dict[str, Tolerance]:
        """Return each head's own."""
        return {
            output_name(head, task, name): bar
            for (head, task), arrays in _by_head(golden).items()
            for name, bar in get_task(task).tolerances(form, arrays).items()
        }

    def compare(
        self,
        reference: Arrays,
        candidate: Arrays,
        tolerances: Mapping[str, Tolerance],
        *,
        name: str,
    ) -> list[ParityReport]:
        """Hold each head as its own task does it.

        Raises:
            ValueError: a head has nothing that could be compared.
        """
        others, bars = _by_head(candidate), _by_head(tolerances)
        return [
            report
            for (head, task), arrays in _by_head(reference).items()
            for report in get_task(task).compare(
                arrays, others[head, task], bars[head, task], name=f"{name}/{head}"
            )
        ]

    def compare_corners(
        self, reference: Arrays, candidate: Arrays, form: Form, *, name: str
    ) -> list[ParityReport]:
        """Hold each head as its own task does it."""
        others = _by_head(candidate)
        return [
            report
            for (head, task), arrays in _by_head(reference).items()
            for report in get_task(task).compare_corners(
                arrays, others[head, task], form, name=f"{name}/{head}"
            )
        ]

    def golden_reason(self, golden: Arrays) -> str:
        """Return why these answers prove nothing of a head."""
        for (head, task), arrays in _by_head(golden).items():
            if reason := get_task(task).golden_reason(arrays):
                return f"head '{head}': {reason}"
        return ""


def _by_head(named: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what is of each head and its task, by its own name there."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, value in named.items():
        head, _, rest = name.partition(".")
        task, _, own = rest.partition(".")
        found.setdefault((head, task), {})[own] = value
    return found


def _head_stage(stage: Stage, head: str, task: str, outputs: Mapping[str, TensorSpec]) -> Stage:
    """Return the stage as if the head were alone."""
    bars = _by_head(stage.tolerances).get((head, task), {})
    specs = tuple(TensorSpec(name, spec.dtype, spec.shape) for name, spec in outputs.items())
    return Stage(stage.name, stage.graph, stage.inputs, specs, bars)


TASK = MultiTask()
