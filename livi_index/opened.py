"""The networks of a bundle, each opened when it is first needed, which may be never."""

from __future__ import annotations

from functools import cached_property

from livi_index.encoders import AudioEncoder
from livi_index.models import Bundle
from livi_index.vocals import VocalDetector


class Opened:
    """``singing`` is the spec of the first space, ``others`` those over whole recordings;
    ``witness`` tells what reading says of voices.

    Raises BadModel and MissingRuntime where a network is first asked for.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self.witness = bundle.card.witness
        self.singing, *self.others = bundle.card.spaces
        self._bundle = bundle
        self._threads = threads

    @cached_property
    def detector(self) -> VocalDetector:
        return VocalDetector(self._bundle, threads=self._threads)

    @cached_property
    def encoder(self) -> AudioEncoder:
        """That of the first space."""
        return AudioEncoder(self._bundle, self.singing.name, threads=self._threads)

    @cached_property
    def other_encoders(self) -> dict[str, AudioEncoder]:
        """Those of the other spaces, by name."""
        return {
            space.name: AudioEncoder(self._bundle, space.name, threads=self._threads)
            for space in self.others
        }
