"""Written words beside what is read of singing: letters laid over phones.

What somebody types is never looked up in a dictionary. Letters, and pairs that stand for one sound
(th, sh, ee …), are aligned with phones as transcripts are with each other (``alignment``), by how
often a letter is written for what the model reads as a phone. So a misspelt word keeps most of its
score, and a line is found wherever it is sung.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace

import numpy as np

from livi_index.alignment import CLASSES, Scoring
from livi_index.encoders import normalise_text
from livi_index.errors import BadModel
from livi_index.models import Bundle, verify_file
from livi_index.profiles import Profiles, from_steps, priced
from livi_index.transcripts import PHONE_DTYPE, Transcript

FIRST_TOKEN = 128  # phones have the numbers below


@dataclass(frozen=True, eq=False)
class Spelling:
    """``tokens``: letters, and groups of letters that stand for one sound; ``scoring``: what one
    of them, numbered from ``FIRST_TOKEN``, is worth beside a phone; ``profiles`` which phones it is
    written for."""

    tokens: tuple[str, ...]
    scoring: Scoring
    profiles: Profiles | None = None

    def spell(self, text: str) -> Transcript:
        """(L,) the tokens of a text in place of phones, at no times."""
        # A letter that is doubled sounds once; a pair that is a token is one anyway.
        letters = re.sub(r"([^aeou])\1", r"\1", normalise_text(text).replace(" ", ""))
        longest_first = sorted(self.tokens, key=len, reverse=True)
        found = re.findall("|".join(map(re.escape, longest_first)), letters)
        spelt = np.zeros(len(found), PHONE_DTYPE)
        spelt["phone"] = [FIRST_TOKEN + self.tokens.index(token) for token in found]
        return spelt


def read_spelling(
    bundle: Bundle, file: str, phones: Scoring, profiles: Profiles | None = None
) -> Spelling | None:
    """The spelling in a bundle's scoring file, verified first; None where it has none.

    ``phones`` is the scoring of the same file, ``profiles`` those of the bundle. Raises BadModel.
    """
    verify_file(bundle, file)
    path = bundle.path / file
    try:
        values = json.loads(path.read_bytes()).get("letters")
        if values is None:
            return None
        tokens = tuple(str(token) for token in values["tokens"])
        pairs = np.array(values["pairs"], np.int8)
        gap, (first, second) = int(values["gap"]), map(float, values["chance"])
        likely = np.array(values.get("likely", []), np.uint8)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise BadModel(f"{path} does not say how words are spelt: {error!r}") from error
    whole = pairs.shape == (CLASSES, CLASSES) and 0 < len(tokens) <= CLASSES and all(tokens)
    if not whole or not 0 < gap < 128 or not np.isfinite([first, second]).all():
        raise BadModel(f"{path} does not say how words are spelt: numbers out of range")
    classes = phones.classes.copy()
    classes[FIRST_TOKEN : FIRST_TOKEN + len(tokens)] = np.arange(len(tokens))
    scoring = Scoring(classes, pairs, gap, phones.steps_per_nat, (first, second))
    if profiles is None:
        return Spelling(tokens, scoring)
    if likely.shape != (len(tokens), len(profiles.shares)):
        raise BadModel(f"{path} does not say how words are spelt: likely phones are out of range")
    table = profiles.likely.copy()
    table[FIRST_TOKEN : FIRST_TOKEN + len(tokens)] = from_steps(likely)[:, None]
    letters = replace(profiles, likely=table, classes=None, between=None)
    written = priced(letters, values.get("prices", {}), bundle)
    return Spelling(tokens, scoring, written)
