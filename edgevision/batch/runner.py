"""A bundle as a function over batches of frames, as Ray Data, Daft and process pools take it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision.bundle.files import PathLike
from edgevision.bundle.tensors import Image
from edgevision.bundle.trust import Trust
from edgevision.errors import BundleIntegrityError, WrongTaskError
from edgevision.metrics.metric import Predict, predictor
from edgevision.runtime.load import load
from edgevision.runtime.model import Model
from edgevision.runtime.options import RunOptions

_ANYBODY = Trust()


class Runner:
    """Answers to batches of frames; pickles as its arguments, and loads where it is called first.

    A process or actor has one, and one thread calls it. The engine is loaded once.

    Args:
        bundle: the bundle's directory, the same on every machine.
        device: see `edgevision.load`.
        target: see `edgevision.load`.
        engines: see `edgevision.load`.
        cpu_threads: of the engine on a CPU: where each core has a worker, one.
        trust: what is asked of the bundle, by each process that opens it.
        manifest_sha256: of the bundle that it must be; None for whichever is there.

    Attributes:
        uses_gpu: whether it may run on a GPU.

    Example:
        >>> dataset.map_batches(Runner, fn_constructor_args=["road.ev"])  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: PathLike,
        *,
        device: str = "auto",
        target: str | None = None,
        engines: PathLike | None = None,
        cpu_threads: int = 1,
        trust: Trust = _ANYBODY,
        manifest_sha256: str | None = None,
    ) -> None:
        self.uses_gpu = device != "cpu"
        self._bundle = bundle
        self._options: dict[str, Any] = {"device": device, "target": target, "engines": engines}
        self._cpu_threads, self._trust, self._sha256 = cpu_threads, trust, manifest_sha256
        self._model: Model[Any] | None = None
        self._predict: Predict | None = None

    @property
    def model(self) -> Model[Any]:
        """The loaded model.

        Raises:
            BundleError: the bundle cannot be loaded here; see `edgevision.load`.
            SignatureError: it is not one that `trust` takes.
            BundleIntegrityError: another bundle is in its place.
            WrongTaskError: it does not take frames.
        """
        if self._model is None:
            options = RunOptions(cpu_threads=self._cpu_threads)
            bundle = self._trust.open(self._bundle, is_measured=True)
            if self._sha256 not in (None, bundle.manifest_sha256):
                raise BundleIntegrityError(
                    f"'{bundle.root}' is another bundle than when the run began: its manifest has "
                    f"the SHA-256 {bundle.manifest_sha256[:12]}, expected {self._sha256:.12}. What "
                    "is done is kept: put the bundle back, and run the same command with --resume"
                )
            model = load(bundle, options=options, **self._options)
            if model.decoder.camera is None:
                model.close()
                raise WrongTaskError(
                    f"'{model.manifest.name}' takes its own tensors, not frames: call "
                    "edgevision.load from a function of your own"
                )
            self._model = model
        return self._model

    def predict(self, frame: Image) -> Any:
        """Return the result of one photo, `uint8[h, w, 3]` RGB of any size, host."""
        if self._predict is None:
            model = self.model
            # Frames of a set follow on nothing: a model with state begins with each.
            self._predict = predictor(model.decoder, partial(model.session.run_timed, is_cut=True))
        return self._predict(frame)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Return answers to a batch.

        Args:
            batch: "frame", photos `uint8[h, w, 3]` RGB of any size, and "key", their names.

        Returns:
            "key"; "answer", each the JSON text of what `run` says; "total_ms" of each inference.
        """
        results = [self.predict(np.asarray(frame)) for frame in batch["frame"]]
        answers = [json.dumps(result.summary().fields) for result in results]
        return {
            "key": np.asarray(batch["key"]),
            "answer": np.array(answers, object),
            "total_ms": np.array([result.timings.total_ms for result in results]),
        }

    def close(self) -> None:
        """Free what is loaded; a later call loads it again."""
        model, self._model, self._predict = self._model, None, None
        if model is not None:
            model.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_predict": None}
