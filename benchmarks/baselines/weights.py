"""Weights of others: opened without running anything of theirs, and matched name by name.

Checkpoints are pickles, and those of Lightning Fabric hold configuration objects of packages that
nobody needs to measure a network. The reader here knows tensors, their storages and ordered
dictionaries; every other class or function that a file names becomes an inert object.

What a checkpoint holds must be what the network has: nothing missing, nothing left over but what
was for training, which is dropped by name. Constant-Q kernels must equal ours.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.baselines.frontend import exact_kernels
from livi_index.errors import BadModel

Network = TypeVar("Network", bound=nn.Module)
State: TypeAlias = Mapping[str, Tensor]

KERNEL_TOLERANCE = 1e-6
_SAFETENSORS_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# What readers of damaged pickles raise.
_BROKEN = (
    pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError,
    AttributeError, IndexError, KeyError, TypeError, ValueError,
)  # fmt: skip
_CONTAINERS = ("state_dict", "model", "model_state_dict", "generator")


@dataclass(frozen=True)
class Names:
    """How a release names its weights: what each is called here, and what is for training only."""

    rename: Callable[[str], str] = str
    training_only: tuple[str, ...] = ()  # beginnings of names

    def wanted(self, state: State) -> dict[str, Tensor]:
        """The weights that count, under our names."""
        return {
            self.rename(key): value
            for key, value in state.items()
            if not key.startswith(self.training_only) and not key.endswith("num_batches_tracked")
        }


class _Inert:
    """Stands for whatever a file names: takes what it is given and does nothing."""

    def __new__(cls, *_: object, **__: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        pass

    def extend(self, items: object) -> None:
        pass


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """torch adds the types of storages to what is known here."""

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), _Inert)


def _load(file: IO[bytes], **options: Any) -> Any:
    return _Unpickler(file, **options).load()


# torch takes a module in the place of ``pickle``; these are the two names that it uses of it.
_PICKLE = SimpleNamespace(__name__="pickle", Unpickler=_Unpickler, load=_load)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a checkpoint or a safetensors file.

    Raises BadModel where it holds none, or is damaged.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    found = _read_pickle(path)
    for name in _CONTAINERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    if not isinstance(found, dict):
        raise BadModel(f"{path} holds no weights by name")
    state = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise BadModel(f"{path} holds no weights by name")
    return state


def _read_pickle(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)  # as torch writes them since 1.6
    try:
        if not (is_zip and _is_program(path)):
            return torch.load(
                path, map_location="cpu", weights_only=False, pickle_module=_PICKLE, mmap=is_zip
            )
    except _BROKEN as error:
        raise BadModel(f"{path} cannot be opened as weights: {error}") from error
    raise BadModel(f"{path} is a program (TorchScript), not weights")


def _is_program(path: Path) -> bool:
    """torch would hand it on to a reader of its own."""
    with zipfile.ZipFile(path) as members:
        return any(Path(name).name == "constants.pkl" for name in members.namelist())


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        data = np.memmap(path, np.uint8, "c")
        n_header = int.from_bytes(data[:8].tobytes(), "little")
        header = json.loads(data[8 : 8 + n_header].tobytes())
        return {
            name: _tensor(data[8 + n_header :], **entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadModel(f"{path} is not a safetensors file: {error}") from error


def _tensor(data: Any, *, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    kind = _SAFETENSORS_TYPES[dtype]
    start, end = data_offsets
    return torch.from_numpy(data[start:end]).view(kind).reshape(shape)


def load_network(build: Callable[[State], Network], names: Names, state: State) -> Network:
    """The network that the weights are of, with them, ready to be used.

    Raises BadModel where a weight is missing, left over, of another shape, or a kernel differs.
    """
    state = _without_kernels(state)
    wanted = names.wanted(state)
    try:
        network = build(wanted)
        network.load_state_dict({key: value.float() for key, value in wanted.items()})
    except (KeyError, RuntimeError) as error:
        raise BadModel(f"these are not the weights of this network: {error}") from error
    return network.eval().requires_grad_(False)


def _without_kernels(state: State) -> dict[str, Tensor]:
    """The state without the kernels of its constant-Q transform, which were checked."""
    kept = {}
    for key, value in state.items():
        if "cqt" not in key:
            kept[key] = value
            continue
        kernels, lengths = exact_kernels(len(value))
        ours = {"lenghts": lengths, "real": kernels.real[:, None], "imag": kernels.imag[:, None]}
        name = key.rpartition("_")[2].rpartition(".")[2]
        if name not in ours or value.shape != ours[name].shape:
            raise BadModel(f"{key} is no part of the constant-Q transform of these networks")
        # The imaginary part is stored with either sign: magnitudes do not tell.
        theirs, own = np.abs(value.numpy()), np.abs(ours[name])
        if np.abs(theirs - own).max() > KERNEL_TOLERANCE:
            raise BadModel(f"{key} is not the constant-Q transform that these networks hear with")
    return kept
