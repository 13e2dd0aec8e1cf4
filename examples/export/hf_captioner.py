r"""Build a bundle from a captioner of Hugging Face transformers, with its trained weights.

    python examples/export/hf_captioner.py --checkpoint nlpconnect/vit-gpt2-image-captioning \
        --frames FRAMES --out say.ev

It takes a VisionEncoderDecoder (ViT with GPT-2, for one) or a BLIP. Their `generate` is a Python
loop around the net; here the whole search is in the graph. The words so far are the state, and each
step reads them all: a cache that grows cannot be carried by a loop, and captions are short. Needs
transformers, which fetches the weights, and tokenizers. FRAMES is a folder of typical frames.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BlipForConditionalGeneration,
    VisionEncoderDecoderModel,
)

import edgevision
from edgevision.export import Captioner
from edgevision.tasks.vocabulary import HuggingFaceTokenizer

State = tuple[Tensor, Tensor]


class ReadingAll(nn.Module):
    """A captioner whose state is the words so far, int64[N, T], and how many they are, int64[N]."""

    def __init__(self, model: nn.Module, max_length: int) -> None:
        super().__init__()
        self.model, self.max_length = model, max_length

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the encoder's states float32[N, L, C] of `pixels`."""
        model: Any = self.model
        if isinstance(model, BlipForConditionalGeneration):
            seen: Tensor = model.vision_model(pixel_values=pixels).last_hidden_state
            return seen
        seen = model.encoder(pixel_values=pixels).last_hidden_state
        if model.encoder.config.hidden_size != model.decoder.config.hidden_size:
            seen = model.enc_to_dec_proj(seen)
        return seen

    def start(self, features: tuple[Tensor]) -> State:
        """Return no words."""
        count = features[0].shape[0]
        return (
            torch.zeros(count, self.max_length, dtype=torch.int64),
            torch.zeros(count, dtype=torch.int64),
        )

    def step(self, token: Tensor, state: State, features: tuple[Tensor]) -> tuple[Tensor, State]:
        """Add a word, read all, and return the logits after it."""
        words, position = state
        here = torch.arange(self.max_length) == position[:, None]
        words = torch.where(here, token[:, None], words)
        model: Any = self.model
        blip = isinstance(model, BlipForConditionalGeneration)
        decoder = model.text_decoder if blip else model.decoder
        logits = decoder(
            input_ids=words,
            attention_mask=torch.ones_like(words),
            encoder_hidden_states=features[0],
            use_cache=False,
        ).logits
        # What stands behind the last word is not seen by it: attention looks only back.
        return (logits * here[:, :, None].to(logits.dtype)).sum(1), (words, position + 1)


def adapter(
    model: Any, tokenizer: HuggingFaceTokenizer, *, max_length: int, **options: Any
) -> Captioner:
    """Return the adapter of a captioner of transformers, and the search of its `generate`."""
    text = getattr(model.config, "text_config", None) or model.config.decoder
    generation = model.generation_config
    start = generation.decoder_start_token_id or generation.bos_token_id or text.bos_token_id
    end = text.sep_token_id if isinstance(model, BlipForConditionalGeneration) else None
    end = end if end is not None else generation.eos_token_id or text.eos_token_id
    return Captioner(
        ReadingAll(model.eval(), max_length),
        tokenizer,
        max_length=max_length,
        start=int(start),
        end=int(end),
        **options,
    )


def main() -> None:
    """Parse the arguments, build, and print how far each precision is from the module itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="folder, or name on the hub")
    parser.add_argument("--frames", type=Path, required=True, help="folder of typical frames")
    parser.add_argument("--max-length", type=int, default=16, help="pieces of words in a caption")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory")
    options = parser.parse_args()

    kind = AutoImageProcessor.from_pretrained(options.checkpoint, use_fast=False)
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint).backend_tokenizer.to_str()
    try:
        model: Any = VisionEncoderDecoderModel.from_pretrained(options.checkpoint)
    except (ValueError, TypeError, AttributeError):
        model = BlipForConditionalGeneration.from_pretrained(options.checkpoint)
    vision = getattr(model.config, "vision_config", None) or model.config.encoder
    net = adapter(
        model,
        HuggingFaceTokenizer(tokenizer.encode()),
        max_length=options.max_length,
        beams=options.beams,
        size=(vision.image_size, vision.image_size),
        mean=kind.image_mean,
        std=kind.image_std,
    )
    summary = edgevision.build(
        net, options.out, precision="fp16", calibration=options.frames, targets=["host-cpu", "rtx"]
    )
    print(*summary.parity, sep="\n")


if __name__ == "__main__":
    main()
