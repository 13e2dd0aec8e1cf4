"""The decoder and the proof that a bundle asks for: its task's, for each camera, without the state.

A task knows one frame and no state: what a graph has beside that is dealt with here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgevision.bundle.forms import Form
from edgevision.bundle.manifest import Manifest, Settings, Stage
from edgevision.bundle.parity import ParityReport, Tolerance
from edgevision.bundle.reading import Reader
from edgevision.bundle.tensors import Arrays, TensorSpec
from edgevision.errors import BundleFormatError
from edgevision.tasks.cameras import CamerasDecoder, camera_count, one_camera_stage
from edgevision.tasks.proof import Proof, element_tolerance
from edgevision.tasks.task import Decoder, Read, Task, bounded_read, get_task


def bundle_decoder(manifest: Manifest, read: Read) -> Decoder[Any]:
    """Return the decoder that a manifest asks for; `read` gives the bundle's files.

    Raises:
        BundleFormatError: this version does not know the task, or its settings are wrong.
        MissingDependencyError: the task needs a library that is not installed.
    """
    task = get_task(manifest.task)
    return decoder_from(task, manifest.settings, manifest.stages, bounded_read(manifest, read))


def decoder_from(
    task: Task[Any], settings: Settings, stages: tuple[Stage, ...], read: Read
) -> Decoder[Any]:
    """Return the decoder of graphs that a task's settings describe; see `Task.decoder`."""
    if len(stages) != 1:
        return task.decoder(settings, stages, read)
    stage = without_state(stages[0], state_names(settings, stages[0]))
    count = camera_count(settings)
    if count is None:
        return task.decoder(settings, (stage,), read)
    one = task.decoder(settings, (one_camera_stage(stage, count),), read)
    if one.camera is None:
        raise BundleFormatError(f"task {task}: it has no frames, and so no cameras")
    return CamerasDecoder(one, count)


def state_names(settings: Settings, stage: Stage) -> Mapping[str, str]:
    """Return what each run hands on to the next: the input's name, and the output's.

    Raises:
        BundleFormatError: they are not tensors of the graph, or not of one shape.
    """
    if "state" not in settings:
        return {}
    try:
        reader = Reader(settings, "settings").inner("state")
        names = {taken: reader.text(taken) for taken in reader.fields}
    except ValueError as error:
        raise BundleFormatError(f"state: {error}") from error
    inputs = {spec.name: spec for spec in stage.inputs}
    outputs = {spec.name: spec for spec in stage.outputs}
    if (
        not names.keys() < inputs.keys()
        or not set(names.values()) < outputs.keys()
        or len(set(names.values())) != len(names)
    ):
        raise BundleFormatError(
            f"state: {dict(list(names.items())[:8])} are not inputs of the graph and outputs, with "
            "one of each left over"
        )
    for taken, given in names.items():
        check_state(inputs[taken], outputs[given])
    return names


def check_state(taken: TensorSpec, given: TensorSpec) -> None:
    """Refuse a state that cannot be handed on.

    Raises:
        BundleFormatError: what is given is not what is taken, or its shape is not fixed.
    """
    if taken.is_dynamic or (taken.dtype, taken.shape) != (given.dtype, given.shape):
        raise BundleFormatError(
            f"state: the net takes {taken} and gives {given}; what one run gives is what the next "
            "takes, of one dtype and one shape"
        )


def without_state(stage: Stage, state: Mapping[str, str]) -> Stage:
    """Return a stage as it is to who feeds it: its state is neither fed nor given."""
    if not state:
        return stage
    given = set(state.values())
    return replace(
        stage,
        inputs=tuple(spec for spec in stage.inputs if spec.name not in state),
        outputs=tuple(spec for spec in stage.outputs if spec.name not in given),
        tolerances={name: bar for name, bar in stage.tolerances.items() if name not in given},
    )


def bundle_proof(manifest: Manifest) -> Proof:
    """Return how the outputs of a bundle's graphs are held against the golden ones.

    Raises:
        BundleFormatError: this version does not know the task.
    """
    return proof_from(get_task(manifest.task), manifest.settings, len(manifest.stages))


def proof_from(task: Task[Any], settings: Settings, stages: int) -> Proof:
    """Return how the outputs of a model of so many stages are held against its reference."""
    if stages != 1:
        return task.stage_proof
    state = settings.get("state")
    return _StatefulProof(task, list(map(str, state.values()))) if isinstance(state, dict) else task


class _StatefulProof(Proof):
    """A task's proof of its answers, and the state element by element."""

    def __init__(self, proof: Proof, names: Sequence[str]) -> None:
        self._proof, self._names = proof, names
        self.min_end_snr_db, self.wide_ends = proof.min_end_snr_db, proof.wide_ends

    def tolerances(self, form: Form, golden: Arrays) -> dict[str, Tolerance]:
        """Return the task's own, and the usual ones of the state."""
        found = self._proof.tolerances(form, self._answers(golden))
        return {**found, **{n: element_tolerance(form, golden[n]) for n in self._names}}

    def compare(
        self,
        reference: Arrays,
        candidate: Arrays,
        tolerances: Mapping[str, Tolerance],
        *,
        name: str,
    ) -> list[ParityReport]:
        """Hold the answers as the task does it, then the state."""
        bars = {key: bar for key, bar in tolerances.items() if key not in self._names}
        own = {key: tolerances[key] for key in self._names}
        sides = (self._answers(reference), self._answers(candidate))
        return [
            *self._proof.compare(*sides, bars, name=name),
            *super().compare(reference, candidate, own, name=name),
        ]

    def golden_reason(self, golden: Arrays) -> str:
        """Return what the task says of the answers."""
        return self._proof.golden_reason(self._answers(golden))

    def _answers(self, arrays: Arrays) -> Arrays:
        return {name: array for name, array in arrays.items() if name not in self._names}
