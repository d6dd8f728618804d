"""TensorFlow checkpoints, without TensorFlow: a file of arrays, and an index of where each lies.

The index is a table as LevelDB writes it: sorted keys in blocks, each key given by how much of its
beginning it shares with the one before, and a footer that says where the block of blocks is. Its
values are small protocol buffers: type, shape, offset and length of an array in the data file.
What is read here is what training with one process leaves: one data file, no slices, no
compression; anything else is a ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

FOOTER_BYTES = 48
MAGIC = 0xDB4775248B80FB57
FLOAT32 = 1  # in the numbering of TensorFlow's types
Fields = dict[int, list[int | bytes]]


def read_checkpoint(index: bytes, data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The float32 arrays of a checkpoint by name, from its two files. Raises ValueError."""
    footer = index[-FOOTER_BYTES:]
    if int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError("this is no index of a checkpoint")
    handle = _varints(footer)
    _ = next(handle), next(handle)  # of the block of statistics, which is empty
    arrays = {}
    for _, place in _entries(_block(index, next(handle), next(handle))):
        numbers = _varints(place)
        for name, entry in _entries(_block(index, next(numbers), next(numbers))):
            if name:  # the entry without a name is about the whole
                arrays[name.decode()] = _array(_fields(entry), data)
    return arrays


def _block(index: bytes, offset: int, size: int) -> bytes:
    if index[offset + size] != 0:
        raise ValueError("the index is compressed")
    return index[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block, at whose end are places to start from that are not needed."""
    end = len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        n_key, at = _varint(block, at)
        n_value, at = _varint(block, at)
        key = key[:shared] + block[at : at + n_key]
        yield key, block[at + n_key : at + n_key + n_value]
        at += n_key + n_value


def _array(entry: Fields, data: bytes) -> npt.NDArray[np.float32]:
    """What an entry describes: 1 type, 2 shape, 3 data file, 4 offset, 5 bytes, 7 slices."""
    (kind,), (size,) = entry.get(1, [0]), entry.get(5, [0])
    (file,), (offset,) = entry.get(3, [0]), entry.get(4, [0])
    if kind != FLOAT32 or file != 0 or 7 in entry:
        raise ValueError("the checkpoint has other arrays than whole ones of float32 in one file")
    assert isinstance(offset, int) and isinstance(size, int)
    shape = []
    for raw in entry.get(2, []):
        assert isinstance(raw, bytes)
        for dimension in _fields(raw).get(2, []):
            assert isinstance(dimension, bytes)
            shape += _fields(dimension).get(1, [0])
    values = np.frombuffer(data[offset : offset + size], "<f4")
    return values.reshape([int(n) for n in shape])


def _fields(message: bytes) -> Fields:
    """The fields of a protocol buffer by number: integers and bytes, nothing parsed within."""
    found: Fields = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind, value = tag & 7, 0
        if kind == 0:
            value, at = _varint(message, at)
            found.setdefault(tag >> 3, []).append(value)
            continue
        length = {1: 8, 5: 4}.get(kind)
        if kind == 2:
            length, at = _varint(message, at)
        if length is None:
            raise ValueError("the index holds no protocol buffers")
        found.setdefault(tag >> 3, []).append(message[at : at + length])
        at += length
    return found


def _varints(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        value, at = _varint(raw, at)
        yield value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the least ones first, and where it ends."""
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        shift += 7
        at += 1
        if raw[at - 1] < 0x80:
            return value, at
