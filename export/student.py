"""The paper's student: a frozen encoder hears, a learned query attends, layers map to a text space.

    samples ─▶ ears: (T, C) frames ─▶ attention of one learned query ─▶ (C,) ─▶ layers ─▶ (dim,)

LIVI (arXiv 2601.11262) hears with Whisper's encoder and is taught text vectors of what is sung.
Weights of the head are named and shaped as the authors' are, so ``load_head`` takes their
checkpoint; another encoder and other sizes make a smaller student of the same class.

The query depends on weights alone. So a frame's logit is its product with one constant vector for
each position, and values need to be computed of the weighted mean only: ``fold`` computes these
vectors once. It is the same function with the same gradients, at a two-hundredth of the products.

Shapes: B windows, T frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.lexical import unit
from export.whisper import read_tensors
from livi_index.errors import BadModel

TRAINING_ONLY = "logit_scale"
_ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class HeadOptions:
    """Sizes of a head; these are the paper's: Whisper's frames into gte-multilingual-base."""

    width: int = 1280  # channels of a frame
    hidden: tuple[int, ...] = (3072, 2048, 2048, 1536)
    dim: int = 768

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> HeadOptions:
        """The sizes that weights have; KeyError where they are no head's."""
        layers = [k for k in state if k.startswith("audio_proj.net.") and state[k].ndim == 2]
        sizes = [len(state[key]) for key in sorted(layers, key=lambda key: int(key.split(".")[2]))]
        if not sizes:
            raise KeyError("audio_proj.net")
        return cls(state["pooling.cls_token"].shape[-1], tuple(sizes[:-1]), sizes[-1])


class _QueryAttention(nn.Module):
    """(B, T, C), of which the first is the query and equal in all rows → (B, C).

    Keys are turned by their positions, the query stands at position 0 and is not.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ql, self.kl, self.vl = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, folded: Tensor | None = None) -> Tensor:
        if folded is not None:
            weights = (x * folded).sum(dim=2).softmax(dim=1)
            return self.proj(self.vl((weights[:, None] @ x)[:, 0]))
        query, keys = self.ql(x[:, 0]), _turned(self.kl(x))
        logits = (keys @ query[:, :, None])[..., 0] / math.sqrt(x.shape[2])
        return self.proj((logits.softmax(dim=1)[:, None] @ self.vl(x))[:, 0])

    def fold(self, first: Tensor, length: int) -> Tensor:
        """(T, C): the query (C,) turned back by each position, through the weights of the keys."""
        query = (self.ql(first) / math.sqrt(len(first))).expand(length, -1)
        return _turned(query, back=True) @ self.kl.weight


def _turned(x: Tensor, *, back: bool = False) -> Tensor:
    """(…, T, C) → the same, channel i with channel i + C/2 turned by t · 10000^(−2i/C)."""
    length, width = x.shape[-2:]
    half = torch.arange(0, width, 2, device=x.device)
    positions = torch.arange(length, dtype=torch.float32, device=x.device)
    angles = positions[:, None] * _ROTARY_BASE ** (-half / width)
    cosine, sine = angles.cos(), -angles.sin() if back else angles.sin()
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cosine - other * sine, other * cosine + one * sine], dim=-1)


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _QueryBlock(nn.Module):
    """What the query takes from the frames, both steps scaled up from almost nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.full((width,), 1e-4)) for _ in range(2))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = _QueryAttention(width), _FeedForward(width)

    def forward(self, x: Tensor, folded: Tensor | None = None) -> Tensor:
        query = x[:, 0] + self.gamma_1 * self.attn(self.norm1(x), folded)
        return query + self.gamma_2 * self.mlp(self.norm2(query))


class AttentionPooling(nn.Module):
    """(B, T, C) frames → (B, C): what a learned query takes from them; keys know their place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.attn = _QueryBlock(width)
        self.norm_layer = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor, folded: Tensor | None = None) -> Tensor:
        query = self.cls_token.expand(frames.shape[0], -1, -1)  # len would be a constant of a graph
        return self.norm_layer(self.attn(torch.cat([query, frames], dim=1), folded))

    def fold(self, n_frames: int) -> Tensor:
        """(1 + T, C): what the query asks of itself and of T frames, after their norm."""
        return self.attn.attn.fold(self.attn.norm1(self.cls_token)[0, 0], 1 + n_frames)


class Projection(nn.Module):
    """(B, C) → (B, dim) through hidden layers."""

    def __init__(self, options: HeadOptions) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = options.width
        for size in options.hidden:
            layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU()]
            width = size
        self.net = nn.Sequential(*layers, nn.Linear(width, options.dim))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.net(pooled)


class Head(nn.Module):
    """(B, T, C) frames → (B, dim) unit vectors: what is trained."""

    def __init__(self, options: HeadOptions | None = None) -> None:
        super().__init__()
        self.options = options or HeadOptions()
        self.pooling = AttentionPooling(self.options.width)
        self.audio_proj = Projection(self.options)

    def forward(self, frames: Tensor, folded: Tensor | None = None) -> Tensor:
        return unit(self.audio_proj(self.pooling(frames, folded)))

    def fold(self, n_frames: int) -> FoldedHead:
        """The same function of exactly so many frames, at a fraction of the cost."""
        return FoldedHead(self, n_frames)


class FoldedHead(nn.Module):
    """A head, its query folded: holds while the head's weights stay; gradients reach them."""

    folded: Tensor

    def __init__(self, head: Head, n_frames: int) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("folded", head.pooling.fold(n_frames), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(frames, self.folded)


class Student(nn.Module):
    """(B, samples) → (B, dim) unit vectors: frozen ``ears``, and a head that learns.

    ``ears`` is any module from samples to (B, ``n_frames``, ``width``) frames. Raises BadModel
    where the head is made for frames of another width.
    """

    def __init__(self, ears: nn.Module, head: Head) -> None:
        super().__init__()
        if ears.width != head.options.width:
            raise BadModel(
                f"the head is made for frames of {head.options.width} channels and the encoder's "
                f"have {ears.width}: these weights do not belong together"
            )
        self.ears = ears.eval().requires_grad_(False)
        self.head: Head | FoldedHead = head

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        self.ears.eval()
        return self

    def forward(self, samples: Tensor) -> Tensor:
        return self.head(self.ears(samples))

    @torch.no_grad()
    def fold(self) -> Student:
        """The same function, ready to be exported; shares the weights."""
        assert isinstance(self.head, Head)
        student = Student(self.ears, self.head)
        student.head = self.head.fold(self.ears.n_frames)
        return student.eval()


def load_head(path: Path) -> Head:
    """The head of a checkpoint such as the authors' ``livi.pth``: weights by name, nothing else.

    Raises BadInput where it cannot be read, BadModel where a weight is missing, left over, or of
    another shape. A temperature that only training needs is left out, and said.
    """
    state = read_tensors(path)
    if state.pop(TRAINING_ONLY, None) is not None:
        print(f"{path}: {TRAINING_ONLY} is for training only and is left out", flush=True)
    return head_of(state)


def head_of(state: Mapping[str, Tensor]) -> Head:
    """The head whose weights these are, computing in float32. Raises BadModel."""
    try:
        head = Head(HeadOptions.of(state))
        head.load_state_dict({key: value.float() for key, value in state.items()})
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise BadModel(f"these are not the weights of a LIVI head: {error}") from error
    return head.eval()
