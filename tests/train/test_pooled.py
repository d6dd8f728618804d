"""The paper's head on our reader's frames: its loss, its learning, what it hears."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from export.pooled import HeadTraining, hidden_states, paper_loss, train_head  # noqa: E402
from export.reader import Reader, ReaderOptions  # noqa: E402
from export.student import HeadOptions  # noqa: E402

pytestmark = pytest.mark.train
SMALL = HeadOptions(width=16, hidden=(24,), dim=12)


def test_the_loss_of_cases_worked_by_hand() -> None:
    axes = torch.eye(2)
    assert paper_loss(axes, axes, 0.5) == 0
    # pairs are orthogonal, and within each batch the cosines agree
    assert paper_loss(axes, axes.flip(0), 0.5) == pytest.approx(0.5)
    # both sounds the same: one pair of two is right; two of four cosines are 1 and not 0
    assert paper_loss(axes[[0, 0]], axes, 0.25) == pytest.approx(0.25 * 0.5 + 0.75 * 0.5)


def test_a_head_learns_which_text_belongs_to_which_frames() -> None:
    torch.manual_seed(2)
    planted = torch.randn(60, 1, 1, 16)
    frames = (planted + 0.5 * torch.randn(60, 2, 30, 16)).half()
    text = F.normalize(torch.randn(60, 12), dim=1)
    training = HeadTraining(minutes=0.05, batch=60, warm_up=10, learning_rate=3e-3)
    head, losses = train_head(frames, text, SMALL, training)
    found = (head(frames[:, 0].float()) @ text.T).argmax(dim=1)
    assert losses[-1] < losses[0] / 2
    assert float((found == torch.arange(60)).float().mean()) > 0.8


@torch.no_grad()
def test_hidden_states_are_those_of_each_reading() -> None:
    torch.manual_seed(3)
    options = ReaderOptions(
        width=32, heads=2, feed_forward=64, rotated=8, blocks=2, fine_blocks=1, moments_after=1
    )
    reader, samples = Reader(options).eval(), 0.1 * torch.randn(2, 320_000)
    with hidden_states(reader) as states:
        phones = reader(samples)
        reader(samples[:1])
    reader(samples)
    assert [tuple(part.shape) for part in states] == [(4, 104, 32), (2, 104, 32)]
    assert torch.allclose(states[0][:2].float(), states[1].float(), atol=2e-3)
    assert torch.isfinite(phones).all()
