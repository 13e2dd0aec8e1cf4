"""Train the DCGAN of 28x28 digits from nothing.

DIGITS is an .npz with `images: uint8[N, 28, 28]`; the last 2,000 are kept out of training, so that
the generated digits can be held against some that the net never saw.

    python training/train_gan.py --digits DIGITS.npz --out RUN

RUN receives `untrained.png`, `epoch-0001.png` and so on (16 digits of the same noise), the same as
`samples.gif`, `metrics.jsonl` (one line an epoch), `losses.png`, `last.pt` every five epochs (to go
on with `--resume`), and in the end `final.png` and `model.safetensors` (the averaged generator). A
resumed run repeats what an unbroken one would have done: every random choice depends on
(seed, epoch, step) alone.

Losses: Goodfellow et al. 2014, "Generative Adversarial Nets", section 3, the form that does not
saturate; optimizer: Radford et al. 2016, section 4. What is kept is a running average of the
generator's weights (Yazici et al. 2019, "The Unusual Effectiveness of Averaging in GAN Training").
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from run_state import save_rows, save_weights
from torch import Tensor, nn
from torch.nn.functional import softplus

from edgevision.models.gan import digit_discriminator, digit_generator

KEPT_OUT = 2000
BATCH = 64
# The paper's is 2e-4. The running average takes the unrest that a higher one brings.
LEARNING_RATE = 6e-4
AVERAGE_DECAY = 0.999
CHECKPOINT_EPOCHS = 5
FRAME_MS = 120

Row = dict[str, float]


class Players:
    """The two nets, the generator's running average, and the optimizers."""

    def __init__(self) -> None:
        self.generator = digit_generator().to(memory_format=torch.channels_last)
        self.discriminator = digit_discriminator().to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.optimizer_g = _adam(self.generator)
        self.optimizer_d = _adam(self.discriminator)

    def step(self, real: Tensor, latent: Tensor) -> Tensor:
        """Train both on one batch; return [loss of D, loss of G, D(real), D(generated)]."""
        self.discriminator.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            generated = self.generator(latent)
            logit_real = self.discriminator(real).float()
            logit_generated = self.discriminator(generated.detach()).float()
        loss_d = softplus(-logit_real).mean() + softplus(logit_generated).mean()
        self.optimizer_d.zero_grad(set_to_none=True)
        loss_d.backward()
        self.optimizer_d.step()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logit_fooled = self.discriminator(generated).float()
        loss_g = softplus(-logit_fooled).mean()
        self.optimizer_g.zero_grad(set_to_none=True)
        loss_g.backward(inputs=list(self.generator.parameters()))
        self.optimizer_g.step()
        self._follow()
        verdicts = (logit_real.sigmoid().mean(), logit_generated.sigmoid().mean())
        return torch.stack((loss_d, loss_g, *verdicts)).detach()

    @torch.no_grad()
    def _follow(self) -> None:
        now = self.generator.state_dict()
        # A short memory at first, or the noise of the first weights would show for epochs.
        steps = int(now["grow.0.num_batches_tracked"])
        decay = min(AVERAGE_DECAY, steps / (steps + 9))
        for name, kept in self.average.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(now[name], 1 - decay)
            else:
                kept.copy_(now[name])

    def save(self, path: Path, history: list[Row]) -> None:
        """Write everything that a resumed run needs, atomically."""
        state: dict[str, object] = {k: v.state_dict() for k, v in vars(self).items()}
        partial = path.with_suffix(".partial")
        torch.save(state | {"history": history}, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> list[Row]:
        """Restore what `save` wrote; return the history of the epochs done."""
        saved = torch.load(path, weights_only=True)
        for name, part in vars(self).items():
            part.load_state_dict(saved[name])
        history: list[Row] = saved["history"]
        return history


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digits", type=Path, required=True, help=".npz with images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run's files")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from OUT/last.pt")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """Train as `options` say, writing into `options.out`."""
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    real = read_digits(options.digits)
    players = Players()
    fixed = noise((options.seed, 0), 16)
    history = players.load(options.out / "last.pt") if options.resume else []
    if not history:
        show_untrained(players, fixed, options.out / "untrained.png")
    print(f"{len(real)} digits, epochs {len(history) + 1} to {options.epochs}", flush=True)

    for epoch in range(len(history), options.epochs):
        started = time.perf_counter()
        row = {"epoch": epoch} | train_epoch(players, real, options.seed, epoch)
        row["seconds"] = time.perf_counter() - started
        history.append(row)
        print(
            f"epoch {epoch + 1}/{options.epochs}  loss D {row['loss_d']:.3f}  G {row['loss_g']:.3f}"
            f"  D(real) {row['verdict_real']:.2f}  D(generated) {row['verdict_generated']:.2f}"
            f"  {row['seconds']:.1f} s",
            flush=True,
        )
        save_grid(players.average(fixed), options.out / f"epoch-{epoch + 1:04}.png")
        if (epoch + 1) % CHECKPOINT_EPOCHS == 0 or epoch + 1 == options.epochs:
            report(options.out, history)
            players.save(options.out / "last.pt", history)

    save_grid(players.average(fixed), options.out / "final.png")
    save_weights(options.out / "model.safetensors", players.average.state_dict())


def read_digits(path: Path) -> Tensor:
    """Read the training part as `float32[N, 1, 28, 28], -1 to 1`."""
    with np.load(path) as file:
        images = file["images"]
    if images.shape[1:] != (28, 28) or images.dtype != np.uint8 or len(images) < KEPT_OUT + BATCH:
        raise SystemExit(
            f"{path}: images are {images.dtype}{list(images.shape)}, expected uint8[N, 28, 28] "
            f"with N at least {KEPT_OUT + BATCH}"
        )
    return torch.from_numpy(images[:-KEPT_OUT]).float()[:, None] / 127.5 - 1


def noise(key: tuple[int, ...], count: int, size: int = 100) -> Tensor:
    """Draw `latent: float32[count, size]` that depends only on the key."""
    return torch.from_numpy(
        np.random.default_rng(key).standard_normal((count, size), dtype=np.float32)
    )


@torch.no_grad()
def show_untrained(players: Players, fixed: Tensor, path: Path) -> None:
    """Draw what the untrained generator makes, and say what the discriminator thinks of it."""
    images = players.average(fixed)
    save_grid(images, path)
    verdict = players.discriminator.eval()(images).sigmoid().flatten()
    print(
        f"untrained sample in {path.name}; the untrained discriminator finds it real with "
        f"probability {verdict[0]:.3f} ({verdict.min():.3f} to {verdict.max():.3f} over 16)",
        flush=True,
    )


def train_epoch(players: Players, real: Tensor, seed: int, epoch: int) -> Row:
    """Train on every digit once; return the means of what `Players.step` returns."""
    # numpy takes trailing zeros of a key for nothing, so each count starts at one.
    key = (seed, epoch + 1)
    order = torch.from_numpy(np.random.default_rng(key).permutation(len(real)))
    rows = []
    for step, chosen in enumerate(order.split(BATCH), 1):
        if len(chosen) == BATCH:
            rows.append(players.step(real[chosen], noise((*key, step), BATCH)))
    names = ("loss_d", "loss_g", "verdict_real", "verdict_generated")
    return dict(zip(names, torch.stack(rows).mean(0).tolist(), strict=True))


def _adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), LEARNING_RATE, betas=(0.5, 0.999))


def save_grid(images: Tensor, path: Path) -> None:
    """Write 16 images of -1 to 1 as four rows of four, enlarged twice."""
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().reshape(4, 4, 28, 28)
    grid = pixels.permute(0, 2, 1, 3).reshape(112, 112).numpy()
    Image.fromarray(grid).resize((224, 224), Image.Resampling.NEAREST).save(path)


def report(out: Path, history: list[Row]) -> None:
    """Write the metrics, the plot of the losses and the animation of the epochs done."""
    save_rows(out / "metrics.jsonl", history)
    plot(history, out / "losses.png")
    paths = [out / "untrained.png", *(out / f"epoch-{i + 1:04}.png" for i in range(len(history)))]
    first, *rest = [Image.open(path) for path in paths]
    first.save(out / "samples.gif", save_all=True, append_images=rest, duration=FRAME_MS, loop=0)


def plot(history: list[Row], path: Path) -> None:
    """Draw both losses and the discriminator's verdicts over the epochs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (losses, verdicts) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = [row["epoch"] + 1 for row in history]
    for axis, names in (
        (losses, {"loss_d": "discriminator", "loss_g": "generator"}),
        (verdicts, {"verdict_real": "real digits", "verdict_generated": "generated digits"}),
    ):
        for name, label in names.items():
            axis.plot(epochs, [row[name] for row in history], label=label)
        axis.legend()
    losses.set(xlabel="epoch", ylabel="loss")
    verdicts.set(xlabel="epoch", ylabel="D: probability of real", ylim=(0, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
