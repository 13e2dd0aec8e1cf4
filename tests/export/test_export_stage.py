"""All steps of one stage: the graphs, the golden vectors, and a graph that lies is caught."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from edgevision.errors import ExportError, ParityError
from edgevision.export import SemanticSegmentation
from edgevision.export.adapters.adapter import Feeds
from edgevision.export.recipe import export_stage
from edgevision.export.samples import calibration_samples, golden_samples
from edgevision.tasks.frames import list_images
from tests.parts.nets import PHOTOS, frames, run

pytestmark = pytest.mark.filterwarnings("ignore:INT8 was calibrated on:UserWarning")


def test_int8_brings_every_step(adapter: SemanticSegmentation) -> None:
    seen: list[str] = []
    stage = export_stage(
        adapter, precision="int8", samples=frames(2), calibration=frames(12),
        progress=lambda phase, done, total: seen.append(phase),
    )  # fmt: skip
    assert list(stage.graphs) == ["fp32", "fp16", "int8", "int8-host"]
    assert [report.name for report in stage.parity] == [f"{s}/classes" for s in stage.graphs]
    assert all(report.passed for report in stage.parity)
    assert stage.golden_inputs["frame"].shape == (2, 1, 36, 52, 3)
    for i, feed in enumerate(frames(2)):
        wanted = stage.golden_outputs["classes"][i]
        np.testing.assert_array_equal(wanted, adapter.reference(feed)["classes"])
        assert np.mean(run(stage.graphs["int8"], feed)["classes"] != wanted) <= 0.05
    assert len(stage.graphs["int8"]) < 0.6 * len(stage.graphs["fp32"])
    assert stage.calibration is not None
    assert stage.calibration.count == 12
    assert {"capturing", "converting to FP16", "calibrating", "checking parity"} <= set(seen)


class Liar(SemanticSegmentation):
    """Answers differently from its graph, as a miscompiled graph would."""

    def reference(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return {"classes": (super().reference(feeds)["classes"] + 1) % 3}


def test_a_graph_that_disagrees_is_refused_with_its_report(adapter: SemanticSegmentation) -> None:
    liar = Liar(adapter._graph.module, size=(36, 52), classes=["a", "b", "c"])
    with pytest.raises(ParityError, match="the fp32 graph does not do what the model does") as e:
        export_stage(liar, precision="fp32", samples=frames(1))
    assert e.value.report is not None
    assert e.value.report.mismatch_share == 1.0


def test_no_samples(adapter: SemanticSegmentation) -> None:
    with pytest.raises(ExportError, match="no samples"):
        export_stage(adapter, precision="fp32", samples=[])


def test_samples_of_two_shapes(adapter: SemanticSegmentation) -> None:
    with pytest.raises(ExportError, match="samples differ"):
        export_stage(adapter, precision="fp32", samples=[*frames(1), *frames(1, (40, 52))])


def test_golden_samples_are_real_where_there_are_frames(adapter: SemanticSegmentation) -> None:
    real, origin = golden_samples(adapter, PHOTOS, None)
    assert (len(real), origin) == (3, "real")
    first, origin = golden_samples(adapter, None, None)
    again, _ = golden_samples(adapter, None, None)
    assert origin == "synthetic"
    np.testing.assert_array_equal(first[0]["frame"], again[0]["frame"])


def test_calibration_takes_a_list_and_a_tar_of_what_a_folder_holds(
    adapter: SemanticSegmentation, tmp_path: Path
) -> None:
    photos = list_images(PHOTOS)
    (tmp_path / "list.txt").write_text("".join(f"{photo}\n" for photo in photos))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for photo in photos:
            archive.add(photo, photo.name)
    wanted = calibration_samples(adapter, PHOTOS)
    for source in ("list.txt", "a.tar"):
        found = calibration_samples(adapter, tmp_path / source)
        for feeds, others in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(feeds["frame"], others["frame"])
