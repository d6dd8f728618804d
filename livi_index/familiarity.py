"""How far what is sung is from what the reader was trained on.

A reader hears the phones of the language that it learned in everything: in another language, in
singing without words, in screams and in a band that it takes for a voice. What it reads there is
in no order that the language knows, or of few phones again and again. Two figures tell that of a
transcript, with no word of it understood:

    order    nats by which its phones follow each other better than if they were shuffled, as three
             in a row do in the language (a trigram model, in a file of the bundle)
    shares   how unlike the shares of its phones are to those of the language: the squared
             Hellinger distance, less what chance gives to a sample of that size

The distance is how many standard deviations both are worse than in the recordings that the model
was trained on, together. Many songs have a little; the card says what is far. That is worth saying
and no more: what was read of a foreign song or of a drowned voice still tells versions from others.
Beyond the farthest recording of the training, where a syllable returns for minutes, it tells
nothing: all such songs are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from livi_index.calibration import Familiar
from livi_index.errors import BadModel
from livi_index.models import Bundle, verify_file
from livi_index.transcripts import Transcript

LEAST_PHONES = 60  # of a transcript: some 20 s of singing; fewer say too little
PAUSE_S = 1.5  # between phones that do not follow each other
STEPS_PER_NAT = 16  # in the file
Figures = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Language:
    """Logarithms (P, P, P) float32 of how likely phone c is after a and b; where a is 0, after b
    alone, and where both are, at all."""

    log_odds: NDArray[np.float32]

    @classmethod
    def open(cls, bundle: Bundle, file: str) -> Language:
        """From a file of the bundle, verified first. Raises BadModel."""
        verify_file(bundle, file)
        try:
            steps = np.load(bundle.path / file, allow_pickle=False)
        except ValueError as error:
            raise BadModel(f"{bundle.path / file} is not an array: {error}") from error
        if steps.ndim != 3 or steps.dtype != np.uint8 or len(set(steps.shape)) != 1:
            raise BadModel(f"{bundle.path / file} does not say how phones follow each other")
        return cls(-steps.astype(np.float32) / STEPS_PER_NAT)

    @property
    def shares(self) -> NDArray[np.float32]:
        """Of each phone (P,) in the language."""
        found = np.exp(self.log_odds[0, 0])
        found[0] = 0
        return np.asarray(found / found.sum())

    def figures(self, transcript: Transcript) -> Figures | None:
        """Order and shares; None where too little was read, or other phones than there are."""
        phones = transcript["phone"].astype(np.int64)
        if len(phones) < LEAST_PHONES or phones.max() >= len(self.log_odds):
            return None
        near = np.diff(transcript["time_s"]) < PAUSE_S
        rows = np.flatnonzero(near[:-1] & near[1:])
        if not len(rows):
            return None
        found = np.bincount(phones, minlength=len(self.log_odds)) / len(phones)
        shuffled = np.einsum("abc,a,b,c->", self.log_odds, found, found, found, optimize=True)
        followed = self.log_odds[phones[rows], phones[rows + 1], phones[rows + 2]].mean()
        chance = (np.count_nonzero(self.shares) - 1) / (8 * len(phones))
        unlike = 1 - np.sqrt(found * self.shares).sum() - chance
        return float(followed - shuffled), float(unlike)


class Familiarity:
    """What a bundle's card says of the recordings that its reader was trained on."""

    def __init__(self, bundle: Bundle, usual: Familiar) -> None:
        self._language = Language.open(bundle, usual.file)
        self._usual = usual

    def distance(self, transcript: Transcript) -> float | None:
        """0 for what is at least as usual as the mean; None where too little was read."""
        figures = self._language.figures(transcript)
        return None if figures is None else distance(figures, self._usual)


def distance(figures: Figures, usual: Familiar) -> float:
    """How many standard deviations both figures are worse than usual, together."""
    order, shares = figures
    less_order = max(0.0, (usual.order - order) / usual.order_spread)
    other_shares = max(0.0, (shares - usual.shares) / usual.shares_spread)
    return float(np.hypot(less_order, other_shares))
