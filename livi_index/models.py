"""Model bundles: found by name, verified byte by byte, opened as sessions.

A bundle is a folder of ONNX files and a ``card.json`` that says what they are. Three sources:
bundled in this package (``assets/``), installed by the user (the platform's data folder, or the
folder in ``LIVI_MODELS``), and local (any path). Whatever can make a bundle can be used.

A bundle is data from somebody else. Every file is compared with its SHA-256 before a session
opens it, a graph that reads other files or asks for custom operators is refused, and no session
option is taken from a model's metadata.

onnxruntime comes as one of two packages that overwrite each other, so it is imported here, in one
function, and nowhere else. The provider that a session reports is the one that runs: the list of
available providers names CUDA also where there is none.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import platformdirs

from livi_index.calibration import Calibration, Chance, Familiar, Fusion
from livi_index.errors import BadModel, MissingRuntime

CARD = "card.json"
CARD_SCHEMA = 1
DEFAULT_MODEL = "livi-mini"
# ONNX's own operators (two spellings) and onnxruntime's: both need no library of the bundle's.
TRUSTED_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})

CUDA = "CUDAExecutionProvider"

Device = Literal["auto", "cpu", "cuda"]
Source = Literal["bundled", "installed", "local"]
FloatArray = npt.NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class BundleFile:
    """What a file of a bundle must be: ``size`` in bytes, ``sha256`` in hex."""

    sha256: str
    size: int


@dataclass(frozen=True)
class VocalsSpec:
    """The detector: its graph, and the seconds of audio it judges at once.

    The graph answers (B,) with the probability that somebody sings, or (B, 2) where it
    ``tells_speech``: that there is a voice, and that the voice speaks, if there is one.
    """

    file: str
    window_s: float
    tells_speech: bool = False


@dataclass(frozen=True)
class TextSpec:
    """The text side of a space: character ``alphabet[i]`` is number i, number 0 is padding."""

    file: str
    alphabet: str
    max_characters: int


@dataclass(frozen=True)
class ClipsSpec:
    """What reads a window first, in clips of ``clip_s``, each for itself; its ``encoder`` then
    gets what was read of all clips of the window, side by side. What is read may be compared by
    itself too: ``alignment`` is the file that says how, and ``profiles`` the one that says what may
    have been sung where something was read, "" for not."""

    file: str
    clip_s: float
    alignment: str = ""
    profiles: str = ""


@dataclass(frozen=True)
class Space:
    """One kind of vector that a bundle makes: ``dim`` numbers for ``window_s`` seconds of audio.

    Windows are segments of singing; where there is a ``hop_s``, they lie over the whole recording,
    whether somebody sings or not, one every so many seconds. ``cuda_encoder`` is the same encoder
    in float16, taken where CUDA runs it; "" where there is none.
    """

    name: str
    encoder: str
    window_s: float
    dim: int
    pooling: Literal["mean"] = "mean"
    hop_s: float = 0.0
    cuda_encoder: str = ""
    clips: ClipsSpec | None = None
    text: TextSpec | None = None


@dataclass(frozen=True)
class Witness:
    """How likely a voice is in a window of the detector's, once it was read: its log-odds are
    ``detector`` times what the detector gives, ``phones`` for each phone that was read, and
    ``offset``. ``fitted_on`` says where from."""

    detector: float
    phones: float
    offset: float
    fitted_on: str = ""


@dataclass(frozen=True)
class ModelCard:
    """``card.json``, parsed. ``model_id`` is the same for all precisions of one model.

    ``segments`` are fields of ``vocals.SegmentOptions`` by name. ``calibration`` is by question: a
    space for recordings against recordings, ``words`` for typed words against recordings; where
    recordings are compared in all spaces, ``fusion`` says how. The first space is that of lyrics;
    what it reads of a recording is ``familiar`` or not, a ``witness`` of the voice in it, and is
    held against what ``chance`` makes of such.
    """

    schema: int
    name: str
    version: str
    model_id: str
    sample_rate: int
    files: Mapping[str, BundleFile]
    vocals: VocalsSpec
    spaces: tuple[Space, ...]
    segments: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    fusion: Fusion | None = None
    chance: Chance | None = None
    familiar: Familiar | None = None
    witness: Witness | None = None
    trained_on: str = ""
    measured: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""

    @property
    def space_names(self) -> tuple[str, ...]:
        return tuple(space.name for space in self.spaces)

    def space(self, name: str) -> Space:
        """The space of that name; BadModel names those that there are."""
        for space in self.spaces:
            if space.name == name:
                return space
        known = ", ".join(self.space_names)
        raise BadModel(f"model {self.name} has no space {name!r}; it has: {known}")


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; its card is parsed, its files are verified when they are opened."""

    path: Path
    card: ModelCard
    source: Source

    def open(self, file: str, *, threads: int | None = None, device: Device = "auto") -> Session:
        """A session on one of the card's files, verified first. Raises BadModel, MissingRuntime."""
        verify_file(self, file)
        return open_session(self.path / file, threads=threads, device=device)


@dataclass(frozen=True)
class ModelEntry:
    """A line of ``models list``: ``bundle`` is None where ``problem`` says what is wrong."""

    name: str
    source: Source
    path: Path
    bundle: Bundle | None
    problem: str = ""


class Session:
    """One input, one output, batches of a few fixed sizes; runs on ``provider``."""

    def __init__(self, runtime: Any, session: Any, threads: int) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self.provider: str = session.get_providers()[0]
        self.threads = threads
        # With the arena kept for good, one batch of eight costs a gigabyte; cleared by every batch,
        # it costs a seventh of the time.
        self._options = runtime.RunOptions()
        place = "gpu:0" if self.provider == CUDA else "cpu:0"
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", place)

    def run(self, rows: npt.NDArray[Any], batch: int) -> npt.NDArray[Any]:
        """``(N, ...)`` rows, N ≥ 1, to ``(N, ...)`` outputs, at most ``batch`` at a time.

        Batches are padded with zeros to a power of two, so that a device plans few shapes.
        Raises BadModel where the model answers with something that is not finite.
        """
        last = (len(rows) - 1) // batch * batch
        parts = [
            self._run_batch(rows[i : i + batch], self._options if i == last else None)
            for i in range(0, len(rows), batch)
        ]
        answer: npt.NDArray[Any] = np.concatenate(parts)
        if not np.isfinite(answer).all():
            raise BadModel("the model answered with numbers that are not finite; reinstall it")
        return answer

    def _run_batch(self, rows: npt.NDArray[Any], options: Any) -> npt.NDArray[Any]:
        size = 1 << (len(rows) - 1).bit_length()
        if size > len(rows):
            padding = np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)
            rows_in = np.concatenate([rows, padding])
        else:
            rows_in = np.ascontiguousarray(rows)
        output: npt.NDArray[Any] = self._session.run(None, {self._input: rows_in}, options)[0]
        return output[: len(rows)]


def available_models() -> list[ModelEntry]:
    """Bundled and installed bundles by name; damaged ones are listed with their problem."""
    bundled = [_entry(folder, "bundled") for folder in _bundle_folders(bundled_dir())]
    return bundled + [_entry(folder, "installed") for folder in _bundle_folders(models_dir())]


def find_model(name: str | Path = DEFAULT_MODEL) -> Bundle:
    """The bundle of that name or model_id, or in the folder of that path.

    Raises BadModel, which lists the known names, where there is none.
    """
    if isinstance(name, Path) or os.sep in name:
        return open_bundle(Path(name), "local")
    entries = available_models()
    for entry in entries:
        if entry.name == name or (entry.bundle and entry.bundle.card.model_id == name):
            return entry.bundle or open_bundle(entry.path, entry.source)
    if (Path(name) / CARD).is_file():
        return open_bundle(Path(name), "local")
    known = ", ".join(entry.name for entry in entries) or "none"
    raise BadModel(f"no model is called {name!r}; known models: {known}. A path works as well.")


def bundled_dir() -> Path:
    """Where the bundles of this package lie."""
    return Path(__file__).parent / "assets"


def models_dir() -> Path:
    """Where installed bundles lie: ``LIVI_MODELS``, else the platform's user data folder."""
    chosen = os.environ.get("LIVI_MODELS")
    return Path(chosen) if chosen else platformdirs.user_data_path("livi-index") / "models"


def open_bundle(folder: Path, source: Source = "local") -> Bundle:
    """The bundle in a folder, its card parsed. Raises BadModel."""
    try:
        raw = (folder / CARD).read_bytes()
    except OSError as error:
        raise BadModel(
            f"{folder} is not a model: its {CARD} cannot be read ({error});"
            " `livi-index models list` names those that are at hand"
        ) from error
    return Bundle(folder, parse_card(raw, str(folder / CARD)), source)


def parse_card(raw: bytes, where: str) -> ModelCard:
    """A card from the bytes of its file. Raises BadModel on anything unknown or missing."""
    try:
        data = json.loads(raw)
    except ValueError as error:
        raise BadModel(f"{where} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != CARD_SCHEMA:
        raise BadModel(
            f"{where} is not a card of schema {CARD_SCHEMA}; a newer version may read it"
        )
    try:
        card = _build_card(data, where)
    except (TypeError, AttributeError) as error:
        raise BadModel(f"{where} has a field of the wrong kind ({error})") from error
    _check_card(card, where)
    return card


def extends(card: ModelCard, other: ModelCard) -> bool:
    """Whether one card is that of the same model with more spaces.

    What the other has must be in it, byte by byte: vectors of one space are of one encoder.
    """
    known = {space.name: space for space in card.spaces}
    return (
        card.model_id == other.model_id
        and len(card.spaces) > len(other.spaces)
        and all(known.get(space.name) == space for space in other.spaces)
        and all(card.files.get(name) == file for name, file in other.files.items())
        and card.segments == other.segments
    )


def verify(bundle: Bundle) -> None:
    """Compare every file with the card. Raises BadModel at the first difference."""
    for name in bundle.card.files:
        verify_file(bundle, name)


def verify_file(bundle: Bundle, name: str) -> None:
    """Compare one file's size, SHA-256 and operators with what a bundle may hold."""
    path = bundle.path / name
    expected = bundle.card.files.get(name)
    if expected is None:
        raise BadModel(f"{bundle.path / CARD} does not list {name}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadModel(f"{path} cannot be read ({error}); reinstall the model") from error
    if (size, digest) != (expected.size, expected.sha256):
        raise BadModel(f"{path} is damaged: it is not the file its card names; reinstall the model")
    if name.endswith(".onnx"):
        check_graph(path)


def usable_cpus() -> int:
    """Processors that this process may use: its affinity and, on Linux, its container's quota."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, round(int(quota) / int(period))))


def open_session(path: Path, *, threads: int | None = None, device: Device = "auto") -> Session:
    """A session on an ONNX file, with ``threads`` (default: all usable) processors.

    ``auto`` takes CUDA where it works. Raises MissingRuntime where onnxruntime is absent or
    cannot give the device that was asked for, BadModel where it cannot load the file.
    """
    runtime = _import_runtime()
    threads = threads or usable_cpus()
    providers = _providers(runtime, device)
    try:
        opened = runtime.InferenceSession(
            str(path), sess_options=_session_options(runtime, threads), providers=providers
        )
    except _load_errors(runtime) as error:
        raise BadModel(f"{path} cannot be opened by onnxruntime: {error}") from error
    session = Session(runtime, opened, threads)
    if device == "cuda" and session.provider != CUDA:
        raise MissingRuntime(
            "CUDA was asked for but onnxruntime runs on the processor: install livi-index[gpu] "
            "in place of livi-index[cpu], with a driver for its CUDA version, or use device cpu"
        )
    return session


def may_run_on_cuda(device: Device) -> bool:
    """Whether it is worth trying; what a session reports in the end is what runs."""
    return len(_providers(_import_runtime(), device)) > 1


def _import_runtime() -> Any:
    installed = {
        name
        for name in ("onnxruntime", "onnxruntime-gpu")
        if any(metadata.distributions(name=name))
    }
    if len(installed) == 2:
        raise MissingRuntime(
            "both onnxruntime and onnxruntime-gpu are installed and overwrite each other: "
            "pip uninstall both, then install one of livi-index[cpu] and livi-index[gpu]"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingRuntime(
            f"onnxruntime cannot be imported ({error}): pip install 'livi-index[cpu]', "
            "or 'livi-index[gpu]' for an NVIDIA GPU"
        ) from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _load_errors(runtime: Any) -> tuple[type[Exception], ...]:
    state = runtime.capi.onnxruntime_pybind11_state
    return (
        *(state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf),
        *(state.NoSuchFile, state.NotImplemented, state.RuntimeException),
    )


def _session_options(runtime: Any, threads: int) -> Any:
    options = runtime.SessionOptions()
    # Explicit counts: the default sets affinities, which fail inside containers.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    # Spinning threads would take the processors that decode the next files.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _providers(runtime: Any, device: Device) -> list[Any]:
    if device == "cpu" or CUDA not in runtime.get_available_providers():
        return ["CPUExecutionProvider"]
    runtime.preload_dlls()
    cuda = {
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",  # ten bits are too few for a spectrum; what may be short is float16
    }
    return [(CUDA, cuda), "CPUExecutionProvider"]


def _build_card(data: dict[str, Any], where: str) -> ModelCard:
    return _build(
        ModelCard,
        data,
        where,
        files={k: _build(BundleFile, v, f"{where}: files.{k}") for k, v in data["files"].items()},
        vocals=_build(VocalsSpec, data["vocals"], f"{where}: vocals"),
        fusion=data.get("fusion") and _build(Fusion, data["fusion"], f"{where}: fusion"),
        chance=data.get("chance") and _build(Chance, data["chance"], f"{where}: chance"),
        witness=data.get("witness") and _build(Witness, data["witness"], f"{where}: witness"),
        familiar=data.get("familiar") and _build(Familiar, data["familiar"], f"{where}: familiar"),
        spaces=tuple(_build_space(space, f"{where}: spaces") for space in data["spaces"]),
        calibration={
            k: _build(Calibration, v, f"{where}: calibration.{k}")
            for k, v in data.get("calibration", {}).items()
        },
    )


def _build_space(data: dict[str, Any], where: str) -> Space:
    clips, text = data.get("clips"), data.get("text")
    return _build(
        Space,
        data,
        where,
        clips=clips and _build(ClipsSpec, clips, f"{where}: clips"),
        text=text and _build(TextSpec, text, f"{where}: text"),
    )


def _build(cls: type[T], data: Mapping[str, Any], where: str, **parts: Any) -> T:
    """An instance of a dataclass from JSON: no unknown field, none missing, plain types right."""
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(data) - set(known)):
        raise BadModel(f"{where} has fields this version does not know: {', '.join(unknown)}")
    needed = {k for k, f in known.items() if f.default is f.default_factory is MISSING}
    if missing := sorted(needed - set(data)):
        raise BadModel(f"{where} lacks: {', '.join(missing)}")
    plain: dict[str, type | tuple[type, ...]]
    plain = {"int": int, "float": (int, float), "str": str, "bool": bool}
    for name, value in data.items():
        if not isinstance(value, plain.get(str(known[name].type), object)):
            raise BadModel(f"{where} has a field of the wrong kind: {name} is {value!r}")
    return cls(**{**data, **parts})


def _check_card(card: ModelCard, where: str) -> None:
    used = [card.vocals.file] + [space.encoder for space in card.spaces]
    used += [space.cuda_encoder for space in card.spaces if space.cuda_encoder]
    used += [space.text.file for space in card.spaces if space.text]
    clips = [space.clips for space in card.spaces if space.clips]
    used += [name for spec in clips for name in (spec.file, spec.alignment, spec.profiles) if name]
    used += [card.familiar.file] if card.familiar else []
    if absent := sorted(set(used) - set(card.files)):
        raise BadModel(f"{where} uses files that it does not list: {', '.join(absent)}")
    # Names become paths when a bundle is installed.
    for name in (card.name, *card.files):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name == CARD:
            raise BadModel(f"{where} holds a name that is not allowed: {name!r}")
    if (witness := card.witness) and not min(witness.detector, witness.phones) > 0:
        raise BadModel(f"{where} has a witness to whom more voice is less")
    if any(not curve.slope > 0 for curve in card.calibration.values()):
        raise BadModel(f"{where} has a calibration in which a better score is no likelier")
    if card.fusion and set(card.fusion.weights) != set(card.space_names):
        raise BadModel(f"{where} fuses other spaces than it has")
    if card.fusion and any(not weight > 0 for weight in card.fusion.weights.values()):
        raise BadModel(f"{where} fuses a space in which a better score is no likelier")
    if card.familiar and not (card.familiar.order_spread > 0 and card.familiar.shares_spread > 0):
        raise BadModel(f"{where} knows no two recordings that are familiar")
    if any(not 0 <= space.hop_s <= space.window_s for space in card.spaces):
        raise BadModel(f"{where} has windows that leave out a part of a recording")
    if card.chance and not card.chance.is_whole:
        raise BadModel(f"{where} does not say what chance is: it takes four numbers, twice")
    if card.fusion and not set(card.space_names) <= set(card.calibration):
        raise BadModel(f"{where} fuses spaces and has no calibration for each")
    if card.spaces[0].hop_s:
        raise BadModel(f"{where}: the first space must be of what is sung")
    if any(space.pooling != "mean" for space in card.spaces):
        raise BadModel(f"{where} asks for a pooling this version does not know")
    for space in card.spaces:
        if space.clips and not (space.window_s / space.clips.clip_s).is_integer():
            raise BadModel(f"{where}: a window of {space.name} is not a whole number of clips")


def check_graph(path: Path) -> None:
    """Refuse an ONNX file that reads other files or needs operators that onnxruntime lacks.

    Reads the protocol buffer itself: the onnx package belongs to the workshop. Field numbers are
    those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Raises BadModel.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check_message(data, 0, len(data), "model", path)
    except (IndexError, ValueError) as error:
        if isinstance(error, BadModel):
            raise
        raise BadModel(f"{path} is not an ONNX file") from error


# Message → field number → the message it holds; only what leads to tensors and domains.
_ONNX = {
    "model": {7: "graph", 8: "opset", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset"},
    "node": {5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "opset": {1: "domain"},
    "tensor": {13: "external", 14: "location"},
}


def _check_message(data: mmap.mmap, start: int, end: int, kind: str, path: Path) -> None:
    for number, first, last in _wire_fields(data, start, end):
        inner = _ONNX[kind].get(number)
        if inner == "external" or (inner == "location" and data[first:last] == b"\x01"):
            raise BadModel(f"{path} keeps weights in another file; export it as a single file")
        if inner == "domain":
            domain = data[first:last].decode("utf-8", "replace")
            if domain not in TRUSTED_DOMAINS:
                raise BadModel(f"{path} needs operators of {domain!r}, which are not trusted")
        elif inner in _ONNX:
            _check_message(data, first, last, inner, path)


def _wire_fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a message; IndexError where it is damaged."""
    while start < end:
        key, start = _varint(data, start)
        wire = key & 7
        if wire == 0:
            _, after = _varint(data, start)
        elif wire == 2:
            length, start = _varint(data, start)
            after = start + length
        elif wire in (1, 5):
            after = start + (8 if wire == 1 else 4)
        else:
            raise IndexError
        if after > end:
            raise IndexError
        yield key >> 3, start, after
        start = after


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _bundle_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if (path / CARD).is_file())


def _entry(folder: Path, source: Source) -> ModelEntry:
    try:
        return ModelEntry(folder.name, source, folder, open_bundle(folder, source))
    except BadModel as error:
        return ModelEntry(folder.name, source, folder, None, str(error))
