"""Texts → unit vectors: the second half of a teacher, and what a student is taught to aim at.

Three kinds, told apart by what a user names, behind one small interface (``TextSpace``):

- a Sentence-Transformers model, by folder or name, such as ``GTE``, the paper's: by transformers
  alone, pooled as the model's own files say, and never with code that the model brings along;
- a bundle of livi-index, or one that is known by name, such as ``livi-mini``;
- the checkpoint (``.pt``) of a lexical space that ``export.fit`` has made.

A recording has one text a segment. ``t_global`` is the vector of all of them as one text,
``t_local`` the mean of theirs; the paper compares both with the mean of the student's segments.

Shapes: B texts, T tokens, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.fit import load_space
from export.hub import Found, find, loaded
from export.lexical import letters_of
from livi_index.encoders import TextEncoder, normalise_text
from livi_index.errors import BadInput, BadModel
from livi_index.models import CARD, Bundle, available_models, find_model

# The paper's, as transformers knows it; the first release of it runs code of its own.
GTE = "alibaba-nlp-community/gte-multilingual-base"
BATCH = 8
JOIN = "\n\n"  # between the texts of segments

FloatArray = npt.NDArray[np.float32]


class TextSpace(Protocol):
    """What makes vectors of texts; ``name`` says which, in a form that can be stored."""

    name: str
    dim: int

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """N texts → (N, dim) unit float32; a text has the same vector alone and among others."""


def t_global(space: TextSpace, texts: Sequence[str]) -> FloatArray:
    """(dim,) of all texts of a recording as one; what exceeds the encoder's length is not read."""
    return space.encode([JOIN.join(texts)])[0]


def t_local(space: TextSpace, texts: Sequence[str]) -> FloatArray:
    """(dim,) the arithmetic mean of the texts' vectors: shorter than 1, as the paper leaves it."""
    mean: FloatArray = space.encode(texts).mean(axis=0)
    return mean


def open_space(model: str, *, device: str = "cpu") -> TextSpace:
    """The text encoder that ``--text`` names. Raises BadInput or BadModel as its kind does."""
    path = Path(model)
    if path.suffix == ".pt" and path.is_file():
        return LexicalTexts(path)
    if (path / CARD).is_file() or model in {entry.name for entry in available_models()}:
        return BundleTexts(find_model(path if path.is_dir() else model))
    return SentenceEncoder(find(model, "--text"), device=device)


class BundleTexts:
    """The text side of a bundle's space of lyrics."""

    def __init__(self, bundle: Bundle) -> None:
        self._encoder = TextEncoder(bundle, threads=1)
        self.name, self.dim = f"{bundle.card.name}:{bundle.card.model_id}", self._encoder.dim

    def encode(self, texts: Sequence[str]) -> FloatArray:
        return self._encoder.encode(texts)


class LexicalTexts:
    """The letters' side of a lexical space; BadInput for a text that has none of its letters."""

    def __init__(self, checkpoint: Path) -> None:
        self._space = load_space(checkpoint)
        self.name, self.dim = checkpoint.name, self._space.options.dim

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            row[:] = self._space.text(letters_of([normalise_text(text)]))[0].numpy()
            if not row.any():
                raise BadInput(f"the words {text[:40]!r} hold nothing that this space knows")
        return vectors


Pooling = Callable[[Tensor, Tensor], Tensor]  # (B, T, C) states, (B, T) which are there → (B, C)


def pool_first(states: Tensor, there: Tensor) -> Tensor:
    first = there.int().argmax(dim=1)  # tokenizers may pad on the left
    return states[torch.arange(len(states)), first]


def pool_last(states: Tensor, there: Tensor) -> Tensor:
    last = states.shape[1] - 1 - there.flip(1).int().argmax(dim=1)
    return states[torch.arange(len(states)), last]


def pool_mean(states: Tensor, there: Tensor) -> Tensor:
    weights = there[:, :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)


def pool_max(states: Tensor, there: Tensor) -> Tensor:
    return states.masked_fill(~there.bool()[:, :, None], -torch.inf).amax(dim=1)


# By their names in a model's own files, newer and older.
POOLINGS: dict[str, Pooling] = {
    "cls": pool_first,
    "cls_token": pool_first,
    "mean": pool_mean,
    "mean_tokens": pool_mean,
    "max": pool_max,
    "max_tokens": pool_max,
    "lasttoken": pool_last,
}


class SentenceEncoder:
    """A Sentence-Transformers model by transformers alone, in float32.

    Raises BadModel for a folder that holds no such model, lacks weights, brings its own code, or
    asks for a layer that is not known here.
    """

    def __init__(self, found: Found, *, device: str = "cpu", batch: int = BATCH) -> None:
        from transformers import AutoModel, AutoTokenizer

        modules = _modules(found.path)
        body = found.path / modules[0]["path"]
        self.name, self._batch, self._device = found.name, batch, device
        self._model = loaded(AutoModel, body, found.name, other=GTE).to(device)
        self._tokens = loaded(AutoTokenizer, body, found.name)
        self._length = _max_tokens(body, self._model.config, self._tokens)
        self._pool = _pooling(found, modules, self._model.config.model_type)
        self._layers = _dense_layers(found, modules).to(device)
        self.dim = int(self.encode(["a"]).shape[1])

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> FloatArray:
        parts = [np.zeros((0, getattr(self, "dim", 0)), np.float32)] if not texts else []
        for first in range(0, len(texts), self._batch):
            tokens = self._tokens(
                list(texts[first : first + self._batch]),
                padding=True,
                truncation=True,
                max_length=self._length,
                return_tensors="pt",
            ).to(self._device)
            states = self._model(**tokens).last_hidden_state
            pooled = self._layers(self._pool(states, tokens["attention_mask"]))
            parts.append(F.normalize(pooled, dim=1).cpu().numpy())
        return np.concatenate(parts)


def _modules(folder: Path) -> list[dict[str, Any]]:
    """What follows what, each with its ``path`` and ``type``; a bare model is its own first."""
    if not (folder / "modules.json").is_file():
        return [{"path": "", "type": "Transformer"}]
    modules: list[dict[str, Any]] = _json(folder / "modules.json")
    return modules


def _pooling(found: Found, modules: list[dict[str, Any]], model_type: str) -> Pooling:
    chosen = [module for module in modules if module["type"].endswith(".Pooling")]
    if not chosen:
        return pool_first if model_type == "gte" else pool_mean
    options = _json(found.path / chosen[0]["path"] / "config.json")
    names = [options["pooling_mode"]] if isinstance(options.get("pooling_mode"), str) else []
    names += [
        key.removeprefix("pooling_mode_")
        for key, value in options.items()
        if key.startswith("pooling_mode_") and value is True
    ]
    if len(names) != 1 or names[0] not in POOLINGS:
        known = ", ".join(POOLINGS)
        raise BadModel(f"{found.name} pools by {' and '.join(names)}; known are {known}")
    return POOLINGS[names[0]]


def _dense_layers(found: Found, modules: list[dict[str, Any]]) -> nn.Sequential:
    """Products behind the pooling, where a model has them; the norm at the end is always made."""
    from safetensors.torch import load_file

    layers = nn.Sequential()
    for module in modules[1:]:
        kind, folder = module["type"].rpartition(".")[2], found.path / module["path"]
        if kind == "Dense":
            options = _json(folder / "config.json")
            layer = nn.Linear(options["in_features"], options["out_features"], options["bias"])
            weights = load_file(folder / "model.safetensors")
            layer.load_state_dict({k.removeprefix("linear."): v for k, v in weights.items()})
            layers.append(layer)
            layers.append(_activation(found, options["activation_function"]))
        elif kind not in ("Pooling", "Normalize"):
            raise BadModel(f"{found.name} has a layer {kind}, which is not known here")
    return layers.eval()


def _activation(found: Found, name: str) -> nn.Module:
    kinds: dict[str, nn.Module] = {"Identity": nn.Identity(), "Tanh": nn.Tanh(), "GELU": nn.GELU()}
    kind = name.rpartition(".")[2]
    if kind not in kinds:
        raise BadModel(f"{found.name} has an activation {name}, which is not known here")
    return kinds[kind]


def _max_tokens(body: Path, config: Any, tokenizer: Any) -> int:
    """The first that is told: by Sentence-Transformers, the tokenizer, the network."""
    options = body / "sentence_bert_config.json"
    told = _json(options).get("max_seq_length") if options.is_file() else None
    lengths = (told, tokenizer.model_max_length, getattr(config, "max_position_embeddings", None))
    # A tokenizer that does not know says a number beyond all texts.
    return next(int(n) for n in (*lengths, 512) if n and n < 1_000_000)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadModel(f"{path} cannot be read ({error}); is the model whole?") from error
