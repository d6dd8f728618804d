"""The reader is trained with other operations than it reads with; both compute the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from export.average import average  # noqa: E402
from export.reader import CLIP_SAMPLES, GUESSES, Frames, Reader, ReaderOptions  # noqa: E402
from export.train import (  # noqa: E402
    TrainOptions,
    ctc,
    load_reader,
    moment_loss,
    optimiser_of,
    save_checkpoint,
)
from livi_index.errors import BadInput  # noqa: E402

pytestmark = pytest.mark.train
SMALL = ReaderOptions(
    width=24, heads=2, feed_forward=32, rotated=8, blocks=3, fine_blocks=1, moments_after=2
)


@pytest.mark.parametrize(("kernel", "stride"), [(127, 64), (7, 3), (3, 2), (4, 4), (2, 3)])
def test_a_convolution_and_a_product_are_the_same(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    frames = Frames(5, 6, kernel, stride, bias=True)
    x = torch.randn(2, 400, 5)
    trained, read = frames.train()(x), frames.eval()(x)
    assert trained.shape == read.shape == (2, (400 - kernel) // stride + 1, 6)
    assert torch.allclose(trained, read, atol=1e-5)


def test_what_is_trained_is_what_reads() -> None:
    torch.manual_seed(0)
    reader = Reader(SMALL)
    with torch.no_grad():  # every part counts
        for parameter in reader.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    clips = 0.1 * torch.randn(2, CLIP_SAMPLES)
    phones = torch.randint(0, 40, (2, GUESSES // 4)).repeat_interleave(4, dim=1)
    outputs, gradients = [], []
    for mode in (True, False):
        reader.train(mode).zero_grad()
        end, half = reader.both(clips)
        (ctc(end, phones) + moment_loss(half, phones)).backward()
        outputs.append((end.detach(), half.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in reader.parameters()]))
    for trained, read in zip(*outputs, strict=True):
        assert torch.allclose(trained, read, atol=1e-3)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.9999


def test_the_mean_of_two_readers_lies_between_them(tmp_path: Path) -> None:
    options = TrainOptions()
    readers = []
    for seed in range(2):
        torch.manual_seed(seed)
        reader = Reader(SMALL)
        optimiser = optimiser_of(reader, options)
        save_checkpoint(tmp_path / f"{seed}.pt", reader, optimiser, 5 + seed, 1.0, options)
        readers.append(reader)
    paths = [tmp_path / "0.pt", tmp_path / "1.pt"]
    average(paths, [1, 3], tmp_path / "mean.pt")
    mean = load_reader(tmp_path / "mean.pt").state_dict()
    for name, weights in mean.items():
        one, other = (reader.state_dict()[name] for reader in readers)
        assert torch.allclose(weights, 0.25 * one + 0.75 * other, atol=1e-6), name
    with pytest.raises(BadInput, match="2 checkpoints need as many shares"):
        average(paths, [1.0], tmp_path / "none.pt")
    narrow = Reader(dataclasses.replace(SMALL, feed_forward=16))
    save_checkpoint(paths[1], narrow, optimiser_of(narrow, options), 0, 0.0, options)
    with pytest.raises(BadInput, match="different sizes"):
        average(paths, [1, 1], tmp_path / "none.pt")
    assert not (tmp_path / "none.pt").exists()
