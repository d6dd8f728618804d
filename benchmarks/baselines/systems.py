"""All systems by name: their networks, where their weights are to be had, how they were measured.

``livi`` and ``livi-index`` are a bundle: its vectors and their mean, as the paper measures, and the
whole product with its own ranking; ``livi-paper`` is the bundle that ``export.livi`` makes of the
authors' weights. The text rows read words that are known of a catalogue, or that
a transcriber hears.

No weights travel with this project. They are looked for below one folder, by the paths that the
releases unpack to; a system without its weights says where they are, and is not measured.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.baselines.distances import Measure
from benchmarks.baselines.frontend import FloatArray
from livi_index.errors import BadInput

HUB = "https://huggingface.co"
ZENODO = "https://zenodo.org/records/15045900"
LIVI_WEIGHTS = (
    "python -m export.livi --checkpoint livi.pth, which lies at"
    " https://drive.google.com/drive/folders/1hqkj7E1L2Tj-DwIbGXyRDcSGI_REq5Kf"
)
TEACHER = (
    f"{HUB}/openai/whisper-large-v3-turbo (--whisper) and"
    f" {HUB}/Alibaba-NLP/gte-multilingual-base (--text-encoder)"
)
NOT_AVAILABLE = "weights not available"


class System(Protocol):
    """What every row of a table can do; ``n_parameters`` are those that are used."""

    @property
    def n_parameters(self) -> int | None: ...

    def features(self, heard: Any) -> Any:
        """(T,) float32 samples at 16 kHz (of text rows: lines) → what the system makes of them."""
        ...

    def vectors(self, features: Any) -> FloatArray:
        """→ (S, D) float32, a vector of each segment; S may be 0."""
        ...


@dataclass(frozen=True)
class Row:
    """A system that may or may not be at hand.

    ``made_by`` names what opens it, in a module beside this one; ``weights`` lie at that path below
    the folder of weights, and are to be had at ``place``. What is made by "" is no network with
    weights of its own: a bundle, or a text row.
    """

    name: str
    title: str
    made_by: str
    weights: str | None = None
    place: str = ""
    measure: Measure | None = None  # between segments, None where the mean is all there is

    def missing(self, weights: Path | None) -> str | None:
        """Why the system cannot be opened, with the remedy; None where it can."""
        if self.weights is None or (weights is not None and (weights / self.weights).is_file()):
            return None
        return f"{self.weights}, from {self.place}"

    def open(self, weights: Path | None, device: str = "cpu") -> System:
        """Raises BadInput where its weights are missing, BadModel where they are not its own."""
        if (missing := self.missing(weights)) is not None:
            raise BadInput(f"{self.name}: {NOT_AVAILABLE}: {missing}")
        module, _, function = self.made_by.partition(".")
        make = getattr(importlib.import_module(f"benchmarks.baselines.{module}"), function)
        system: System
        if self.weights is None or weights is None:
            system = make()
        else:
            from benchmarks.baselines.weights import read_weights

            system = make(read_weights(weights / self.weights)).to(device)
        return system


ROWS = (
    Row("livi-paper", "LIVI, the authors' weights", "", "livi/card.json", LIVI_WEIGHTS),
    Row("livi", "LIVI's way: vectors of a bundle, their mean", ""),
    Row("livi-index", "this product: a bundle and its own ranking", ""),
    Row("t_global", "t_global, the text of a recording", "", place=TEACHER),
    Row("t_local", "t_local, texts of half minutes, their mean", "", place=TEACHER),
    Row("chroma-fourier", "chroma, 2-D Fourier magnitudes", "chroma.ChromaFourier"),
    Row("chroma-mfcc", "mean chroma and MFCC", "chroma.ChromaMeans"),
    Row(
        "bytecover2", "ByteCover2", "resnet.bytecover2",
        "dvi-bytecover2x/checkpoint_best.ckpt", ZENODO, Measure(),
    ),
    Row(
        "clews", "CLEWS", "resnet.clews", "dvi-clews/checkpoint_best.ckpt", ZENODO,
        Measure("euclidean", "bpwr"),
    ),
    Row(
        "cqtnet", "CQTNet", "cqtnet.cqtnet_clews",
        "dvi-cqtnet/checkpoint_best.ckpt", ZENODO, Measure(),
    ),
    Row(
        "dvinet", "DViNet", "cqtnet.dvinet",
        "dvi-dvinetp/checkpoint_best.ckpt", ZENODO, Measure(),
    ),
    Row(
        "discogs-vinet", "Discogs-VINet (ISMIR 2024)", "cqtnet.discogs_vinet",
        "discogs-vinet/model_checkpoint.pth",
        "https://github.com/raraz15/Discogs-VINet, branch ISMIR2024, logs/checkpoints",
    ),
    Row(
        "discogs-vinet-mirex", "Discogs-VINet-MIREX", "cqtnet.discogs_vinet",
        "discogs-vinet-mirex/model_checkpoint.pth",
        "https://github.com/raraz15/Discogs-VINet, logs/checkpoints"
        " (trained on all of Discogs-VI-YT: not to be measured on its test part)",
    ),
    Row(
        "cqtnet-original", "CQTNet (original)", "cqtnet.cqtnet", "cqtnet-original/cqtnet.pth",
        "https://drive.google.com/file/d/1Rv-NuiAKW2rUlNZj8SOs2Iqidqkx30M8",
    ),
    Row(
        "coverhunter", "CoverHunter", "conformer.coverhunter", "coverhunter/g.pt",
        "https://drive.google.com/file/d/1rDZ9CDInpxQUvXRLv87mr-hfDfnV7Y-j (pt_model/g_…)",
        Measure(),
    ),
    Row(
        "whisper", "Whisper, mean of the encoder", "whisper.whisper",
        "whisper-large-v3-turbo/model.safetensors",
        f"{HUB}/openai/whisper-large-v3-turbo",
    ),
)  # fmt: skip


def row_of(name: str) -> Row:
    """A system by its name. Raises BadInput, naming those that there are."""
    for row in ROWS:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in ROWS)
    raise BadInput(f"there is no system {name!r}; there are: {known}")
