"""Weights and signals from closed formulas, and where the outputs of the originals lie.

The formulas are those of ``facts/golden/README.md`` beside the development data: values of a hash
of a name and an index, so that any entry of any tensor can be made alone.
"""

from __future__ import annotations

import ast
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

NOTE_LENGTHS = {16_000: (6000, 8000, 11000), 22_050: (8268, 11025, 15159)}
LEVELS = (0.30, 0.25, 0.20)
LINES = (5, 7, 11, 16)  # frames a note

# First matching line wins: networks, name of the tensor, axes (None for any), rule.
Rule = tuple[str, float, float]
CQTNETS = ("cqtnet_clewsrepo", "dvinetp", "discogs_vinet_mirex", "cqtnet_original")
RULES: tuple[tuple[tuple[str, ...], str, int | None, Rule], ...] = (
    ((), r"running_var$", None, ("aff", 0.01, 0.001)),
    ((), r"running_mean$", None, ("aff", 0, 0.1)),
    (("livi_head",), r"cls_token$", None, ("aff", 0, 0.02)),
    (("livi_head",), r"gamma_[12]$", None, ("aff", 1, 0.2)),
    (("livi_head",), r"(ql|kl)\.weight$", None, ("row", 2, 0)),
    (("clews_dvi",), r"^pool\.p$", None, ("aff", 1.2, 0)),
    (("clews_dvi",), r"^frontend\.0\.gain$", None, ("aff", 3, 0.1)),
    (("clews_dvi",), r"^frontend\.0\.bias$", None, ("aff", -0.5, 0.1)),
    (("clews_dvi",), r"^backbone\.\d+\.gain$", None, ("aff", 0.6, 0.2)),
    (("clews_dvi",), r"weight$", 4, ("row", 1.6, 0)),
    (("bytecover2x",), r"^embpool\.0\.p$", None, ("aff", 1.2, 0)),
    (("bytecover2x",), r"^frontend\.1\.weight$", None, ("row", 4, 0)),
    (("bytecover2x",), r"^resblocks\.\d+\.convs\.7\.bias$", None, ("aff", -0.3, 0.1)),
    (("bytecover2x",), r"weight$", 4, ("row", 1.5, 0)),
    (CQTNETS, r"^(block1\.0|front_end\.0|features\.conv0)\.weight$", None, ("row", 6, 0)),
    (CQTNETS, r"weight$", 4, ("row", 1.8, 0)),
    (("coverhunter",), r"pos_bias_[uv]$", None, ("aff", 0, 0.5)),
    (("coverhunter",), r"embed\.conv\.\d\.weight$", None, ("row", 5, 0)),
    (("coverhunter",), r"embed\.out\.0\.weight$", None, ("row", 0.5, 0)),
    (("coverhunter",), r"linear_(q|k|pos)\.weight$", None, ("row", 2, 0)),
    (("coverhunter",), r"_pool_layer\._conv\.conv\.weight$", None, ("row", 8, 0)),
)


def folder() -> Path:
    """The facts beside the development data; skip without them, fail where CI=true."""
    place = os.environ.get("LIVI_DATA")
    facts = Path(place).parent / "facts" if place else None
    if facts is None or not (facts / "golden").is_dir():
        reason = "the outputs of the original networks lie beside the data that LIVI_DATA names"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return facts


def outputs(name: str) -> Mapping[str, NDArray[np.float32]]:
    """The arrays of one file of the originals' outputs."""
    with np.load(folder() / "golden" / f"{name}.npz") as arrays:
        return dict(arrays)


def key_table(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors of an original network."""
    rows = (folder() / "statedicts" / f"{name}.tsv").read_text().splitlines()
    return {row.split("\t")[0]: ast.literal_eval(row.split("\t")[1]) for row in rows}


def hashed(key: str, i: NDArray[np.int64]) -> NDArray[np.uint32]:
    x = i.astype(np.uint32) * np.uint32(2654435761) + np.uint32(zlib.crc32(key.encode()))
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def uniform(key: str, i: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values in [-1, 1)."""
    return hashed(key, i) / 2.0**31 - 1


def signal(track: int, n_samples: int, rate: int = 16_000) -> NDArray[np.float32]:
    """Three voices and a little noise."""
    n = np.arange(n_samples)
    total = 0.02 * uniform(f"noise:{track}", n)
    for voice, (length, level) in enumerate(zip(NOTE_LENGTHS[rate], LEVELS, strict=True)):
        note, at = np.divmod(n, length)
        pitch = hashed(f"voice{voice}:{track}", note) % 36 + 33.0 + 7 * voice
        hz = 440 * 2 ** ((pitch - 69) / 12)
        total += level * np.sin(np.pi * at / length) ** 2 * np.sin(2 * np.pi * hz * at / rate)
    return total.astype(np.float32)


def feature(track: int, n_bins: int, n_frames: int) -> NDArray[np.float32]:
    """(bins, frames) that stand for the pooled spectrum of a segment."""
    k, t = np.arange(n_bins)[:, None], np.arange(n_frames)
    total = 0.05 * (1 + uniform(f"fnoise:{track}", k * n_frames + t))
    for line, frames in enumerate(LINES):
        pitch = (hashed(f"fnote{line}:{track}", t // frames) % n_bins).astype(np.int64)
        swell = np.sin(np.pi * (t % frames + 0.5) / frames)
        total += swell * np.exp(-0.5 * np.square(k - pitch))
    return total.astype(np.float32)


def filled(network: str, key: str, shape: tuple[int, ...], names: set[str]) -> NDArray[np.float32]:
    """The tensor of a network; ``names`` are all of its keys, which tell a batch norm."""
    u = uniform(key, np.arange(int(np.prod(shape)))).reshape(shape)
    kind, a, b = _rule(network, key, shape, names)
    if kind == "aff":
        return (a + b * u).astype(np.float32)
    rows = u.reshape(shape[0], -1)
    rows -= rows.mean(axis=1, keepdims=True)
    rows *= a * np.sqrt(3 / rows.shape[1])
    return rows.reshape(shape).astype(np.float32)


def _rule(network: str, key: str, shape: tuple[int, ...], names: set[str]) -> Rule:
    for networks, pattern, axes, rule in RULES:
        fits = (not networks or network in networks) and axes in (None, len(shape))
        if fits and re.search(pattern, key):
            return rule
    if len(shape) > 1:
        return "row", 1, 0
    if not key.endswith(".weight"):
        return "aff", 0, 0.1
    is_batch_norm = key.removesuffix("weight") + "running_var" in names
    return ("aff", 0.1, 0.01) if is_batch_norm else ("aff", 1, 0.1)


def weights(
    network: str, table: Mapping[str, tuple[int, ...]], training_only: tuple[str, ...] = ()
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """All tensors of a network but kernels, counters and what is for training only."""
    for key, shape in table.items():
        if not key.startswith(training_only) and not re.search("cqt|num_batches_tracked", key):
            yield key, filled(network, key, shape, set(table))
