"""Phones that the voices name, in one small set: the CMU vowels and consonants of English.

espeak names what it says in IPA, a little differently in each accent; flite and festival name CMU
phones. Where a phone is known for every moment of a clip, learning to hear it is a dense lesson
that letters alone, with no times, are not.
"""

from __future__ import annotations

PHONES = tuple(
    "none aa ae ah ao aw ay eh er ey ih iy ow oy uh uw"
    " b ch d dh f g hh jh k l m n ng p r s sh t th v w y z zh".split()
)
UNKNOWN = -1

_IPA = {
    "aa": "ɑ ɑː ɒ ɑːɹ ɑə aː a:", "ae": "æ a", "ah": "ə ʌ ɐ", "ao": "ɔ ɔː oː o ɔːɹ ɔə oːɹ oə",
    "aw": "aʊ æʊ ʌʉ", "ay": "aɪ aɪə", "eh": "ɛ e eə ɛɹ", "er": "ɜː ɜ ɚ əɹ ʌɹ", "ey": "eɪ eː ei",
    "ih": "ɪ ᵻ iə ɪɹ", "iy": "i iː", "ow": "oʊ əʊ əu ʌʊ", "oy": "ɔɪ oɪ", "uh": "ʊ ʊə ʊɹ ʉɹ",
    "uw": "u uː ʉ ʉː", "b": "b", "ch": "tʃ", "d": "d", "dh": "ð", "f": "f", "g": "ɡ g", "hh": "h",
    "jh": "dʒ", "k": "k x", "l": "l əl", "m": "m", "n": "n", "ng": "ŋ", "p": "p", "r": "r ɹ ɾ",
    "s": "s", "sh": "ʃ", "t": "t t̪", "th": "θ", "v": "v", "w": "w ʍ", "y": "j ʲ",
    "z": "z", "zh": "ʒ",
}  # fmt: skip
_NUMBERS = (
    {"": 0, "ax": PHONES.index("ah"), "axr": PHONES.index("er")}
    | {ipa: PHONES.index(phone) for phone, spellings in _IPA.items() for ipa in spellings.split()}
    | {phone: number for number, phone in enumerate(PHONES) if len(phone) == 2}
)


_FRENCH = {
    "ʁ": "r", "ɑ̃": "ao", "ɔ̃": "ow", "ɛ̃": "ae", "œ̃": "ah", "y": "uw", "œ": "ah", "ø": "ah", "ɲ": "n",
    "ɥ": "w",
}  # fmt: skip


def french_phone(name: str) -> int:
    """The English phone that espeak's name of a French one counts as; ``UNKNOWN`` if none does."""
    name = name.rstrip("-")
    return phone_number(_FRENCH.get(name, name))


def phone_number(name: str) -> int:
    """Index into ``PHONES``; 0 for silence, ``UNKNOWN`` for a name that is in no list."""
    return _NUMBERS.get(name, UNKNOWN)
