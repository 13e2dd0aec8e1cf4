"""The worker that keeps answers: a row for each frame, in a Parquet file for each shard."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgevision._optional import require
from edgevision.batch.shards import Shard
from edgevision.batch.worker import ShardWorker, Taken
from edgevision.bundle.printable import printable
from edgevision.metrics.latency import count_latency
from edgevision.metrics.tally import Tally
from edgevision.tasks.outputs import jpeg, png
from edgevision.tasks.places import Place, read_frame
from edgevision.tasks.task import get_task

FOLDER = "answers"
"""Where in a run's folder the files are."""

_OVERLAY = ".overlay.jpg"
Row = dict[str, str | float | bytes]


@dataclass
class Answerer(ShardWorker):
    """Keeps answers; see `ShardWorker`.

    Attributes:
        overlays: keep pictures of the answers, too.
    """

    overlays: bool

    def take(self, shard: Shard, taken: Taken) -> Mapping[str, Tally]:
        """Write the answers to the frames of a shard."""
        rows: list[Row] = []
        for number, place in enumerate(shard.places, shard.first):
            if (answered := taken.attempt(number, place, self._answer)) is not None:
                row, total_ms = answered
                rows.append(row)
                count_latency(taken.tally, total_ms)
        # Before the shard counts as done; one that was killed in between writes it again.
        self.folder.write(f"{FOLDER}/{shard.number:08d}.parquet", _parquet(rows))
        return {}

    def _answer(self, place: Place) -> tuple[Row, float]:
        frame = self.resized(read_frame(place))
        result = self.runner.predict(frame)
        answer, total_ms = result.summary(), float(result.timings.total_ms)
        row: Row = {
            "key": printable(place.name),
            "text": answer.text,
            "answer": json.dumps(answer.fields),
            "total_ms": total_ms,
        }
        task = get_task(self.runner.model.manifest.task)
        for name, mask in task.masks(result).items():
            row[name] = png(mask) if mask.ndim == 2 else json.dumps([_runs(one) for one in mask])
        for end, picture in result.pictures(frame).items() if self.overlays else ():
            if end.endswith(_OVERLAY):
                row[end.removeprefix(".").removesuffix(".jpg")] = jpeg(picture)
        return row, total_ms


def _runs(mask: npt.NDArray[np.bool_]) -> dict[str, object]:
    """Return bool[H, W] as COCO's runs of 0 and 1 in turn, down the columns, not compressed."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = [0, *([0] if flat[0] else []), *changes.tolist(), flat.size]
    return {"size": list(mask.shape), "counts": np.diff(edges).tolist()}


def _parquet(rows: Sequence[Row]) -> bytes:
    arrow, parquet = (require(name, extra="parquet") for name in ("pyarrow", "pyarrow.parquet"))
    kinds: dict[type, Any] = {str: arrow.string(), float: arrow.float64(), bytes: arrow.binary()}
    columns = {"key": "", "text": "", "answer": "", "total_ms": 0.0, **(rows[0] if rows else {})}
    schema = arrow.schema([(name, kinds[type(value)]) for name, value in columns.items()])
    buffer = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getvalue()
