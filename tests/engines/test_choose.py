"""A device keeps the faster precision that passes the accuracy gate, and says why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import edgevision
from edgevision.bench.gate.compare import Comparison, decide
from edgevision.bench.gate.worker import precision
from edgevision.bench.measure import Settings, measure
from edgevision.bundle.directory import Bundle, BundleWriter
from edgevision.bundle.manifest import Alternative
from edgevision.bundle.parity import Tolerance
from edgevision.bundle.record import Record
from edgevision.cli import main
from edgevision.engines.extend import finish
from edgevision.errors import BundleFormatError, ParityError
from edgevision.export.preflight import preflight
from edgevision.runtime.verify import verify
from edgevision.testing import ScriptedStopwatch
from tests.parts.tiny_bundles import semantic_bundle, strongest_channel

FRAMES = np.random.default_rng(5).integers(0, 256, (3, 6, 10, 3), np.uint8)


def planted(ratio: float, *, control: float = 1.0) -> ScriptedStopwatch[Comparison]:
    """Return a stopwatch whose verdict is the gate's, on rounds of this truth."""
    random = np.random.default_rng(0)

    def judge(truth: float) -> Comparison:
        noise = random.normal(0, 0.003, (2, 7, 3))
        return decide(np.log(truth) + noise[0], np.log(control) + noise[1], gate=0.05, first_us=800)

    return ScriptedStopwatch(ratio, judge)


def both(path: Path, *, int8: bytes | None = None, fp16: bytes | None = None) -> Bundle:
    """Publish an INT8 bundle that holds an FP16 graph, with bars that let any answer pass."""
    old = semantic_bundle(path)
    (stage,) = old.manifest.stages
    graph = strongest_channel()
    with BundleWriter(path) as writer:
        writer.add(stage.graph, int8 or graph)
        writer.add("stages/main/host-cpu.onnx", int8 or graph)
        writer.add("stages/main/fp16.onnx", fp16 or graph)
        writer.add_golden("main", *old.golden("main"))
        other = Alternative("fp16", "stages/main/fp16.onnx", {"classes": Tolerance()})
        stage = replace(stage, tolerances={"classes": Tolerance(0.0, 1.0)}, alternatives=(other,))
        manifest = replace(old.manifest, precision="int8", stages=(stage,), files=())
        return writer.publish(manifest)


def weakest_channel() -> bytes:
    """Return a graph of the same tensors whose answers are wrong everywhere."""
    return strongest_channel().replace(b"ArgMax", b"ArgMin")


@pytest.fixture
def val(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEVISION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGEVISION_STATE", str(tmp_path / "state"))
    for part, arrays in (("images", FRAMES), ("labels", FRAMES.argmax(-1).astype(np.uint8))):
        (tmp_path / "val" / part).mkdir(parents=True)
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(tmp_path / "val" / part / f"{number}.png")
    return tmp_path / "val"


def chosen(bundle: Bundle, val: Path | None, measure: ScriptedStopwatch[Comparison]) -> Record:
    done = finish(bundle, "local-cpu", evaluate=val, measure=measure).finished["local-cpu"]
    assert json.loads((done.folder / "record.json").read_text()) == json.loads(
        done.record.to_json()
    )
    return done.record


def test_fp16_stays_where_int8_is_five_percent_slower(tmp_path: Path, val: Path) -> None:
    bundle = both(tmp_path / "road.ev")
    choice = chosen(bundle, val, planted(1.05)).choice
    assert choice is not None
    assert (choice.precision, choice.verdict) == ("fp16", "slower")
    assert "int8 takes 1.0" in choice.reason
    assert choice.figures["fp16_us"] == 800
    assert choice.figures["int8_us"] == pytest.approx(840, rel=0.01)
    assert choice.figures["fp16 mIoU"] == choice.figures["int8 mIoU"] == 1.0
    with edgevision.load(bundle.root) as model:
        assert "fp16 was chosen here, for int8 takes 1.0" in model.explain()
        np.testing.assert_array_equal(model(FRAMES[0]).mask, FRAMES[0].argmax(-1))
        assert precision(model) == "fp16"  # as `bench compare` tells it
    (measured,) = measure([bundle.root], Settings("single", duration_s=0.1, cold_starts=0,
                                                  reference=False))  # fmt: skip
    assert measured.precision == "fp16"
    # It is held against its own bars, which are narrower than INT8's.
    assert verify(bundle)[0].tolerance == Tolerance()


def test_int8_is_kept_where_it_is_faster_and_inside(tmp_path: Path, val: Path) -> None:
    bundle = both(tmp_path / "road.ev")
    record = chosen(bundle, val, planted(0.8))
    assert record.choice is not None
    assert (record.choice.precision, record.choice.verdict) == ("int8", "faster")
    assert "mIoU is 1.0000, fp16's 1.0000; a loss of 0.01 is allowed" in record.choice.reason
    # What was chosen stays chosen: nothing is measured at every boot.
    again = planted(2.0)
    assert chosen(bundle, None, again) == record
    assert not again.measured


def test_fp16_stays_where_int8_is_faster_but_outside(tmp_path: Path, val: Path) -> None:
    bundle = both(tmp_path / "road.ev", int8=weakest_channel())
    choice = chosen(bundle, val, planted(0.5)).choice
    assert choice is not None
    assert (choice.precision, choice.verdict) == ("fp16", "faster")
    assert "mIoU is 0.0000, fp16's 1.0000; a loss of 0.01 is allowed" in choice.reason
    assert choice.figures["ratio"] == pytest.approx(0.5, rel=0.01)


def test_what_is_not_fit_for_use_is_not_measured(tmp_path: Path, val: Path) -> None:
    bundle = both(tmp_path / "road.ev", fp16=weakest_channel())
    measure = planted(0.5)
    choice = chosen(bundle, None, measure).choice
    assert choice is not None
    assert choice.precision == "int8"
    assert choice.reason.startswith("fp16 is not fit for use: main/local-cpu/classes: DISAGREES")
    assert not measure.measured


def test_a_verdict_that_noise_gave_is_looked_for_again(tmp_path: Path, val: Path) -> None:
    bundle = both(tmp_path / "road.ev")
    first = chosen(bundle, None, planted(0.99, control=1.06)).choice
    assert first is not None
    assert (first.precision, first.verdict) == ("fp16", "too noisy")
    again = chosen(bundle, None, planted(0.8)).choice
    assert again is not None
    assert again.precision == "int8"


def test_a_choice_is_what_this_device_wrote(tmp_path: Path, val: Path) -> None:
    bundle = both(tmp_path / "road.ev")
    record = chosen(bundle, None, planted(0.8))
    assert record.is_ours
    assert record.choice is not None
    assert not replace(record, choice=replace(record.choice, precision="fp16")).is_ours


def test_neither_fit_is_refused(tmp_path: Path, val: Path) -> None:
    bundle = both(tmp_path / "road.ev", int8=b"no graph", fp16=weakest_channel())
    with pytest.raises(ParityError, match=r"no engine for 'local-cpu'.*fp16: main/.*int8: ONNX"):
        chosen(bundle, None, planted(0.5))


def test_a_bundle_of_one_graph_leaves_nothing_to_choose(
    tmp_path: Path, val: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = semantic_bundle(tmp_path / "road.ev").root
    assert main(["finish", str(bundle), "--target", "local-cpu", "--choose"]) == 2
    message = capsys.readouterr().err
    assert "holds one graph, in fp32" in message
    assert "--set choose=true" in message


def test_an_alternative_is_a_file_of_the_bundle_as_any_other(tmp_path: Path, val: Path) -> None:
    """It outlives `finish` for another target, and its weights cannot lie elsewhere."""
    bundle = both(tmp_path / "road.ev")
    again = finish(bundle, "host-cpu").bundle
    assert again.manifest.stages[0].alternatives == bundle.manifest.stages[0].alternatives
    assert again.read("stages/main/fp16.onnx") == strongest_channel()
    model = onnx.load_from_string(strongest_channel())
    weights = onnx.TensorProto(name="w", dims=[1], data_type=1)
    weights.data_location = onnx.TensorProto.EXTERNAL
    model.graph.initializer.append(weights)
    model.graph.initializer[0].external_data.add(key="location", value="elsewhere")
    with pytest.raises(BundleFormatError, match="keeps the weights"):
        both(tmp_path / "evil.ev", fp16=model.SerializeToString())


def test_check_looks_at_every_graph_that_the_board_would_build(tmp_path: Path) -> None:
    unknown = strongest_channel().replace(b"ArgMax", b"ArgMix")
    bundle = both(tmp_path / "road.ev", fp16=unknown)
    found = {graph.name: graph.passed for graph in preflight(bundle, "jetson-orin-jp6")}
    assert found == {"main": True, "main in fp16": False}
