"""DuckDB files, opened shut off from the world, by one writer at a time.

A connection made here loads no extensions, opens no other files (the writer: only those that it
publishes) and takes no new settings. What DuckDB says when a file is held, damaged or cannot be
written is told as the errors of ``livi_index.errors``.

``write_lock`` is the lock of a whole library. The kernel keeps it, so it dies with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

from livi_index.errors import (
    BadInput,
    LibraryDamaged,
    LibraryLocked,
    LibraryNotWritable,
    LiviError,
)

LOCK = "LOCK"
PUBLISHED = "published"
STORAGE_FORMAT = "v1.5.0"  # DuckDB 1.5 can read what 2.0 writes

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "threads": "1",
}


def open_catalog(path: Path) -> duckdb.DuckDBPyConnection:
    """Open a published catalog for reading; LibraryDamaged if it is not one."""
    config = {**_CONFIG, "enable_external_access": "false", "lock_configuration": "true"}
    with translated(path, opening=True):
        return duckdb.connect(str(path), read_only=True, config=config)


@contextlib.contextmanager
def write_lock(library_dir: str | Path) -> Iterator[None]:
    """Be the one writer of a library; LibraryLocked, naming the other, if there is one.

    The kernel lets go of the lock when the process ends, however it ends.
    """
    path = Path(library_dir) / LOCK
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(handle, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked(Path(library_dir), _holder(file.read())) from None
        except OSError as error:
            raise BadInput(
                f"{library_dir} cannot be locked ({error.strerror}): this file system keeps no"
                " locks; put the library on a local disk"
            ) from error
        me = {"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()}
        with translated(path):
            file.truncate()
            file.write(json.dumps(me))
            file.flush()
        yield


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"pid {int(holder['pid'])} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "an unnamed process"


def _locked(what: Path, holder: str) -> LibraryLocked:
    return LibraryLocked(
        f"{what} is being written by another process ({holder}); wait until it is done", holder
    )


def open_database(path: Path, *, publishing_to: Path) -> duckdb.DuckDBPyConnection:
    """Open a database for writing, made if it is not there; errors are DuckDB's own.

    Besides its own file it can write only into the folder ``publishing_to``.
    """
    config = {
        **_CONFIG,
        "storage_compatibility_version": STORAGE_FORMAT,
        "checkpoint_threshold": "128MB",  # the default of 16 MB leaves a third of the file empty
        "memory_limit": "512MB",
    }
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BadInput(f"{displayed(path)}: the library's own folder must be UTF-8") from None
    connection = duckdb.connect(str(path), config=config)
    published = quoted(f"{publishing_to}/")
    # From here on it touches nothing but itself and what it publishes, whatever it is asked.
    for setting in (f"allowed_directories = [{published}]", "enable_external_access = false",
                    "lock_configuration = true"):  # fmt: skip
        connection.execute(f"SET {setting}")
    return connection


def quoted(value: str | Path) -> str:
    """A string as SQL writes it."""
    return "'" + str(value).replace("'", "''") + "'"


def displayed(path: Path) -> str:
    """A path as text; bytes that are none become U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


_DAMAGED = re.compile("orrupt|checksum|not a valid DuckDB|replaying WAL|enough bytes")
_REFUSED = re.compile(
    "No space left|File too large|quota|Read-only file system|Permission denied|fsync failed"
    "|[Cc]ould not (write|truncate|remove|move)"
)
_UNREADABLE = re.compile("[Cc]ould not read|Input/output error|Too many open files")


@contextlib.contextmanager
def translated(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Tell the errors of DuckDB and of the system about ``path`` as ours, where they are ours.

    ``opening``: whatever DuckDB says then means that the file is no database.
    """
    try:
        yield
    except (duckdb.Error, OSError) as error:
        if isinstance(error, LiviError) or (told := _told(path, error, opening)) is None:
            raise
        raise told from error


def _told(path: Path, error: duckdb.Error | OSError, opening: bool) -> LiviError | None:
    text = str(error)
    if "Could not set lock" in text:
        pid = re.search(r"PID (\d+)", text)
        return _locked(path, f"pid {pid[1]}" if pid else "an unnamed process")
    if isinstance(error, OSError):
        return LibraryNotWritable(f"{path} could not be written: {text}")
    if not _DAMAGED.search(text):
        # What DuckDB says of one refusal, and of all that comes after it.
        if _REFUSED.search(text):
            return LibraryNotWritable(f"{path} could not be written: {text}")
        if _UNREADABLE.search(text):
            return LibraryDamaged(f"{path} cannot be read: {text}; nothing in it was changed")
        if not (opening or "nvalidated" in text) or isinstance(error, duckdb.ProgrammingError):
            return None
    return LibraryDamaged(
        f"{path} is damaged: {text.splitlines()[0]}\nWhat was published still answers"
        " queries. `livi-index check --repair` restores the database from that, or put a"
        " backup of this file in its place."
    )
