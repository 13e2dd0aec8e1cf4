"""The check of what is fed to a model, made once for each frame at the boundary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy import ndarray

from edgevision.bundle.tensors import Profiles, TensorSpec
from edgevision.errors import FrameError
from edgevision.runtime.device.device import Device
from edgevision.runtime.device.memory import Array
from edgevision.tasks.interop import DeviceArray, SeparateArrays, import_array

Feed = Array | DeviceArray | SeparateArrays


class FeedCheck:
    """Whether feeds fit a model's inputs; what it passes needs no further check."""

    def __init__(
        self, inputs: tuple[TensorSpec, ...], profiles: Profiles, device: Device | None
    ) -> None:
        """Take the model's inputs; arrays on a GPU must be on `device`, None takes none of them."""
        self._inputs = inputs
        self._gpu = device if device is not None and device.capabilities.async_copies else None
        self._profiles = profiles
        # What a frame is compared with, looked up once.
        self._expected = [(spec.name, spec.dtype.numpy, spec.shape, spec) for spec in inputs]

    def __call__(self, feeds: Mapping[str, Any]) -> Mapping[str, Feed]:
        """Return the feeds, arrays of other libraries imported without a copy.

        Raises:
            FrameError: an input is missing, unknown, or has the wrong dtype or shape.
        """
        if len(feeds) != len(self._expected):
            raise self._wrong_names(feeds)
        for name, dtype, shape, _ in self._expected:
            feed = feeds.get(name)
            # What nearly every frame is. numpy has one object for each plain dtype.
            if type(feed) is not ndarray or feed.dtype is not dtype or feed.shape != shape:
                return self._imported(feeds)
        return feeds

    def _imported(self, feeds: Mapping[str, Any]) -> Mapping[str, Feed]:
        imports: dict[str, Feed] = {}
        for name, dtype, shape, spec in self._expected:
            feed = feeds.get(name)
            if type(feed) is not ndarray:
                if name not in feeds:
                    raise self._wrong_names(feeds)
                feed = imports[name] = self._import(feed, spec)
            if feed.dtype != dtype or (feed.shape != shape and not self._allows(spec, feed.shape)):
                raise FrameError(
                    f"input '{name}': got {feed.dtype}{list(feed.shape)}, expected {spec}. "
                    "Convert or resize it, or build the bundle for this shape."
                )
        return {**feeds, **imports} if imports else feeds

    def _import(self, feed: object, spec: TensorSpec) -> Feed:
        if isinstance(feed, SeparateArrays):
            return feed.imported(spec)
        array = import_array(feed, spec)
        if not isinstance(array, DeviceArray):
            return array
        if self._gpu is None:
            raise FrameError(
                f"input '{spec.name}': got an array on a GPU, this model runs on the CPU. Copy it "
                "to the host, or load the model with device='cuda'."
            )
        if array.ordinal not in (None, self._gpu.ordinal):
            raise FrameError(
                f"input '{spec.name}': got an array on GPU {array.ordinal}, this model runs on GPU "
                f"{self._gpu.ordinal}. Copy it there, or to the host."
            )
        return array

    def _allows(self, spec: TensorSpec, shape: tuple[int, ...]) -> bool:
        if not spec.is_dynamic or not spec.accepts(shape):
            return False
        profile = self._profiles.get(spec.name)
        if profile is not None and not profile.allows(shape):
            raise FrameError(
                f"input '{spec.name}': shape {list(shape)} lies outside the profile "
                f"{list(profile.minimum)} to {list(profile.maximum)}. Build with a wider profile."
            )
        return True

    def _wrong_names(self, feeds: Mapping[str, object]) -> FrameError:
        known = sorted(spec.name for spec in self._inputs)
        return FrameError(
            f"inputs: got {sorted(feeds)}, this model takes {known}. "
            f"Give exactly: {', '.join(str(spec) for spec in self._inputs)}"
        )
