"""Learn how a space weighs what the reader hears: noisy counts and clean counts, pulled together.

    python -m export.fit SPACE.pt --reader reader.pt --stems STEMS --backings BACKINGS --poems POEMS

Thirty-second windows of sung training clips are mixed, read by the frozen reader, and kept as
letters beside the words that were sung. The projection then learns, by a contrast over all texts
of a batch in both directions (InfoNCE, van den Oord et al. 2018), to put what was heard beside what
was sung. Two copies of a window in other mixes attract each other as well, as versions should.
Sound and text share features and projection, so either can search the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from catalogs.poems import Poem, load_poems, plain, training_poems
from export.lexical import LexicalOptions, LexicalSpace, collapse, letters_of
from export.mixes import Backings, Mixer, MixOptions, Stems
from export.reader import Reader
from export.train import load_reader

_CLIPS = 3  # ten seconds each: a window
_MIXES = MixOptions(instrumental=0.0, bare=0.05)


@dataclasses.dataclass(frozen=True)
class Heard:
    """``letters`` (N, 2, L) as read from two mixes of each window, ``texts`` what was sung."""

    letters: Tensor
    texts: list[str]


def hear(reader: Reader, stems: Stems, backings: Backings, n: int, seed: int) -> Heard:
    """``n`` windows, each mixed twice and read."""
    rng = np.random.default_rng([seed, 30])
    mixer = Mixer(stems, backings, _MIXES)
    letters, texts = [], []
    for i in range(n):
        clips = stems.run(rng, _CLIPS)
        mixed = np.stack(
            [np.concatenate([mixer.mix(clip, rng).samples for clip in clips]) for _ in range(2)]
        )
        with torch.no_grad():
            letters.append(collapse(reader(torch.from_numpy(mixed))).to(torch.int8))
        texts.append(" ".join(clip.text for clip in clips))
        if i % 200 == 199:
            print(f"{i + 1} windows heard", flush=True)
    return Heard(torch.stack(letters), texts)


def window_texts(poems: list[Poem], n: int, seed: int) -> list[str]:
    """Stretches of training poems of about a window's length, to choose features from."""
    rng = np.random.default_rng([seed, 31])
    words = [plain(" ".join(p.lines)).split() for p in poems]
    words = [w for w in words if len(w) > 40]
    texts = []
    for _ in range(n):
        poem = words[int(rng.integers(len(words)))]
        length = int(rng.integers(15, 80))
        at = int(rng.integers(max(1, len(poem) - length)))
        texts.append(" ".join(poem[at : at + length]))
    return texts


def learn_projection(
    space: LexicalSpace,
    heard: Heard,
    others: list[str],
    *,
    steps: int,
    seed: int,
    batch: int = 256,
    temperature: float = 0.05,
) -> list[float]:
    """Train ``space.projection`` in place; the losses of every 50th step."""
    rng = np.random.default_rng([seed, 32])
    with torch.no_grad():
        said = space.counts(letters_of(heard.texts))
        read = [space.counts(heard.letters[:, i].long()) for i in range(2)]
        negatives = space.counts(letters_of(others))
    optimiser = torch.optim.Adam(space.parameters(), lr=2e-3)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        chosen = torch.from_numpy(rng.choice(len(said), min(batch, len(said)), replace=False))
        extra = torch.from_numpy(rng.choice(len(others), 4 * batch))
        texts = space.embed(torch.cat([said[chosen], negatives[extra]]))
        one, other = (space.embed(counts[chosen]) for counts in read)
        target = torch.arange(len(chosen))
        loss = sum(
            F.cross_entropy(a @ b.T / temperature, target)
            for a, b in ((one, texts), (texts[: len(chosen)], other), (one, other), (other, texts))
        )
        optimiser.zero_grad()
        loss.backward()
        with torch.no_grad():
            space.projection.grad[0] = 0.0
        optimiser.step()
        if step % 50 == 0:
            losses.append(float(loss))
    return losses


@torch.no_grad()
def judge(space: LexicalSpace, heard: Heard) -> dict[str, float]:
    """Of held-out windows: the right text first, and the other mix first, among all of them."""
    one, other = (space(heard.letters[:, i].long()) for i in range(2))
    texts = space(letters_of(heard.texts))
    target = torch.arange(len(texts))
    return {
        "sound_to_text": float(((one @ texts.T).argmax(dim=1) == target).float().mean()),
        "text_to_sound": float(((texts @ one.T).argmax(dim=1) == target).float().mean()),
        "sound_to_sound": float(((one @ other.T).argmax(dim=1) == target).float().mean()),
        "same_cosine": float((one * texts).sum(dim=1).mean()),
        "other_cosine": float((one @ texts.T)[~torch.eye(len(texts), dtype=torch.bool)].mean()),
    }


def save_space(path: Path, space: LexicalSpace) -> None:
    torch.save({"options": dataclasses.asdict(space.options), "space": space.state_dict()}, path)


def load_space(path: Path) -> LexicalSpace:
    """The space in ``path``; tensors and plain values only are read from the file."""
    state = torch.load(path, weights_only=True)
    space = LexicalSpace(LexicalOptions(**state["options"]))
    space.load_state_dict(state["space"], strict=True)
    return space.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn a lexical space for a reader.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--stems", type=Path, required=True)
    parser.add_argument("--backings", type=Path, required=True)
    parser.add_argument("--poems", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--features", type=int, default=LexicalOptions.features)
    parser.add_argument("--dim", type=int, default=LexicalOptions.dim)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache = arguments.out.with_suffix(".heard.pt")
    if cache.exists():
        kept = torch.load(cache, weights_only=True)
        heard = Heard(kept["letters"], kept["texts"])
    else:
        backings = Backings(arguments.backings)
        reader = load_reader(arguments.reader)
        heard = hear(reader, Stems(arguments.stems), backings, arguments.windows, seed=1)
        torch.save({"letters": heard.letters, "texts": heard.texts}, cache)
    held = max(100, len(heard.texts) // 5)
    test = Heard(heard.letters[:held], heard.texts[:held])
    train = Heard(heard.letters[held:], heard.texts[held:])
    texts = window_texts(training_poems(load_poems(arguments.poems)), 6000, seed=1)
    space = LexicalSpace(LexicalOptions(arguments.features, arguments.dim))
    space.learn(texts)
    rows = {"hashed": judge(space, test)}
    losses = learn_projection(space, train, texts, steps=arguments.steps, seed=1)
    rows["learned"] = judge(space, test)
    save_space(arguments.out, space)
    print(json.dumps(rows | {"losses": losses}, indent=1))


if __name__ == "__main__":
    main()
