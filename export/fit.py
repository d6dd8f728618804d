"""Learn a space in which what the reader hears lies beside what is sung.

    python -m export.fit SPACE.pt --reader reader.pt --stems STEMS --backings BACKINGS --poems POEMS

Thirty-second windows of sung training clips are mixed twice, read by the frozen reader, and kept as
phones beside the phones and the letters that were sung; poems spoken by espeak-ng add pairs of
clean phones and letters. Features are chosen from the clean ones. The projections start as the
principal directions of clean phones (half whitened) and the ridge regression of letters onto them.

Then both learn by a contrast (InfoNCE, van den Oord et al. 2018): two mixes of a window, the window
and its words, clean phones and their letters attract each other against all others of a batch.
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
from torch.nn.utils.rnn import pad_sequence

from catalogs.engines import Voice, pronounce
from catalogs.poems import Poem, load_poems, plain, training_poems
from export.lexical import Bag, LexicalOptions, LexicalSpace, begins, letters_of, padded
from export.mixes import Backings, Mixer, MixOptions, Stems
from export.phones import phone_number
from export.reader import Reader, guess
from export.train import load_reader, sequence

_CLIPS = 3  # ten seconds each: a window
_MIXES = MixOptions(instrumental=0.0, bare=0.05)
_VOICE = Voice("espeak", "en-us")


@dataclasses.dataclass(frozen=True)
class Heard:
    """``phones`` (N, 2, L) that were read of two mixes of each window, 0 at the end, with the
    reader's log-probabilities (N, 2, L, 40) float16 at each, ``clean`` (N, L) phones as sung, and
    ``texts`` the words of each."""

    phones: Tensor
    log_phones: Tensor
    clean: Tensor
    texts: list[str]

    def part(self, rows: slice) -> Heard:
        return Heard(self.phones[rows], self.log_phones[rows], self.clean[rows], self.texts[rows])


def hear(reader: Reader, stems: Stems, backings: Backings, n: int, seed: int) -> Heard:
    """``n`` windows, each mixed twice and read."""
    rng = np.random.default_rng([seed, 30])
    mixer = Mixer(stems, backings, _MIXES)
    felt, clean, texts = [], [], []
    for i in range(n):
        clips = stems.run(rng, _CLIPS)
        mixed = np.stack(
            [np.concatenate([mixer.mix(clip, rng).samples for clip in clips]) for _ in range(2)]
        )
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            log_phones = reader(torch.from_numpy(mixed)).float()
        felt += [row[kept] for row, kept in zip(log_phones, begins(guess(log_phones)), strict=True)]
        sounding = torch.from_numpy(np.concatenate([clip.phones for clip in clips]))
        clean.append(sequence(sounding))
        texts.append(" ".join(clip.text for clip in clips))
        if i % 200 == 199:
            print(f"{i + 1} windows heard", flush=True)
    log_phones = pad_sequence(felt, batch_first=True).unflatten(0, (-1, 2))
    read = torch.tensor([len(row) for row in felt]).reshape(-1, 2, 1)
    phones = torch.where(torch.arange(log_phones.shape[2]) < read, guess(log_phones), 0)
    return Heard(phones.to(torch.int8), log_phones.half(), padded(clean).to(torch.int8), texts)


def window_texts(poems: list[Poem], n: int, seed: int) -> list[list[str]]:
    """Stretches of training poems of about a window's length, as lines."""
    rng = np.random.default_rng([seed, 31])
    long = [p for p in poems if len(p.lines) >= 8]
    texts = []
    for _ in range(n):
        lines = long[int(rng.integers(len(long)))].lines
        at = int(rng.integers(len(lines) - 7))
        texts.append([plain(line) for line in lines[at : at + int(rng.integers(2, 9))]])
    return texts


def clean_phones(texts: list[list[str]]) -> Tensor:
    """(N, L) int8 phones as espeak-ng says these lines."""
    rows = []
    for lines in texts:
        said = pronounce(_VOICE, [line for line in lines if line])
        numbers = [phone_number(phone.name) for line in said for phone in line]
        rows.append([number for number in numbers if number > 0])
    return padded(rows).to(torch.int8)


@torch.no_grad()
def start_projections(space: LexicalSpace, phones: Tensor, texts: list[str], ridge: float) -> None:
    """Principal directions of clean ``phones`` (N, L), and the letters' way onto them."""
    said = _bags(space.sound, phones)
    dim = space.options.dim
    torch.manual_seed(0)
    _, sizes, directions = torch.pca_lowrank(said, q=dim, center=False, niter=3)
    space.sound.projection.copy_(directions / sizes.clamp(min=1e-3).sqrt())
    written = _bags(space.text, letters_of(texts))
    gram = written.T @ written + ridge * torch.eye(written.shape[1])
    wanted = space.sound.embed(said)
    space.text.projection.copy_(torch.linalg.solve(gram, written.T @ wanted))
    for bag in (space.sound, space.text):
        bag.projection[0] = 0.0


def learn_projections(
    space: LexicalSpace,
    heard: Heard,
    clean: Tensor,
    texts: list[str],
    *,
    steps: int,
    seed: int,
    batch: int = 256,
    temperature: float = 0.05,
    rate: float = 3e-4,
) -> list[float]:
    """Train both projections in place; the losses of every 50th step."""
    rng = np.random.default_rng([seed, 32])
    with torch.no_grad():
        one, other = (_bags(space.sound, heard.phones[:, i]) for i in range(2))
        sung = _bags(space.text, letters_of(heard.texts))
        said, written = _bags(space.sound, clean), _bags(space.text, letters_of(texts))
    optimiser = torch.optim.Adam(space.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        a = torch.from_numpy(rng.choice(len(sung), min(batch, len(sung)), replace=False))
        b = torch.from_numpy(rng.choice(len(written), min(2 * batch, len(written)), replace=False))
        first, second = space.sound.embed(one[a]), space.sound.embed(other[a])
        words = space.text.embed(torch.cat([sung[a], written[b]]))
        spoken = space.sound.embed(said[b])
        loss = (
            _contrast(first, torch.cat([second, spoken]), temperature)
            + _contrast(first, words, temperature)
            + _contrast(words[: len(a)], torch.cat([second, spoken]), temperature)
            + _contrast(spoken, words[len(a) :], temperature)
        )
        optimiser.zero_grad()
        loss.backward()
        for bag in (space.sound, space.text):
            bag.projection.grad[0] = 0.0
        optimiser.step()
        if step % 50 == 0:
            losses.append(float(loss.detach()))
    return losses


def _contrast(these: Tensor, those: Tensor, temperature: float) -> Tensor:
    """Row i of ``these`` should find row i of ``those``."""
    return F.cross_entropy(these @ those.T / temperature, torch.arange(len(these)))


def _bags(bag: Bag, strings: Tensor) -> Tensor:
    return torch.cat([bag.weighted(bag.counts(part.long())) for part in strings.split(256)])


@torch.no_grad()
def judge(space: LexicalSpace, heard: Heard) -> dict[str, float]:
    """Of held-out windows: the right text first, and the other mix first, among all of them."""
    one, other = (space.sound.embed(_bags(space.sound, heard.phones[:, i])) for i in range(2))
    clean = space.sound.embed(_bags(space.sound, heard.clean))
    texts = space.text.embed(_bags(space.text, letters_of(heard.texts)))
    target = torch.arange(len(texts))

    def first(these: Tensor, those: Tensor) -> float:
        return float(((these @ those.T).argmax(dim=1) == target).float().mean())

    return {
        "sound_to_sound": first(one, other),
        "sound_to_clean": first(one, clean),
        "sound_to_text": first(one, texts),
        "text_to_sound": first(texts, one),
        "same_cosine": float((one * other).sum(dim=1).mean()),
        "text_cosine": float((one * texts).sum(dim=1).mean()),
        "other_cosine": float((one @ other.T)[~torch.eye(len(one), dtype=torch.bool)].mean()),
    }


def load_heard(path: Path) -> Heard:
    """What ``main`` has kept beside a space; tensors and plain values only are read."""
    return Heard(**torch.load(path, weights_only=True))


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
    parser.add_argument("--windows", type=int, default=500)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--texts", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    heard = _heard(arguments)
    held = max(100, len(heard.texts) // 5)
    test, train = heard.part(slice(held)), heard.part(slice(held, None))
    poems = training_poems(load_poems(arguments.poems))
    lines = window_texts(poems, arguments.texts, seed=1)
    clean, texts = clean_phones(lines), [" ".join(part) for part in lines]
    space = LexicalSpace()
    space.sound.learn(clean.long())
    space.text.learn(letters_of(texts))
    start_projections(space, clean, texts, ridge=1.0)
    rows = {"principal": judge(space, test)}
    save_space(arguments.out.with_suffix(".start.pt"), space)
    losses = learn_projections(space, train, clean, texts, steps=arguments.steps, seed=1)
    rows["learned"] = judge(space, test)
    save_space(arguments.out, space)
    print(json.dumps(rows | {"losses": losses}, indent=1))


def _heard(arguments: argparse.Namespace) -> Heard:
    """What the reader hears, kept beside the space so that it is computed once."""
    cache = arguments.out.with_suffix(".heard.pt")
    if cache.exists():
        return load_heard(cache)
    stems, backings = Stems(arguments.stems), Backings(arguments.backings)
    heard = hear(load_reader(arguments.reader), stems, backings, arguments.windows, seed=1)
    torch.save(dict(vars(heard)), cache)
    return heard


if __name__ == "__main__":
    main()
