"""Checkpoints of others: opened without running them, and matched name by name."""

from __future__ import annotations

import collections
import json
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.baselines.cqtnet import CQTNet  # noqa: E402
from benchmarks.baselines.frontend import exact_kernels  # noqa: E402
from benchmarks.baselines.weights import Names, State, load_network, read_weights  # noqa: E402
from livi_index.errors import BadModel  # noqa: E402

pytestmark = pytest.mark.train

NAMES = Names(lambda key: key.removeprefix("net."), training_only=("net.fc1.",))


def small(found: State) -> CQTNet:
    dim = len(found["proj.weight"])
    return CQTNet(len(found["convs.0.weight"]), dim, bias=True, pool_padding=0, unit=True)


def small_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    network = CQTNet(2, 3, bias=True, pool_padding=0, unit=True)
    state = {f"net.{key}": value for key, value in network.state_dict().items()}
    return state | {"net.fc1.weight": torch.ones(4, 3)}


@pytest.fixture
def foreign() -> Iterator[types.ModuleType]:
    """A package that is there when a checkpoint is written and gone when it is read."""
    module = types.ModuleType("foreign_config")
    source = """
class Node:
    def __init__(self, value): self.value = value
class Config(dict):
    def __init__(self, content):
        super().__init__(content)
        self.__dict__["content"] = {k: Node(v) for k, v in content.items()}
    def __reduce__(self): return Config, (dict(self),), self.__dict__
"""
    exec(source, module.__dict__)
    for cls in (module.Node, module.Config):
        cls.__module__ = module.__name__
    sys.modules[module.__name__] = module
    yield module
    sys.modules.pop(module.__name__, None)


def forget(module: types.ModuleType) -> None:
    del sys.modules[module.__name__]


def test_configuration_objects_of_absent_packages_do_no_harm(
    tmp_path: Path, foreign: types.ModuleType
) -> None:
    checkpoint = {
        "model": collections.OrderedDict(small_state()),
        "optim": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "conf": foreign.Config({"lr": 1e-3, "path": Path("x"), "more": [int, dict, Any]}),
        "extra": collections.defaultdict(list, a=[foreign.Node(2)]),
        "epoch": 7,
    }
    path = tmp_path / "checkpoint_best.ckpt"
    torch.save(checkpoint, path)
    forget(foreign)
    found = read_weights(path)
    assert found.keys() == small_state().keys()
    assert all(torch.equal(found[key], value) for key, value in small_state().items())
    network = load_network(small, NAMES, found)
    assert not network.training and torch.equal(
        network.proj.weight, small_state()["net.proj.weight"]
    )


class Runs:
    """Asks whoever unpickles it to call something."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.asked = function, arguments

    def __reduce__(self) -> Any:
        return self.asked


@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec])
@pytest.mark.parametrize("is_zip", [True, False])
def test_nothing_of_a_checkpoint_is_run(tmp_path: Path, function: Any, is_zip: bool) -> None:
    trace = tmp_path / "trace"
    called = {
        os.system: f"mkdir {trace}",
        os.mkdir: str(trace),
        eval: f"__import__('os').mkdir({str(trace)!r})",
        exec: f"import os; os.mkdir({str(trace)!r})",
    }[function]
    path = tmp_path / "weights.pth"
    state = {"model": small_state(), "conf": Runs(function, called)}
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    assert read_weights(path).keys() == small_state().keys()
    assert not trace.exists()
    with path.open("wb") as file:
        pickle.dump(Runs(function, called), file)
    with pytest.raises(BadModel):
        read_weights(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "generator", None])
@pytest.mark.parametrize("is_zip", [True, False])
def test_weights_are_found_where_releases_keep_them(
    tmp_path: Path, name: str | None, is_zip: bool
) -> None:
    path = tmp_path / "weights.pth"
    kept: Any = small_state() if name is None else {name: small_state(), "epoch": 3}
    torch.save(kept, path, _use_new_zipfile_serialization=is_zip)
    assert read_weights(path).keys() == small_state().keys()


def test_safetensors_are_read(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, -2], np.float16)
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F16", "shape": [2], "data_offsets": [24, 28]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + a.tobytes() + b.tobytes())
    found = read_weights(path)
    assert np.array_equal(found["a"].numpy(), a) and np.array_equal(found["b"].numpy(), b)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BadModel, match=r"model\.safetensors"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 broken"])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("x.ckpt", "x.safetensors"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(BadModel, match=name):
            read_weights(path)
    torch.save({"model": {"a": 1}}, tmp_path / "y.ckpt")
    with pytest.raises(BadModel, match="no weights"):
        read_weights(tmp_path / "y.ckpt")


def test_nothing_may_be_missing_left_over_or_of_another_shape() -> None:
    state = small_state()
    assert load_network(small, NAMES, state)
    without = {key: value for key, value in state.items() if key != "net.norms.3.running_var"}
    with pytest.raises(BadModel, match=r"norms\.3\.running_var"):
        load_network(small, NAMES, without)
    with pytest.raises(BadModel, match=r"unknown\.weight"):
        load_network(small, NAMES, state | {"net.unknown.weight": torch.ones(1)})
    with pytest.raises(BadModel, match=r"convs\.4\.weight"):
        load_network(small, NAMES, state | {"net.convs.4.weight": torch.ones(1, 2, 3, 3)})
    with pytest.raises(BadModel, match=r"proj\.weight"):
        load_network(small, NAMES, {"net.other": torch.ones(1)})


def test_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/constants.pkl", b"")
        file.writestr("x/data.pkl", b"")
    with pytest.raises(BadModel, match="TorchScript"):
        read_weights(path)


def test_half_precision_is_widened() -> None:
    halves = {key: value.half() for key, value in small_state().items()}
    assert load_network(small, NAMES, halves).proj.weight.dtype == torch.float32


def test_kernels_must_be_ours() -> None:
    kernels, lengths = exact_kernels()
    stored = {
        "cqt.0.lenghts": torch.from_numpy(lengths.copy()),
        "cqt.0.cqt_kernels_real": torch.from_numpy(kernels.real[:, None].copy()),
        "cqt.0.cqt_kernels_imag": torch.from_numpy(-kernels.imag[:, None]),
    }
    assert load_network(small, NAMES, small_state() | stored)
    for key, value in stored.items():
        with pytest.raises(BadModel, match=key.rpartition(".")[2]):
            load_network(small, NAMES, small_state() | stored | {key: value.roll(1, 0)})
    with pytest.raises(BadModel, match="cqt_kernels_other"):
        load_network(small, NAMES, small_state() | {"cqt.cqt_kernels_other": torch.ones(84)})
