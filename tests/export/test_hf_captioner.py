"""Captioners of Hugging Face transformers, by the example: the words of their own `generate`."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from edgevision.bundle.flavours import ORT
from edgevision.export.graph.capture import serialized
from edgevision.runtime.session import Session
from edgevision.tasks.vocabulary import HuggingFaceTokenizer
from tests.export.captions import pixels
from tests.export.operators import installed_torchvision
from tests.parts.nets import PHOTOS

WORDS, END, SIDE, STEPS = 40, 2, 32, 8
LOUD = ("encoder.", "vision", "crossattention")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    if importlib.util.find_spec("torchvision") is not None:
        installed_torchvision()  # which transformers imports where it is
    path = PHOTOS.parent / "export" / "hf_captioner.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vit_gpt2() -> Any:
    hub = importlib.import_module("transformers")
    encoder = hub.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        image_size=SIDE, patch_size=8,
    )  # fmt: skip
    decoder = hub.GPT2Config(
        vocab_size=WORDS, n_embd=48, n_layer=2, n_head=4, n_positions=32, bos_token_id=1,
        eos_token_id=END, add_cross_attention=True, is_decoder=True,
    )  # fmt: skip
    made = hub.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = hub.VisionEncoderDecoderModel(made)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.pad_token_id = 1, END
    model.generation_config.eos_token_id = END
    return model


def blip() -> Any:
    hub = importlib.import_module("transformers")
    shared = {
        "hidden_size": 32, "intermediate_size": 64, "projection_dim": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    text = shared | {
        "vocab_size": WORDS, "encoder_hidden_size": 32, "max_position_embeddings": 32,
        "bos_token_id": 1, "eos_token_id": END, "sep_token_id": END, "pad_token_id": 0,
    }  # fmt: skip
    vision = shared | {"image_size": SIDE, "patch_size": 8, "initializer_range": 0.02}
    config = hub.BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    return hub.BlipForConditionalGeneration(config)


@pytest.mark.parametrize("make", [vit_gpt2, blip])
def test_words_are_those_of_generate(example: ModuleType, make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "position" not in name:  # or all frames look alike
                parameter *= 8 if any(part in name for part in LOUD) else 3
    vocabulary = {f"w{number}": number for number in range(WORDS)}
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": vocabulary,
                 "unk_token": "w0"}}  # fmt: skip
    net = example.adapter(
        model,
        HuggingFaceTokenizer(json.dumps(tokenizer).encode()),
        max_length=STEPS,
        size=(SIDE, SIDE),
    )
    frames = np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), np.uint8)
    frames[::2] //= 4
    scores = set()
    with Session.open(serialized(net.to_onnx()), flavour=ORT) as session:
        for frame in frames:
            with torch.no_grad():
                wanted = model.generate(
                    pixel_values=pixels([frame]), max_new_tokens=STEPS, num_beams=1, do_sample=False
                )[0].tolist()[1:]
            wanted = wanted[: wanted.index(END)] if END in wanted else wanted
            found = session.run({"frame": frame[None]})
            tokens = found["tokens"][0, 0, : int(found["lengths"][0, 0])].tolist()
            assert tokens == wanted
            scores.add(round(float(found["scores"][0, 0]), 3))
    assert len(scores) > 1  # the picture counts
