"""What may have been sung where the reader guesses a phone: shades of its guesses.

The reader's likelihoods say more than its best guess, and more than a transcript can keep. So the
likelihoods that come with each phone are sorted into at most 64 kinds, its shades (k-means of their
roots, so that distances are Hellinger's), and a transcript keeps the number of the shade. What a
shade stands for is the mean of its kind.

Likelihoods are taken a little sharper than the reader tells them, and towards what is sung at all
where it nearly said nothing: such a phone is often nowhere in the words.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from export.phones import PHONES
from export.reader import DOUBT, guess
from livi_index.profiles import STEPS_PER_NAT

SHADES = 64  # of a phone, at most
SHARPNESS = 1.2
DOUBTED, TRUSTED = 0.7, 0.6  # towards what is sung at all: 0.7, less up to 0.6 where it is sure
_MEMBERS = 25  # of a shade, on average at least
_ROUNDS = 20


class Shades(nn.Module):
    """(…, 40) log-probabilities → (…,) guesses: the phone, 0 for none, and ``DOUBT`` times its
    shade, from 1.

    Buffers: ``shares`` (39,) of each phone in what is sung; ``centres`` (40, 64, 39) roots of
    likelihoods in the middle of each shade; ``likely`` (40, 65, 39) what was sung where it was
    guessed, 0 for a shade that is not known.
    """

    def __init__(self) -> None:
        super().__init__()
        n = len(PHONES) - 1
        self.register_buffer("shares", torch.full((n,), 1 / n))
        self.register_buffer("centres", torch.zeros(n + 1, SHADES, n))
        self.register_buffer("likely", torch.full((n + 1, SHADES + 1, n), 1 / n))

    def forward(self, log_phones: Tensor) -> Tensor:
        phones = guess(log_phones)
        centres = self.centres[phones]
        near = (centres @ self.soft(log_phones).sqrt()[..., None])[..., 0]
        near = near - centres.square().sum(dim=-1) / 2
        return torch.where(phones > 0, phones + DOUBT * (1 + near.argmax(dim=-1)), 0)

    def soft(self, log_phones: Tensor) -> Tensor:
        """(…, 40) → (…, 39) how likely each phone was sung where one was read."""
        said = log_phones[..., 1:]
        sure = torch.sigmoid(said.amax(dim=-1, keepdim=True) - log_phones[..., :1])
        towards = DOUBTED - TRUSTED * sure
        return (1 - towards) * (SHARPNESS * said).softmax(dim=-1) + towards * self.shares

    def learn(self, log_phones: Tensor, seed: int = 1) -> None:
        """From (N, 40) log-probabilities where a phone was guessed."""
        phones = guess(log_phones)
        self.shares.copy_((SHARPNESS * log_phones[:, 1:]).softmax(dim=-1).mean(dim=0))
        likely = self.soft(log_phones)
        self.likely[:] = self.shares
        for phone in range(1, len(PHONES)):
            rows = likely[phones == phone]
            if not len(rows):
                continue
            kinds = _kinds(rows.sqrt().numpy(), seed)
            means = torch.stack([rows[kinds == k].mean(dim=0) for k in range(kinds.max() + 1)])
            roots = [rows[kinds == k].sqrt().mean(dim=0) for k in range(kinds.max() + 1)]
            self.likely[phone, 0] = rows.mean(dim=0)
            self.likely[phone, 1 : len(means) + 1] = means
            self.centres[phone, : len(roots)] = torch.stack(roots)

    def steps(self) -> NDArray[np.uint8]:
        """(40, 65, 39) what a bundle holds of ``likely``."""
        nats = -self.likely.clamp(min=1e-9).log().numpy()
        return np.round(nats * STEPS_PER_NAT).clip(0, 255).astype(np.uint8)


def _kinds(rows: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """(N,) the kind of each row, numbered from 0 without holes."""
    n = min(SHADES, max(1, len(rows) // _MEMBERS))
    start = rows[np.random.default_rng([seed, 50]).choice(len(rows), n, replace=False)]
    with warnings.catch_warnings():  # a kind that loses its last member is one less
        warnings.simplefilter("ignore", UserWarning)
        _, kinds = kmeans2(rows, start, iter=_ROUNDS, minit="matrix")
    return np.asarray(np.unique(kinds, return_inverse=True)[1], np.int64)


def save_shades(path: Path, shades: Shades) -> None:
    torch.save(shades.state_dict(), path)


def load_shades(path: Path) -> Shades:
    """The shades in ``path``; tensors only are read from the file."""
    shades = Shades()
    shades.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return shades.eval()
