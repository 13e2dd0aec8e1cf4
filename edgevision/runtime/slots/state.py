"""State that stays on the device: of a search that is stepped on, or of a stream of frames.

Of a search, two slots take turns, and each reads what the other wrote: nothing is copied. Frames
come in whatever slot is free, so their state is copied on the device, behind each run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from edgevision.bundle.tensors import NEXT, TensorSpec
from edgevision.errors import CudaError, EngineLoadError
from edgevision.runtime.backends.program import Program
from edgevision.runtime.device.device import Device, Stream
from edgevision.runtime.device.memory import Array, Buffer
from edgevision.runtime.options import RunOptions
from edgevision.runtime.slots.feeds import Feed
from edgevision.runtime.slots.slot import Slot

_DEFAULTS = RunOptions()


class StatefulRun:
    """Runs `begin` once and `step` as often as wanted, on one stream; one thread at a time.

    The step takes all that `begin` gives. What it gives as `X_next` is the `X` of the next step;
    all else that it gives is the caller's. The programs stay the caller's.
    """

    def __init__(
        self,
        begin: Program,
        step: Program,
        options: RunOptions = _DEFAULTS,
        *,
        told: Collection[str] = (),
    ) -> None:
        """Allocate and bind everything, and capture graphs where the device can.

        Args:
            begin: what makes the state.
            step: what takes and renews it.
            options: how both run.
            told: which `X_next` the host is to see as well.

        Raises:
            EngineLoadError: the step does not take what `begin` gives, or what it gave itself.
            CudaError: the memory is full.
        """
        carried = carried_names(begin, step)
        self._device = device = step.device
        self._options = replace(options, timing=False)  # nobody asks
        self._closers: list[Buffer | Slot] = []
        self._turn = 0
        with device.active():
            self._stream = device.stream(priority=options.priority)
            try:
                first = {spec.name: self._allocate(spec) for spec in begin.outputs}
                renewed = {s.name: self._allocate(s) for s in begin.outputs if s.name in carried}
                second = {**first, **renewed}
                self._begin = self._slot(begin, first)
                self._steps = [
                    self._slot(step, {**read, **{n + NEXT: written[n] for n in carried}}, told)
                    for read, written in ((first, second), (second, first))
                ]
            except BaseException:
                self.close()
                raise

    def begin(self, feeds: Mapping[str, Feed]) -> None:
        """Queue the first program on `feeds`, which were checked; copied before this returns.

        Raises:
            RunError: the engine or the device failed.
        """
        self._turn = 0
        self._begin.fill(feeds)
        with self._device.active():
            self._begin.launch()

    def step(self) -> dict[str, Array]:
        """Run one step, and return what it tells; the arrays are the caller's own.

        Raises:
            RunError: the engine or the device failed.
        """
        slot = self._steps[self._turn]
        slot.run()
        self._turn = 1 - self._turn
        return slot.outputs()

    def close(self) -> None:
        """Wait for the device, then free everything; safe to call twice."""
        errors = []
        with self._device.active():
            for resource in (*reversed(self._closers), self._stream):
                try:
                    resource.close()
                except CudaError as error:
                    errors.append(error)
            self._closers = []
        if errors:
            raise errors[0]

    def _slot(
        self, program: Program, state: Mapping[str, Buffer], told: Collection[str] = ()
    ) -> Slot:
        slot = Slot(program, {}, self._options, stream=self._stream, state=state, told=told)
        self._closers.append(slot)
        slot.warm_up()
        return slot

    def _allocate(self, spec: TensorSpec) -> Buffer:
        buffer = state_buffer(self._device, spec)
        self._closers.append(buffer)
        return buffer


def state_buffer(device: Device, spec: TensorSpec) -> Buffer:
    """Return memory for a tensor that stays where engines use it."""
    capabilities = device.capabilities
    in_place = capabilities.integrated and capabilities.mapped
    allocate = device.allocate_host if in_place else device.allocate
    return allocate(spec.size_bytes, label=f"{spec.name} (state)")


def carried_names(begin: Program, step: Program) -> list[str]:
    """Return the names of what each step renews.

    Raises:
        EngineLoadError: the step does not take what `begin` gives, or what it gave itself.
    """
    taken = {spec.name: spec for spec in step.inputs}
    made = {spec.name: spec for spec in step.outputs}
    carried = [name for name in taken if name + NEXT in made]
    if {spec.name: spec for spec in begin.outputs} != taken or any(
        made[name + NEXT] != replace(taken[name], name=name + NEXT) for name in carried
    ):
        raise does_not_follow(begin, step)
    return carried


def does_not_follow(begin: Program, step: Program) -> EngineLoadError:
    """Return the error for a step that is of another net, or of another version of it."""
    return EngineLoadError(
        f"the step takes {', '.join(map(str, step.inputs))} and gives "
        f"{', '.join(map(str, step.outputs))}, which does not follow on the first one's "
        f"{', '.join(map(str, begin.outputs))}. Build the bundle again."
    )


class CarriedState:
    """State of a stream of frames: what one run gives is what the next one takes.

    It stays where engines use it. The runs are ordered by whoever queues them: never two at once.

    Attributes:
        buffers: the memory of each tensor of it, by name; see `Slot`.
        starts_anew: whether the next run begins with zeros, whatever lies there.
    """

    def __init__(self, program: Program, names: Mapping[str, str]) -> None:
        """Allocate; the device is active.

        Args:
            program: what takes and gives the state.
            names: what it takes, and under which name it gives that again.

        Raises:
            CudaError: the memory is full.
        """
        specs = {spec.name: spec for spec in (*program.inputs, *program.outputs)}
        self.buffers: dict[str, Buffer] = {}
        self.starts_anew = True
        self._turns: list[tuple[Buffer, Buffer, int]] = []
        try:
            for taken, given in names.items():
                pair = [state_buffer(program.device, specs[name]) for name in (taken, given)]
                self.buffers |= zip((taken, given), pair, strict=True)
                self._turns.append((pair[0], pair[1], specs[taken].size_bytes))
        except BaseException:
            self.close()
            raise

    def begin(self, stream: Stream) -> None:
        """Queue setting the state to zeros."""
        for taken, _, size_bytes in self._turns:
            stream.fill(taken, 0, size_bytes)
        self.starts_anew = False

    def hand_on(self, stream: Stream) -> None:
        """Queue what the next run takes, behind the run that gave it."""
        for taken, given, size_bytes in self._turns:
            stream.copy(taken, given, size_bytes)

    def close(self) -> None:
        """Free the memory; the device is active, and no run uses it any more."""
        while self.buffers:
            self.buffers.popitem()[1].close()
