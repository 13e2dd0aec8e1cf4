"""The captioner: PyTorch's captions from one graph, in every form, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from edgevision.bundle.flavours import ORT
from edgevision.bundle.targets import get_target
from edgevision.engines.builder import build_engine
from edgevision.engines.registry import unavailable
from edgevision.engines.request import BuildRequest
from edgevision.errors import ExportError
from edgevision.export import Captioner
from edgevision.export.graph.capture import serialized
from edgevision.export.graph.loops import make_loop, unroll
from edgevision.export.graph.subgraphs import nested
from edgevision.export.precision.fp16 import to_fp16
from edgevision.export.precision.int8 import to_int8
from edgevision.models import captioner as models
from edgevision.runtime.session import Session
from tests.export.captions import (
    END,
    MAX_LENGTH,
    SIZE,
    WORDS,
    beam_search,
    greedy,
    squares,
    trained,
    untrained,
)

# By hand: 200.
FRAMES = int(os.environ.get("EDGEVISION_TEST_CAPTIONS", "20"))
# With attention and without; the cells of a recurrent decoder know nothing of it.
KINDS = [(d, a) for d in models.DECODERS for a in (True, False) if (d, a) != ("lstm", False)]
Answers = dict[str, np.ndarray[Any, Any]]


def adapter(net: nn.Module, **options: Any) -> Captioner:
    return Captioner(net, WORDS, size=SIZE, **{"max_length": MAX_LENGTH, **options})


def answers(model: onnx.ModelProto, batch: int, count: int) -> Answers:
    """Run the first `count` frames, and return each output with the frames first."""
    with Session.open(serialized(model), flavour=ORT) as session:
        rows = [
            session.run({"frame": np.stack([squares(i)[0] for i in range(k, k + batch)])})
            for k in range(0, count, batch)
        ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def word_by_word(net: nn.Module, count: int) -> Answers:
    """Run the first `count` frames through an encoder and a step."""
    parts = adapter(net, form="step")
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(Session.open(serialized(part.to_onnx()), flavour=ORT)).run
            for name, part in parts.stages.items()
        }
        caption = parts.join_stages(runs)
        rows = [caption({"frame": squares(index)[0][None]}) for index in range(count)]
    # A caption without a word has no attention.
    full = next(row for row in rows if row["lengths"].any())
    found = {k: np.concatenate([row[k] for row in rows]) for k in ("tokens", "lengths", "scores")}
    if "attention" in full:
        shape = (1, 1, MAX_LENGTH, *full["attention"].shape[3:])
        looks = np.zeros((count, *shape[1:]), np.float32)
        for look, row in zip(looks, rows, strict=True):
            if "attention" in row:
                look[:, : row["attention"].shape[2]] = row["attention"][0]
        found["attention"] = looks
    return found


def written(found: Answers, frame: int, beam: int = 0) -> list[int]:
    """Return a caption's words; what stands after its end must be the end."""
    row = found["tokens"][frame, beam].tolist()
    length = int(found["lengths"][frame, beam])
    assert set(row[length:]) <= {END}
    assert END not in row[:length]
    return row[:length]


@pytest.mark.parametrize(
    ("decoder", "attention", "batch", "net"),
    [
        *((*kind, 1, trained) for kind in KINDS),
        *((d, True, 4, untrained) for d in models.DECODERS if d != "lstm"),
    ],
)
def test_greedy_captions_are_those_of_pytorch(  # an LSTM's batch of 4: with beams, below
    decoder: str, attention: bool, batch: int, net: Callable[..., models.Captioner]
) -> None:
    count = FRAMES if batch == 1 else 12
    captioner = net(decoder, attention=attention)
    search = adapter(captioner, cameras=batch).search()
    wanted = [greedy(captioner, squares(i)[0]) for i in range(count)]
    lengths = {len(words) for words, _, _ in wanted}
    assert len(lengths) > 1
    assert min(lengths) < MAX_LENGTH
    forms = [answers(model, batch, count) for model in (make_loop(search), unroll(search))]
    if batch == 1:
        forms.append(word_by_word(captioner, count))
    for found in forms:
        assert [written(found, i) for i in range(count)] == [words for words, _, _ in wanted]
        np.testing.assert_allclose(
            found["scores"][:, 0], [score for _, score, _ in wanted], atol=1e-4
        )
        assert ("attention" in found) == attention
        for i, (words, _, looks) in enumerate(wanted if attention else []):
            np.testing.assert_allclose(
                found["attention"][i, 0, : len(words)],
                np.array([look.numpy() for look in looks]).reshape(-1, 4, 4),
                atol=1e-5,
            )


@pytest.mark.parametrize(
    ("decoder", "attention", "beams", "batch"),
    [*((d, d != "gru", 3, 1) for d in models.DECODERS), ("lstm", True, 5, 4)],
)
def test_every_hypothesis_is_that_of_a_search_by_plain_python(
    decoder: str, attention: bool, beams: int, batch: int
) -> None:
    captioner = (trained if batch == 1 else untrained)(decoder, attention=attention)
    search = adapter(captioner, cameras=batch, beams=beams).search()
    loop, flat = (answers(model, batch, 12) for model in (make_loop(search), unroll(search)))
    for i in range(12):
        wanted = beam_search(captioner, squares(i)[0], beams)
        for found in (loop, flat):
            assert [written(found, i, k) for k in range(beams)] == [words for words, _ in wanted]
            np.testing.assert_allclose(found["scores"][i], [s for _, s in wanted], atol=1e-4)
    if attention:
        np.testing.assert_allclose(loop["attention"], flat["attention"], atol=1e-6)


def test_hypotheses_are_ranked_by_their_length_if_asked() -> None:
    net = untrained("gru", attention=True)
    plain = answers(adapter(net, beams=4).to_onnx(), 1, 8)
    ranked = answers(adapter(net, beams=4, length_penalty=2.0).to_onnx(), 1, 8)
    moved = 0
    for i in range(8):
        pairs = [(written(plain, i, k), float(plain["scores"][i, k])) for k in range(4)]
        pairs.sort(key=lambda pair: -pair[1] / (len(pair[0]) + 1) ** 2.0)
        assert [written(ranked, i, k) for k in range(4)] == [words for words, _ in pairs]
        moved += written(plain, i) != written(ranked, i)
        # The attention goes with its caption.
        best = next(k for k in range(4) if written(plain, i, k) == pairs[0][0])
        np.testing.assert_allclose(
            ranked["attention"][i, 0], plain["attention"][i, best], atol=1e-6
        )
    assert moved


def test_the_adapters_own_answers_are_the_graphs() -> None:
    net = adapter(trained("lstm", attention=True), beams=2)
    frame = squares(3)[0][None]
    own = net.reference({"frame": frame})
    with Session.open(serialized(net.to_onnx()), flavour=ORT) as session:
        found = session.run({"frame": frame})
    assert own.keys() == found.keys()
    for name in own:
        np.testing.assert_allclose(own[name], found[name], atol=1e-5)
        assert own[name].dtype == found[name].dtype


def test_a_loop_ends_with_the_longest_caption() -> None:
    """Its body is counted by what it leaves unwritten: nothing runs after the last end."""
    net = trained("lstm", attention=True)
    frame = next(squares(i)[0] for i in range(50) if len(greedy(net, squares(i)[0])[0]) == 1)
    model = adapter(net).to_onnx()
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
    # A scan output has a row for each step that ran.
    body.node.append(onnx.helper.make_node("Identity", ["step"], ["ran"]))
    body.output.append(onnx.helper.make_tensor_value_info("ran", onnx.TensorProto.INT64, []))
    loop.output.append("steps")
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("steps", onnx.TensorProto.INT64, ["n"])
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(serialized(model), providers=["CPUExecutionProvider"])
    (steps,) = session.run(["steps"], {"frame": frame[None]})
    assert steps.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("decoder", "form"), [("lstm", "loop"), ("gru", "unrolled"), ("transformer", "loop")]
)
def test_fp16_and_int8_say_the_same(decoder: str, form: str) -> None:
    net = adapter(trained(decoder, attention=True), form=form)
    feeds = [{"frame": squares(5000 + i)[0][None]} for i in range(32)]
    model = net.to_onnx()
    kept = net.kept_fp32(model)
    half = to_fp16(model, samples=feeds[:8], keep_fp32=kept)
    whole = to_int8(model, feeds, keep_float=kept)
    assert any("Step" not in n and "/" in n for n in whole.int8)
    assert len(whole.int8) > 4
    inside = [n.op_type for g in list(nested(half.model.graph))[-1:] for n in g.node]
    assert "Cast" in inside
    wanted = answers(model, 1, 60)
    for graph, share in ((half.model, 0.98), (whole.model, 0.9)):
        found = answers(graph, 1, 60)
        same = [written(found, i) == written(wanted, i) for i in range(60)]
        assert np.mean(same) >= share


@pytest.mark.skipif(bool(unavailable(get_target("rtx"))), reason="TensorRT-RTX is not installed")
@pytest.mark.parametrize(
    ("decoder", "form", "beams"),
    [("lstm", "loop", 1), ("gru", "unrolled", 3), ("transformer", "loop", 3)],
)
def test_tensorrt_builds_every_form(decoder: str, form: str, beams: int, tmp_path: Any) -> None:
    net = adapter(trained(decoder, attention=True), form=form, beams=beams, max_length=5)
    feeds = [{"frame": squares(5000 + i)[0][None]} for i in range(16)]
    model = net.to_onnx()
    kept = net.kept_fp32(model)
    whole = to_int8(model, feeds, keep_float=kept).model
    graphs = {"int8": to_fp16(whole, samples=feeds, keep_fp32=kept).model}
    if decoder == "lstm":
        graphs |= {"fp32": model, "fp16": to_fp16(model, samples=feeds, keep_fp32=kept).model}
    for name, graph in graphs.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(serialized(graph))
        request = BuildRequest(path, get_target("rtx"), tmp_path / f"{name}.plan", {})
        built = build_engine(request)
        assert [spec.name for spec in built.outputs] == ["tokens", "lengths", "scores", "attention"]


class Pair(nn.Module):
    """The least that a captioner is: two functions of the user's and a state."""

    def __init__(self, **changed: Any) -> None:
        super().__init__()
        self.change = changed

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3))

    def start(self, features: Any) -> Tensor:
        return self.change.get("state", torch.zeros(len(features[0]), 2))

    def step(self, token: Tensor, state: Any, features: Any) -> Any:
        (seen,) = features
        logits = torch.nn.functional.one_hot((token + 1) % len(WORDS), len(WORDS)).float()
        new = state[0] + seen[:, :2]
        made = {"logits": logits, "new": new, "weights": None} | self.change
        return made["logits"], made["new"], made["weights"]


def test_any_module_with_three_methods_is_taken() -> None:
    net = adapter(Pair(), max_length=3)
    found = net.reference({"frame": squares(0)[0][None]})
    assert list(found) == ["tokens", "lengths", "scores"]
    # Start is followed by end in this net.
    assert found["lengths"].tolist() == [[0]]
    with Session.open(serialized(net.to_onnx()), flavour=ORT) as session:
        assert session.run({"frame": squares(0)[0][None]})["tokens"].tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"logits": torch.zeros(1, 6)}, r"logits \[1, 6\], expected \[1, 7\] for the 7 words"),
        ({"new": torch.zeros(1, 3)}, r"changes its state from .*1, 2.* to .*1, 3.*one shape"),
        ({"new": torch.zeros(1, 2).double()}, r"to \['torch.float64\[1, 2\]'\]"),
        ({"new": [torch.zeros(1, 2)] * 2}, "changes its state"),
        ({"new": None}, "expected a tensor or a tuple of tensors, got NoneType"),
        ({"state": torch.zeros(3, 2)}, r"state 0 is \[3, 2\], expected the batch of 1 first"),
        ({"weights": torch.zeros(1, 4)}, r"attention torch.float32\[1, 4\], expected float32"),
    ],
)  # fmt: skip
def test_steps_that_cannot_be_carried_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        adapter(Pair(**changed))


def test_modules_without_the_methods_are_refused() -> None:
    with pytest.raises(ExportError, match=r"Linear has no encode, start, step: .*features"):
        adapter(nn.Linear(2, 2))


def test_modules_that_fail_are_told_apart_from_ours() -> None:
    net = models.captioner_mobilenet_v2(len(WORDS))
    net.encoder.project = nn.Linear(3, 3)  # type: ignore[assignment]
    with pytest.raises(ExportError, match="fails on a frame: RuntimeError"):
        adapter(net)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length: got 0, expected 1 to 512"),
        ({"max_length": 10**6}, "max_length: got 1000000, expected 1 to 512"),
        ({"max_length": 513}, "expected 1 to 512"),
        ({"beams": 0}, "beams: got 0"),
        ({"cameras": 65}, "cameras: got 65"),
        ({"form": "while"}, "form: got 'while', expected one of loop, unroll"),
        ({"end": "<stop>"}, "end: '<stop>' is none of the vocabulary's 7 tokens"),
        ({"end": 7}, "end: 7 is none of"),
        ({"start": "<go>"}, "start: '<go>' is none"),
        ({"length_penalty": float("nan")}, "length_penalty: got nan"),
        ({"channel_order": "hsv"}, "channel_order: got 'hsv'"),
        ({"resize": 8}, "resize: got 8, which makes 8x8 of 16x16, less than size 16x16"),
        ({"mean": (0.0, 1.0)}, "mean: got"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapter(Pair(), **options)


def test_more_words_than_a_cache_has_places_are_refused() -> None:
    net = models.captioner_mobilenet_v2(len(WORDS), decoder="transformer", max_length=6)
    with pytest.raises(ValueError, match="max_length: got 7, the module holds 6 steps"):
        Captioner(net, WORDS, size=(64, 64), max_length=7)


def test_unknown_decoders_are_refused() -> None:
    with pytest.raises(ValueError, match="decoder: got 'rnn', expected one of lstm"):
        models.captioner_mobilenet_v2(7, decoder="rnn")
