"""Files from an https:// address, gigabytes of them, that go on where they stopped.

    address ─▶ FOLDER/<digest of the address>.part, and beside it the file's tag there

What came before a connection broke stays, within a run and until the next: the server is asked for
the rest, of that very file, and sends all of it where it has another one by now or cannot send
parts. What came is not trusted: who asked compares it with a digest.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from livi_index.errors import BadModel

ATTEMPTS = 4  # in a row that bring nothing
PIECE_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 30
RANGE_NOT_SATISFIABLE = 416

# Bytes that are here, and in all; 0 where the server does not say.
Watcher = Callable[[int, int], None]


def download(url: str, folder: Path, watch: Watcher | None = None) -> Path:
    """The whole file, in ``folder``; the caller deletes it by ``forget``.

    Raises BadModel where it cannot be fetched; what came stays for the next time.
    """
    if not url.startswith("https://"):
        raise BadModel(f"{url} is not safe to install from; give an https:// address")
    part = folder / (hashlib.sha256(url.encode()).hexdigest()[:16] + ".part")
    failures, best = 0, _size(part)
    while failures < ATTEMPTS:
        try:
            if _fetch(url, part, watch or (lambda done, total: None)):
                return part
            reason = "the connection broke"
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                raise BadModel(f"{url} cannot be fetched ({error})") from error
            reason = str(error)
        failures = 0 if _size(part) > best else failures + 1
        best = max(best, _size(part))
    raise BadModel(
        f"{url} cannot be fetched ({reason}); the first {_size(part) / 1e6:.1f} MB are kept, and "
        "the same command goes on from there"
    )


def forget(part: Path) -> None:
    """Delete what ``download`` left."""
    part.unlink(missing_ok=True)
    _tag_file(part).unlink(missing_ok=True)


def _fetch(url: str, part: Path, watch: Watcher) -> bool:
    """Fetch what lacks; whether the file is whole then."""
    request = urllib.request.Request(url)
    if here := _size(part):
        request.add_header("Range", f"bytes={here}-")
        request.add_header("If-Range", _tag_file(part).read_text())
    try:
        answer = urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{here}":
            return True
        forget(part)
        return False
    with answer:
        if not answer.geturl().startswith("https://"):
            raise BadModel(f"{url} leads to an address that is not https://")
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            here = 0
        total = here + int(answer.headers.get("Content-Length") or 0)
        return _append(answer, part, here, total, watch)


def _append(
    answer: http.client.HTTPResponse, part: Path, here: int, total: int, watch: Watcher
) -> bool:
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("r+b" if here else "wb") as file:
        _tag_file(part).write_text(tag)
        file.seek(here)
        while piece := answer.read(PIECE_BYTES):
            file.write(piece)
            here += len(piece)
            watch(here, total)
        file.flush()
        os.fsync(file.fileno())
    return not total or here == total


def _size(part: Path) -> int:
    """Bytes that are here and that the server can go on from: a weak tag names no bytes."""
    tag = _tag_file(part)
    if not part.is_file() or not tag.is_file():
        return 0
    known = tag.read_text()
    return part.stat().st_size if known and not known.startswith("W/") else 0


def _tag_file(part: Path) -> Path:
    return part.with_suffix(".tag")
