"""Everything that can go wrong for a user, as one small tree.

    LiviError                     base; its text is the whole message, no traceback is shown
    ├── UnreadableAudio           (ValueError) a file that cannot be decoded; has a stable ``code``
    ├── BadModel                  (ValueError) a bundle that is missing, damaged or of another kind
    ├── MissingRuntime            (ImportError) onnxruntime is absent, or installed twice
    ├── LibraryNotFound           (FileNotFoundError) no library at this place, or nothing published
    ├── LibraryDamaged            (RuntimeError) a file of a library is not what was written
    ├── LibraryNotWritable        (OSError) disk full, quota, no permission, read-only
    ├── LibraryLocked             (RuntimeError) another build holds the library; has ``holder``
    ├── NoSinging                 (ValueError) a query without enough singing to compare
    └── BadInput                  (ValueError) anything else in what the user asked for

A message says what happened, to which file, and what to do next.
"""

from __future__ import annotations

from pathlib import Path


class LiviError(Exception):
    """Base of all errors that a user can meet."""


class UnreadableAudio(LiviError, ValueError):
    """``path`` cannot be decoded; ``code`` is one of ``audio.FailureCode``."""

    def __init__(self, path: Path, code: str, reason: str) -> None:
        super().__init__(path, code, reason)
        self.path = path
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class BadModel(LiviError, ValueError):
    """A model bundle is missing, damaged, or not of the kind that is needed."""


class MissingRuntime(LiviError, ImportError):
    """onnxruntime cannot be imported, or its two packages overwrite each other."""


class LibraryNotFound(LiviError, FileNotFoundError):
    """There is no library at the given place, or it holds nothing to ask yet."""


class LibraryDamaged(LiviError, RuntimeError):
    """A published file is not what its manifest says, or the database cannot be read."""


class LibraryNotWritable(LiviError, OSError):
    """A library's folder takes no more: disk full, quota, no permission, read-only."""


class LibraryLocked(LiviError, RuntimeError):
    """Another process is building into this library; ``holder`` describes it."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message, holder)
        self.holder = holder

    def __str__(self) -> str:
        return str(self.args[0])


class NoSinging(LiviError, ValueError):
    """A query does not hold enough singing to be compared by its words."""


class BadInput(LiviError, ValueError):
    """What the user asked for cannot be done as written."""
