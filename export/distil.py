"""Teach a head what a teacher knows of the segments in shards: one file, the loop in sight.

    python -m export.distil OUT --shards SHARDS --preset livi     # the paper's, on Whisper's frames
    python -m export.distil OUT --shards SHARDS --preset mini     # small, on our reader's frames

The loss is the paper's (LIVI, arXiv 2601.11262): α (1 − cosine of sound and text) + (1 − α) squared
difference of the cosines within the batch. Works are split, not segments: what validates shares no
song with what trains. Rows come in an order that the seed and the step alone decide, so a run that
was stopped goes on from its checkpoint as if it had not been: on a processor to the last bit.

OUT gets ``checkpoint.pt`` (options, weights, optimiser, step), ``log.jsonl``, and at the end
``head.pth``, weights by the authors' names, which ``export.student`` reads. Frames are read as they
were stored; of samples, ``--whisper`` makes them in every step, in half precision on CUDA.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Sampler

from export.agreement import agreement
from export.lexical import unit
from export.pooled import HIDDEN
from export.shards import Shards
from export.student import Head, HeadOptions, Projection
from export.whisper import Ears, load_encoder
from livi_index.errors import BadInput, BadModel, LiviError

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

JUDGED_AT_ONCE = 128  # rows
JUDGED = 5000  # rows that validate: all their cosines are looked at


@dataclass(frozen=True)
class Training:
    """How a head is taught; these are the paper's choices. Stored with every checkpoint."""

    epochs: float = 3.0
    batch: int = 128
    alpha: float = 0.5  # weight of the cosines of pairs, against those within a batch
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warm_up: int = 10_000  # steps
    decay: Literal["none", "cosine"] = "none"  # of the learning rate after them
    pooling: Literal["attention", "mean"] = "attention"
    held: float = 0.1  # share of the works that validate
    validate_every: int = 2000  # steps
    save_every: int = 500  # steps
    seed: int = 1234

    def steps(self, rows: int) -> int:
        """All steps of the training, for so many rows that are not held back."""
        return round(self.epochs * max(1, rows // self.batch))

    def rate(self, step: int, steps: int) -> float:
        """The learning rate at one of so many steps."""
        fall = 0.5 * (1 + math.cos(math.pi * step / steps)) if self.decay == "cosine" else 1.0
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up) * fall


@dataclass(frozen=True)
class Preset:
    """A training and the hidden layers of its head."""

    training: Training
    hidden: tuple[int, ...]


PRESETS = {
    "livi": Preset(Training(), HeadOptions().hidden),
    "mini": Preset(
        Training(
            epochs=20, learning_rate=1e-3, warm_up=50, decay="cosine", validate_every=100,
            save_every=100,
        ),
        HIDDEN,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Where a training reads and writes, and on what it runs; ``ears`` hear shards of samples."""

    out: Path = Path()
    shards: Path = Path()
    ears: nn.Module | None = None
    device: str = "cpu"
    workers: int = 0  # processes that read ahead
    stop_after: int | None = None  # steps, to go on later


ON_A_PROCESSOR = Run()


class Examples(Protocol):
    """Rows to learn from, such as ``Shards``: features as stored, targets (B, dim) float32."""

    def __len__(self) -> int: ...

    def __getitems__(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]: ...


class MeanHead(nn.Module):
    """As ``Head``, with the mean of all frames in place of attention: what that is worth."""

    def __init__(self, options: HeadOptions) -> None:
        super().__init__()
        self.options = options
        self.norm_layer = nn.LayerNorm(options.width)
        self.audio_proj = Projection(options)

    def forward(self, frames: Tensor) -> Tensor:
        return unit(self.audio_proj(self.norm_layer(frames.mean(dim=1))))


class Order(Sampler[list[int]]):
    """The rows of each step, from ``first`` on: every epoch all rows in another order, without
    what does not fill a batch."""

    def __init__(self, rows: IntArray, training: Training, first: int, steps: int) -> None:
        self._rows, self._training = rows, training
        self._first, self._steps = first, steps

    def __len__(self) -> int:
        return self._steps - self._first

    def __iter__(self) -> Iterator[list[int]]:
        size = min(self._training.batch, len(self._rows))
        in_epoch = len(self._rows) // size
        for step in range(self._first, self._steps):
            epoch, batch = divmod(step, in_epoch)
            if batch == 0 or step == self._first:
                rng = np.random.default_rng([self._training.seed, epoch])
                mixed = rng.permutation(self._rows)
            yield mixed[batch * size : (batch + 1) * size].tolist()


def paper_loss(sound: Tensor, text: Tensor, alpha: float) -> Tensor:
    """α (1 − cosine of pairs) + (1 − α) squared error of the cosines within a batch.

    ``sound`` and ``text`` are (B, dim) unit vectors; row i of one belongs to row i of the other.
    """
    pairs = 1 - (sound * text).sum(dim=1).mean()
    return alpha * pairs + (1 - alpha) * F.mse_loss(sound @ sound.T, text @ text.T)


def places(works: Sequence[str]) -> npt.NDArray[np.float64]:
    """(N,) a number from 0 to 1 for each row, by a digest of its work: no list has to be kept."""
    digests = {w: hashlib.blake2b(str(w).encode(), digest_size=8).digest() for w in set(works)}
    return np.array([int.from_bytes(digests[w], "big") / 2**64 for w in works])


def split(shards: Shards, share: float) -> tuple[IntArray, IntArray]:
    """Rows that train, and rows of other works that validate, no more than ``JUDGED``.

    Raises BadInput where one of both has none.
    """
    place = places(shards.works)
    held = place < share
    if held.all() or not held.any():
        n_works = len(set(shards.works))
        raise BadInput(f"{shards.folder}: {n_works} works are too few to hold {share:.0%} back")
    judged = np.flatnonzero(held)
    judged = judged[np.argsort(place[judged], kind="stable")][:JUDGED]
    return np.flatnonzero(~held), np.sort(judged)


def new_head(options: HeadOptions, training: Training) -> nn.Module:
    torch.manual_seed(training.seed)
    return Head(options) if training.pooling == "attention" else MeanHead(options)


def sound_of(head: nn.Module, features: Tensor, ears: nn.Module | None) -> Tensor:
    """(B, dim) unit float32 of features as they are stored, samples through ``ears``."""
    on_cuda = features.is_cuda
    if ears is not None:
        with torch.no_grad(), torch.autocast("cuda", torch.float16, enabled=on_cuda):
            features = ears(features.float() / 32767)
    with torch.autocast("cuda", torch.bfloat16, enabled=on_cuda):
        frames = features.float()
        folded = head.fold(frames.shape[1]) if isinstance(head, Head) else head
        vectors: Tensor = folded(frames)
    return vectors.float()


def optimiser_of(head: nn.Module, training: Training) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        head.parameters(),
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )


def learn(
    head: nn.Module,
    optimiser: torch.optim.Optimizer,
    examples: Examples,
    rows: IntArray,
    training: Training,
    *,
    first: int = 0,
    run: Run = ON_A_PROCESSOR,
) -> Iterator[tuple[int, float]]:
    """The loop: teaches ``head`` in place, and gives the number of steps done and the loss."""
    steps = training.steps(len(rows))
    loader = DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=Order(rows, training, first, steps),
        collate_fn=_as_it_is,
        num_workers=run.workers,
        pin_memory=run.device.startswith("cuda"),
    )
    for step, (features, text) in enumerate(loader, start=first):
        for group in optimiser.param_groups:
            group["lr"] = training.rate(step, steps)
        head.train()
        sound = sound_of(head, features.to(run.device, non_blocking=True), run.ears)
        loss = paper_loss(sound, text.to(run.device, non_blocking=True), training.alpha)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield step + 1, float(loss.detach())


def _as_it_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


@torch.no_grad()
def vectors_of(
    head: nn.Module, examples: Examples, rows: IntArray, run: Run = ON_A_PROCESSOR
) -> tuple[FloatArray, FloatArray]:
    """Vectors (N, dim) of the sound of these rows, and of their texts."""
    head.eval()
    sound, text = [], []
    for first in range(0, len(rows), JUDGED_AT_ONCE):
        part = rows[first : first + JUDGED_AT_ONCE].tolist()
        features, targets = examples.__getitems__(part)
        sound.append(sound_of(head, features.to(run.device), run.ears).cpu().numpy())
        text.append(targets.numpy())
    return np.concatenate(sound), np.concatenate(text)


def train(run: Run, preset: Preset) -> nn.Module:
    """Train to the end, from the checkpoint where there is one.

    Raises BadInput where that or the shards are not what they should be.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    shards, checkpoint = Shards(run.shards), run.out / "checkpoint.pt"
    facts = {"shards": shards.made_by, "rows": len(shards)}
    state = load_checkpoint(checkpoint) if checkpoint.exists() else None
    if state and {name: state[name] for name in facts} != facts:
        raise BadInput(f"{checkpoint} was trained on other shards than {run.shards}")
    training = preset.training
    if state and Training(**state["training"]) != training:
        raise BadInput(
            f"{checkpoint} was trained in another way: give a new folder, or its options"
        )
    rows, held = split(shards, training.held)
    options = head_options(shards, run, preset)
    head = new_head(options, training).to(run.device)
    optimiser = optimiser_of(head, training)
    if state:
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
    last, losses = training.steps(len(rows)), []
    for step, loss in learn(
        head, optimiser, shards, rows, training, first=state["step"] if state else 0, run=run
    ):
        losses.append(loss)
        stops = step in (last, run.stop_after)
        if step % training.validate_every == 0 or step == last:
            found = agreement(
                *vectors_of(head, shards, held, run), shards.recordings[held], shards.works[held]
            )
            row = {"step": step, "of": last, "loss": float(np.mean(losses))}
            losses.clear()
            with (run.out / "log.jsonl").open("a") as log:
                print(json.dumps(row | dataclasses.asdict(found)), file=log)
            print(f"{row} cosine of held segments {found.segments.mean:.3f}", flush=True)
        if step % training.save_every == 0 or stops:
            save_checkpoint(checkpoint, head, optimiser, step, training, options, facts)
        if stops:
            break
    torch.save(head.state_dict(), run.out / "head.pth")
    return head.eval()


def head_options(shards: Shards, run: Run, preset: Preset) -> HeadOptions:
    """Sizes of the head that fits these shards."""
    features, targets = shards.__getitems__([0])
    if features.dtype == torch.int16 and run.ears is None:
        raise BadInput(f"{run.shards} holds samples: give --whisper, the encoder that hears them")
    width = features.shape[-1] if run.ears is None else run.ears.width
    return HeadOptions(int(width), preset.hidden, targets.shape[1])


def save_checkpoint(
    path: Path,
    head: nn.Module,
    optimiser: torch.optim.Optimizer,
    step: int,
    training: Training,
    options: HeadOptions,
    facts: Mapping[str, object],
) -> None:
    state = {
        "head": head.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "training": dataclasses.asdict(training),
        "head_options": dataclasses.asdict(options),
        **facts,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What ``save_checkpoint`` wrote: tensors and plain values only. Raises BadModel."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        Training(**state["training"]), HeadOptions(**state["head_options"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise BadModel(f"{path} is no checkpoint of export.distil: {error}") from error
    return state


def load_taught(path: Path) -> nn.Module:
    """The head of a checkpoint, as it was trained."""
    state = load_checkpoint(path)
    head = new_head(HeadOptions(**state["head_options"]), Training(**state["training"]))
    head.load_state_dict(state["head"])
    return head.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--preset", choices=PRESETS, default="livi")
    parser.add_argument("--epochs", type=float, help="another number than the preset's")
    parser.add_argument("--alpha", type=float, help="another weight than the preset's")
    parser.add_argument("--pooling", choices=("attention", "mean"), default="attention")
    parser.add_argument("--whisper", help="encoder of shards that hold samples")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--stop-after", type=int, help="steps; the same command goes on")
    parser.add_argument("--workers", type=int, default=0, help="processes that read ahead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    preset = PRESETS[options.preset]
    asked = {"epochs": options.epochs, "alpha": options.alpha, "pooling": options.pooling}
    given = {name: value for name, value in asked.items() if value is not None}
    preset = dataclasses.replace(preset, training=dataclasses.replace(preset.training, **given))
    try:
        ears = Ears(load_encoder(options.whisper)).to(options.device) if options.whisper else None
        run = Run(options.out, options.shards, ears, options.device, options.workers,
                  options.stop_after)  # fmt: skip
        train(run, preset)
    except LiviError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
