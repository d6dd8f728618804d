"""Text from files, made safe to show.

Names and tags are hostile: a title can hold escape sequences that rewrite the screen, or characters
that turn a line around. Whatever shows them, on a terminal, in a log or in a table, does so through
``safe``.
"""

from __future__ import annotations

import unicodedata
from typing import Any

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes text for that begins so


def safe(text: object, longest: int | None = None) -> str:
    """The text in one line, with characters that are not seen as such written as escapes.

    Bytes of a file name that are no text (surrogates) become ``\\xNN``.
    """
    shown = "".join(_visible(character) for character in str(text))
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def _visible(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    # Control, format (bidirectional, zero width), surrogate, private, unassigned; line ends.
    if unicodedata.category(character)[0] == "C" or unicodedata.category(character) in ("Zl", "Zp"):
        return character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return character


def cell(value: Any) -> Any:
    """A value for a table that a spreadsheet may open: text is ``safe``, and never a formula."""
    if not isinstance(value, str):
        return value
    shown = safe(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
