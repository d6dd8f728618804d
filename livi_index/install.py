"""Installing and removing model bundles, all or nothing.

A source is a folder, a ``.zip`` of one, or an ``https://`` address of such a ``.zip``; nothing is
fetched unless the user gives an address. Only ``card.json`` and the files that it lists are taken,
each of exactly the size that it states, into a folder beside the place where the bundle will lie;
they are verified there and then renamed, so a half installed bundle is never seen. A download that
breaks off goes on where it stopped, the next time too.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import IO

from livi_index.downloads import Watcher, download, forget
from livi_index.errors import BadModel
from livi_index.models import (
    CARD,
    Bundle,
    ModelCard,
    bundled_dir,
    models_dir,
    open_bundle,
    parse_card,
    verify,
)

CARD_LIMIT_BYTES = 1 << 20
COPY_BYTES = 1 << 20
DOWNLOADS = ".downloads"

Opener = Callable[[str], AbstractContextManager[IO[bytes]]]


def install_model(
    source: str | Path, *, replace: bool = False, watch: Watcher | None = None
) -> Bundle:
    """Copy a verified bundle into ``models_dir()`` under its card's name.

    ``watch`` is told how many bytes of a download are here, and how many there are in all.

    Raises BadModel where the source is no bundle, is damaged, or its name is taken (``replace``
    allows that for installed bundles, never for those of the package).
    """
    if str(source).startswith(("http://", "https://")):
        return _install_download(str(source), replace, watch)
    path = Path(source)
    with _opener(path) as opener:
        return _install(opener, str(source), replace)


def remove_model(name: str) -> None:
    """Delete an installed bundle. Raises BadModel where no bundle of that name is installed."""
    target = models_dir() / name
    if PurePosixPath(name).name != name or not (target / CARD).is_file():
        raise BadModel(f"no installed model is called {name!r} in {models_dir()}")
    with _staging(models_dir()) as staging:
        target.rename(staging / name)


def _install(opener: Opener, where: str, replace: bool) -> Bundle:
    with opener(CARD) as file:
        raw = file.read(CARD_LIMIT_BYTES)
    card = parse_card(raw, f"{where}: {CARD}")
    target = models_dir() / card.name
    if (bundled_dir() / card.name).exists():
        raise BadModel(f"{card.name} is a model of this package; give {where} another name")
    if target.exists() and not replace:
        raise BadModel(f"{card.name} is installed already; remove it first, or replace it")
    with _staging(models_dir()) as staging:
        folder = staging / card.name
        folder.mkdir()
        (folder / CARD).write_bytes(raw)
        _copy_files(opener, card, folder)
        verify(open_bundle(folder))
        if target.exists():
            target.rename(staging / "replaced")
        folder.rename(target)
    return open_bundle(target, "installed")


def _copy_files(opener: Opener, card: ModelCard, folder: Path) -> None:
    for name, expected in card.files.items():
        with opener(name) as reader, (folder / name).open("xb") as writer:
            left = expected.size
            # Never more than the card states: a small archive may unpack to terabytes.
            while left > 0 and (piece := reader.read(min(COPY_BYTES, left))):
                writer.write(piece)
                left -= len(piece)
            if left > 0 or reader.read(1):
                raise BadModel(f"{name} is not of the size that its card states")
            writer.flush()
            os.fsync(writer.fileno())


@contextlib.contextmanager
def _staging(root: Path) -> Iterator[Path]:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".installing-", dir=root) as staging:
        yield Path(staging)


@contextlib.contextmanager
def _opener(path: Path) -> Iterator[Opener]:
    if path.is_dir():
        yield lambda name: _open_file(path / name)
        return
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise BadModel(f"{path} is neither a folder nor a zip file ({error})") from error
    with archive:
        cards = [n for n in archive.namelist() if PurePosixPath(n).name == CARD]
        if len(cards) != 1:
            raise BadModel(f"{path} holds {len(cards)} files called {CARD}, not one")
        top = cards[0].removesuffix(CARD)
        try:
            yield lambda name: _open_member(archive, top + name)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadModel(f"{path} is damaged ({error}); fetch it again") from error


def _open_file(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise BadModel(f"{path} cannot be read ({error}); the model is incomplete") from error


def _open_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return archive.open(name)
    except (KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise BadModel(f"{archive.filename} does not hold a readable {name} ({error})") from error


def _install_download(url: str, replace: bool, watch: Watcher | None) -> Bundle:
    part = download(url, models_dir() / DOWNLOADS, watch)
    try:
        bundle = install_model(part, replace=replace)
    except BadModel as error:
        forget(part)
        raise BadModel(f"what {url} gives cannot be installed: {error}") from error
    forget(part)
    return bundle
