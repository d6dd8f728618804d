"""A library's own copies of the models it was built with: ``models/<model_id>/`` in its folder.

What comes with a new version of this program is another model, and answers of a library do not
change by it. Only where it is the same model, with spaces that the copy lacks, does the copy grow.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from livi_index.database import translated
from livi_index.errors import BadModel
from livi_index.generations import Manifest
from livi_index.models import CARD, Bundle, extends, find_model, open_bundle, verify
from livi_index.vectors import write_whole

KEPT = "models"


def keep_bundle(library: str | Path, bundle: Bundle) -> None:
    """Put a copy of a model into a library, so that it can be asked with it for ever, or into the
    copy that is there the spaces that it lacks.

    Raises BadModel where the bundle is damaged, LibraryNotWritable where the copy cannot be made.
    """
    folder = Path(library) / KEPT / bundle.card.model_id
    kept = open_bundle(folder) if (folder / CARD).is_file() else None
    if kept is not None and not extends(bundle.card, kept.card):
        return
    verify(bundle)
    with translated(folder):
        if kept is not None:
            # Files that are there are the same; the card goes last, in one step.
            for name in (*(set(bundle.card.files) - set(kept.card.files)), CARD):
                write_whole(folder / name, (bundle.path / name).read_bytes())
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = folder.with_name(f".{folder.name}.draft")
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
        draft.mkdir()
        try:
            for name in (*bundle.card.files, CARD):
                shutil.copyfile(bundle.path / name, draft / name)
            draft.rename(folder)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def bundle_for(library: Path, manifest: Manifest, model: Bundle | None) -> Bundle:
    """The model that a generation was made with: ``model``, else what is at hand of it.

    Raises BadModel where it is another one, or none is at hand.
    """
    made_with = f"{library} was built with model {manifest.model_name} {manifest.model_version}"
    if model is None:
        kept = library / KEPT / manifest.model_id
        try:
            return open_bundle(kept) if kept.is_dir() else find_model(manifest.model_id)
        except BadModel as error:
            raise BadModel(
                f"{made_with}, which is not at hand; `livi-index models install` it, name its"
                " folder with --model, or build the library anew with a model that is"
            ) from error
    if model.card.model_id != manifest.model_id:
        raise BadModel(
            f"{made_with} and cannot be asked with {model.card.name} {model.card.version} from"
            f" {model.path}; leave --model away, or build the library anew with it"
        )
    return model


def at_hand(place: Path, model_id: str) -> Bundle:
    """The library's own copy of a model, or an edition of it that has come with more spaces.

    Raises BadModel where there is none.
    """
    folder = place / KEPT / model_id
    if not folder.is_dir():
        return find_model(model_id)
    try:
        return fullest(place, find_model(model_id))
    except BadModel:
        return open_bundle(folder)


def fullest(place: Path, bundle: Bundle) -> Bundle:
    """The bundle if it has more spaces than the library's copy of that model, else the copy, if
    there is one."""
    folder = place / KEPT / bundle.card.model_id
    if not (folder / CARD).is_file():
        return bundle
    kept = open_bundle(folder)
    return bundle if extends(bundle.card, kept.card) else kept
