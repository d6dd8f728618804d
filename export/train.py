r"""Train the reader on sung clips: one file, the loop in sight.

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=20000000000 \
    python -m export.train OUT --stems STEMS --backings BACKINGS --minutes 80

The variables keep freed memory for the next step, a fifth of whose time otherwise goes to getting
pages from the system (glibc). Runs for a given time on the processors it is given, in bfloat16
where a product is large. The learning rate rises over the first steps and falls to zero at the end
of the time. A checkpoint carries options, weights, optimiser, step and time spent; the same command
goes on from it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from export.mixes import Backings, Mix, Mixer, MixOptions, Stems
from export.phones import PHONES, UNKNOWN
from export.reader import GUESSES, Reader, ReaderOptions, greedy_phones

_HELD_SHARDS = 1  # the first shard validates


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What a run is made of; stored with the checkpoint."""

    minutes: float = 80.0
    batch: int = 16
    learning_rate: float = 3e-4
    head_rate: float = 4.0  # of the output layers, which begin with nothing
    warm_up: int = 200
    weight_decay: float = 0.01
    moments: float = 0.5  # weight of the loss half-way
    easy_share: float = 0.4  # share of the time in which voices stand out, less and less
    clip_gradient: float = 1.0
    seed: int = 1


class Mixes(IterableDataset[Mix]):
    """Endless mixes for a loader process; ``progress`` (0…1) is shared memory."""

    def __init__(
        self, stems: Sequence[Path], backings: Path, options: TrainOptions, progress: Tensor
    ) -> None:
        self._folders = stems, backings
        self._options, self._progress = options, progress

    def __iter__(self) -> Iterator[Mix]:
        info = torch.utils.data.get_worker_info()
        worker = info.id if info else 0
        seed = [self._options.seed, worker, int(1e6 * float(self._progress))]
        rng = np.random.default_rng(seed)
        stems = Stems(*self._folders[0], shards=slice(_HELD_SHARDS, None))
        mixer = Mixer(stems, Backings(self._folders[1]), MixOptions())
        drawn = 0
        while True:
            ease = max(0.0, 1.0 - float(self._progress) / max(self._options.easy_share, 1e-6))
            yield mixer.draw(rng, ease=ease)
            drawn += 1
            if drawn % 400 == 0:
                stems.refresh()


def collate(mixes: list[Mix]) -> tuple[Tensor, Tensor]:
    """Samples (B, 160000) and the phone at each guess of the reader (B, 416)."""
    samples = torch.from_numpy(np.stack([mix.samples for mix in mixes]))
    phones = torch.from_numpy(np.stack([mix.phones for mix in mixes])).long()
    nearest = (torch.arange(GUESSES) + 0.5) * phones.shape[1] / GUESSES
    return samples, phones[:, nearest.long()]


def sequence(phones: Tensor) -> list[int]:
    """What is said, from what sounds at each moment: repeats joined, silence left out."""
    return [phone for phone in torch.unique_consecutive(phones).tolist() if phone > 0]


def ctc(log_phones: Tensor, phones: Tensor) -> Tensor:
    """CTC loss per phone of the batch, (B, T, 40) against the phones of each moment (B, T)."""
    targets = [sequence(row) for row in phones]
    flat = torch.tensor([i for target in targets for i in target], dtype=torch.long)
    lengths = torch.tensor([len(t) for t in targets])
    frames = torch.full((len(targets),), log_phones.shape[1])
    losses = F.ctc_loss(
        log_phones.transpose(0, 1), flat, frames, lengths, reduction="none", zero_infinity=True
    )
    return losses.sum() / max(int(lengths.sum()), 1)


def moment_loss(logits: Tensor, phones: Tensor) -> Tensor:
    """Cross-entropy of the phones that are known, (B, T, 40) against (B, T)."""
    return F.cross_entropy(logits.flatten(0, 1), phones.flatten(), ignore_index=UNKNOWN)


def edit_distance(said: Sequence[int], sung: Sequence[int]) -> int:
    """Insertions, deletions and substitutions from ``sung`` to ``said``."""
    wanted = np.asarray(sung)
    previous = np.arange(len(wanted) + 1)
    for i, phone in enumerate(said, start=1):
        different = previous[:-1] + (wanted != phone)
        best = np.minimum(different, previous[1:] + 1)
        row = np.concatenate([[i], best])
        offsets = np.arange(len(row))  # insertions: a running minimum along the row
        previous = np.minimum.accumulate(row - offsets) + offsets
    return int(previous[-1])


@torch.no_grad()
def validate(reader: Reader, stems: Path, backings: Path, n: int = 96) -> dict[str, float | str]:
    """Phone error rate of the best path on held-out clips, bare and mixed."""
    reader.eval()
    result: dict[str, float | str] = {}
    held = Stems(stems, shards=slice(_HELD_SHARDS))
    for name, options in {
        "bare": MixOptions(bare=1.0, instrumental=0.0, noise=0.0, telephone=0.0, room=0.0),
        "mixed": MixOptions(bare=0.0, instrumental=0.0),
    }.items():
        rng = np.random.default_rng(0)
        mixer = Mixer(held, Backings(backings), options)
        errors = total = 0
        for _ in range(n // 16):
            mixes = [mixer.draw(rng) for _ in range(16)]
            output = reader(torch.from_numpy(np.stack([m.samples for m in mixes])))
            said = [greedy_phones(row) for row in output]
            sung = [sequence(torch.from_numpy(m.phones)) for m in mixes]
            errors += sum(edit_distance(a, b) for a, b in zip(said, sung, strict=True))
            total += sum(map(len, sung))
        result[f"per_{name}"] = errors / total
        spelt = " ".join(PHONES[i] for i in said[0])
        result[f"example_{name}"] = f"{mixes[0].text!r} heard as {spelt}"
    reader.train()
    return result


def load_reader(checkpoint: Path) -> Reader:
    """The reader of a checkpoint; tensors and plain values only are read from the file."""
    state = torch.load(checkpoint, weights_only=True)
    reader = Reader(ReaderOptions(**state["reader_options"]))
    reader.load_state_dict(state["reader"], strict=True)
    return reader.eval()


def optimiser_of(reader: Reader, options: TrainOptions) -> torch.optim.Optimizer:
    heads = [*reader.said.parameters(), *reader.moments.parameters()]
    body = [p for p in reader.parameters() if not any(p is head for head in heads)]
    groups = [{"params": body, "times": 1.0}, {"params": heads, "times": options.head_rate}]
    return torch.optim.AdamW(
        groups,
        lr=options.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=options.weight_decay,
    )


def train(
    out: Path, stems: Sequence[Path], backings: Path, options: TrainOptions, fresh: ReaderOptions
) -> None:
    """Train the reader in ``out`` on shards of all folders; the first shard of all validates."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    torch.manual_seed(options.seed)
    state = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else None
    reader = Reader(ReaderOptions(**state["reader_options"]) if state else fresh)
    optimiser = optimiser_of(reader, options)
    step, spent = 0, 0.0
    if state:
        reader.load_state_dict(state["reader"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent_s"]
    progress = torch.zeros(()).share_memory_()
    loader = DataLoader(
        Mixes(stems, backings, options, progress),
        batch_size=options.batch,
        num_workers=1,
        collate_fn=collate,
        prefetch_factor=4,
        multiprocessing_context="spawn",
    )
    log = (out / "log.jsonl").open("a")
    recent: list[tuple[float, float]] = []
    last = time.monotonic()
    saved = last
    reader.train()
    progress.fill_(min(1.0, spent / (60 * options.minutes)))
    for samples, phones in loader:
        share = spent / (60 * options.minutes)
        if share >= 1.0:
            break
        progress.fill_(share)
        rate = min(1.0, (step + 1) / options.warm_up) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = options.learning_rate * group["times"] * max(rate, 0.01)
        with torch.autocast("cpu", torch.bfloat16):
            end, half = reader.both(samples)
        said, moments = ctc(end, phones), moment_loss(half, phones)
        loss = said + options.moments * moments
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), options.clip_gradient)
        optimiser.step()
        optimiser.zero_grad()
        recent.append((said.item(), moments.item()))
        step += 1
        now = time.monotonic()
        spent, last = spent + now - last, now
        if step % 50 == 0:
            means = dict(zip(("said", "moments"), np.mean(recent, axis=0).tolist(), strict=True))
            row = {"step": step, "minutes": spent / 60} | means
            recent.clear()
            if step % 500 == 0:
                row |= validate(reader, stems[0], backings)
                last = time.monotonic()
            print(json.dumps(row), file=log, flush=True)
        if now - saved > 120:
            save_checkpoint(checkpoint, reader, optimiser, step, spent, options)
            saved = now
    save_checkpoint(checkpoint, reader, optimiser, step, spent, options)
    print(
        json.dumps({"step": step} | validate(reader, stems[0], backings, n=320)),
        file=log,
        flush=True,
    )


def save_checkpoint(
    path: Path,
    reader: Reader,
    optimiser: torch.optim.Optimizer,
    step: int,
    spent: float,
    options: TrainOptions,
) -> None:
    state = {
        "reader": reader.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "spent_s": spent,
        "reader_options": dataclasses.asdict(reader.options),
        "train_options": dataclasses.asdict(options),
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the reader on sung clips.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--stems", type=Path, nargs="+", required=True)
    parser.add_argument("--backings", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=TrainOptions.minutes)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=TrainOptions.learning_rate)
    parser.add_argument("--easy-share", type=float, default=TrainOptions.easy_share)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = TrainOptions(
        minutes=arguments.minutes,
        learning_rate=arguments.learning_rate,
        easy_share=arguments.easy_share,
    )
    train(arguments.out, arguments.stems, arguments.backings, options, ReaderOptions())


if __name__ == "__main__":
    main()
