"""When each phone of a known line is spoken, for synthesisers that do not tell.

pocketsphinx aligns with the acoustic model that its package brings (US English, 16 kHz, trained
on people), in steps of 10 ms. ``tests/train/test_aligner.py`` holds it against flite, which tells.
"""

from __future__ import annotations

import functools

import numpy as np
from pocketsphinx import Decoder

from catalogs.engines import SAMPLE_RATE, FloatArray, Phone, Voice, cmu_phones, pronounce

_FRAME_S = 0.01
_PAUSES = frozenset({"sil", "<s>", "</s>", "+spn+", "+nsn+"})
_SPELLINGS = {"ax": "ah", "axr": "er"}  # flite's phones that the model has no sounds for
_MARGIN = np.zeros(SAMPLE_RATE // 10, dtype=np.float32)  # the model looks for silence at the ends


def align(samples: FloatArray, line: str) -> list[Phone]:
    """The CMU phones of ``line`` in (T,) float32 at 16 kHz; ``RuntimeError`` if they do not fit."""
    decoder = _decoder()
    words = [word for word in line.split() if _in_dictionary(decoder, word)]
    if not words:
        raise RuntimeError(f"{line!r} has no words")
    sound = np.clip(np.concatenate([_MARGIN, samples, _MARGIN]), -1, 1) * 32767
    data = sound.astype(np.int16).tobytes()
    decoder.set_align_text(" ".join(words))
    _decode(decoder, data)
    if decoder.hyp() is None:
        raise RuntimeError(f"cannot tell when the phones of {line!r} are spoken")
    decoder.set_alignment()
    _decode(decoder, data)
    late_s = len(_MARGIN) / SAMPLE_RATE
    marks = [
        ("pau" if phone.name.lower() in _PAUSES else phone.name.lower(),
         max(0.0, (phone.start + phone.duration) * _FRAME_S - late_s))
        for word in decoder.get_alignment()
        for phone in word
    ]  # fmt: skip
    return cmu_phones(marks)


def _in_dictionary(decoder: Decoder, word: str) -> bool:
    """Whether the model can say ``word``, as flite pronounces it where no dictionary has it."""
    if decoder.lookup_word(word) is not None:
        return True
    phones = pronounce(Voice("flite", "slt"), [word])[0]
    if phones:  # an apostrophe alone has none, and a word without phones ends the process
        names = [_SPELLINGS.get(phone.name, phone.name).upper() for phone in phones]
        decoder.add_word(word, " ".join(names), False)
    return bool(phones)


def _decode(decoder: Decoder, data: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(data, full_utt=True)
    decoder.end_utt()


@functools.cache
def _decoder() -> Decoder:
    # Only what is searched without the best path through a lattice can be aligned phone by phone.
    return Decoder(samprate=SAMPLE_RATE, loglevel="FATAL", bestpath=False)
