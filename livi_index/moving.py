"""From one model to another, while the one that is there answers.

Vectors of two models say nothing about each other, so a library is moved as a whole: night after
night the new model hears recordings that it has not heard, and when none is left it takes over.
Until then the old one answers, also about songs that are new, which it hears first.

What was chosen is kept in the database (``ModelChoice``), and both models in the library, so later
runs go on by themselves and need nothing but the library. For readers, who leave the database
alone, how far the move has come is noted beside it, in ``move.json``.

A recording that the new model cannot hear any more counts as done where its file is there and
fails, and waits where the file is not: a disk that is away loses nothing by a move. Nor does one
that suddenly refuses more than a tenth of all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from livi_index.audio import decoders
from livi_index.database import PUBLISHED, translated
from livi_index.encoders import AudioEncoder
from livi_index.errors import BadModel, LibraryDamaged, LibraryNotFound
from livi_index.generations import MANIFEST, current, folder_name, generations
from livi_index.guard import MAX_SHARE
from livi_index.keeping import KEPT, at_hand, fullest, keep_bundle
from livi_index.models import (
    DEFAULT_MODEL,
    Bundle,
    bundled_dir,
    find_model,
    open_bundle,
    verify,
)
from livi_index.planning import REFUSED, Plan, Planner, worth_a_try
from livi_index.records import KnownFile, ModelChoice
from livi_index.scan import AudioFile
from livi_index.store import Store
from livi_index.vectors import write_whole
from livi_index.vocals import VocalDetector

NOTE = "move.json"
SHORTEST_ID = 8  # digits of a model_id that name a model


@dataclass(frozen=True)
class Models:
    """``own`` answers, ``target`` is to; the same but during a move. ``before`` is what held until
    now, None for a library that knows no model yet."""

    own: Bundle
    target: Bundle
    before: ModelChoice | None

    @property
    def moving(self) -> bool:
        return self.own.card.model_id != self.target.card.model_id

    @property
    def choice(self) -> tuple[str, str]:
        return self.own.card.model_id, self.target.card.model_id


@dataclass(frozen=True)
class Move:
    """How far a move has come, in recordings: ``total = done + failed + left``."""

    answers: str  # name and version of the model that does, until the other is complete
    model: str  # the other one
    model_version: str
    model_id: str
    since: float  # seconds since 1970
    total: int  # recordings that lie somewhere
    done: int
    failed: int  # their files cannot be used any more
    left: int
    absent: int  # of those left: not there, or not as they were when they were last walked
    complete: bool  # the new model has taken over

    @property
    def share(self) -> float:
        """Of all, that the new model has nothing left to do with."""
        return 1 - self.left / self.total if self.total else 1.0

    def after(self, n: int) -> Move:
        """The same, when n more recordings are done."""
        return replace(self, done=self.done + n, left=self.left - n)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as all commands print them."""
        return {**asdict(self), "share": round(self.share, 4)}


def models_for(place: Path, store: Store, wanted: str | None) -> Models:
    """With which models a run works; ``wanted`` is a name, the begin of a model_id or a folder.

    Nothing is written. Raises BadModel where one is not at hand, or cannot be used for a move.
    """
    choice = store.choice() or _implied(place, store)
    if wanted is None:
        own = own_model(place, store)
        target = own
        if choice is not None and choice.target != choice.answers:
            target = at_hand(place, choice.target)
        return Models(own, target, choice)
    bundle = _named(place, wanted)
    model_id = bundle.card.model_id
    here = {choice.answers} if choice else {model_id}
    # What answers need not be chosen to be kept, and where nothing does there is no move.
    if model_id in here | {_answering(place)} or not generations(place):
        verify(bundle)  # also where the library's own copy is taken: who names a model means it
        bundle = fullest(place, bundle)
        return Models(bundle, bundle, choice)
    if choice is None or choice.target != model_id:
        _try_out(bundle)
    return Models(own_model(place, store), bundle, choice)


def own_model(place: Path, store: Store) -> Bundle:
    """The model whose vectors answer, for a new library the default one. Raises BadModel."""
    choice = store.choice() or _implied(place, store)
    return at_hand(place, choice.answers) if choice else find_model(DEFAULT_MODEL)


def _implied(place: Path, store: Store) -> ModelChoice | None:
    """Where nothing was ever chosen: what answers, else what was begun with."""
    model_id = _answering(place)
    if model_id is None:
        query = "SELECT model_id FROM analyses GROUP BY model_id ORDER BY count(*) DESC LIMIT 1"
        found = store.ask(query)
        model_id = found[0][0] if found else None
    return ModelChoice(model_id, model_id, 0.0) if model_id else None


def _answering(place: Path) -> str | None:
    try:
        with current(place) as generation:
            return generation.manifest.model_id
    except (LibraryDamaged, LibraryNotFound):
        return None


def _named(place: Path, wanted: str) -> Bundle:
    """A model of the library by its id, any model by its name or folder, then one by its name."""
    kept = list(_kept(place))
    by_id = [b for b in kept if b.card.model_id.startswith(wanted)]
    if len(wanted) >= SHORTEST_ID and len(by_id) == 1:
        return by_id[0]
    try:
        return find_model(wanted)
    except BadModel:
        by_name = [bundle for bundle in kept if bundle.card.name == wanted]
        if len(by_name) != 1:
            raise
        return by_name[0]


def _kept(place: Path) -> Iterator[Bundle]:
    for folder in sorted((place / KEPT).glob("[0-9a-f]*")):
        with contextlib.suppress(BadModel):
            yield open_bundle(folder)


def _try_out(bundle: Bundle) -> None:
    """Open what a build needs of a model: it is no use to find out in the middle of a night."""
    VocalDetector(bundle)
    for space in bundle.card.space_names:
        AudioEncoder(bundle, space)


def begin(place: Path, store: Store, models: Models) -> tuple[Models, tuple[str, ...]]:
    """Write down what is chosen, and keep the models; what to say of that.

    Raises BadModel where the new one is damaged, LibraryNotWritable.
    """
    if models.moving:
        keep_bundle(place, models.target)
        target = open_bundle(place / KEPT / models.target.card.model_id)
        models = replace(models, target=target)
    before = models.before
    if before is not None and before[:2] != models.choice:
        store.choose(ModelChoice(*models.choice, time.time()))
    if models.moving:
        write_note(place, replace(standing(store, models), complete=False))
    else:
        remove_note(place)
    if before is None or before.target in (before.answers, *models.choice):
        return models, ()
    given_up = f"the move to model {_title(place, before.target)} is given up"
    return models, (f"{given_up}; what it has heard is kept until a build with --prune",)


def _title(place: Path, model_id: str) -> str:
    try:
        return title(at_hand(place, model_id))
    except BadModel:
        return model_id[:12]


def title(bundle: Bundle) -> str:
    """How a model is called in a sentence."""
    return f"{bundle.card.name} {bundle.card.version}"


class Transfer:
    """The part of a run that moves a library on."""

    def __init__(
        self,
        store: Store,
        models: Models,
        *,
        retry: Collection[str] = (),
        leave_absent: bool = False,
    ) -> None:
        """``leave_absent``: recordings that are not where they were keep nothing from happening."""
        self.bundle = models.target
        self._store = store
        self._models = models
        self._leave_absent = leave_absent
        card = models.target.card
        self.planner = Planner(store, card.model_id, card.space_names, retry=retry)
        unheard = store.unheard(card.model_id, card.space_names)
        there = list(_as_they_were(unheard))
        self._absent = {known.recording_id for known in unheard.values()}
        self._absent.difference_update(number for _, number in there)
        self.plan: Plan = self.planner.plan_known(there)

    def standing(self) -> Move:
        """How far the move has come, by what is committed."""
        return standing(self._store, self._models, self._absent, leave_absent=self._leave_absent)


def standing(
    store: Store,
    models: Models,
    absent: Collection[int | None] = (),
    *,
    leave_absent: bool = False,
) -> Move:
    """How far a move has come, where the files of these recordings are not as they were."""
    card, choice = models.target.card, store.choice()
    unheard = store.unheard(card.model_id, card.space_names)
    lacking = {known.recording_id for known in unheard.values()}
    total = store.n_present()
    left = lacking - _failed(store, unheard, total)
    gone = left.intersection(absent)
    begun = choice is not None and choice.target == card.model_id
    return Move(
        answers=title(models.own),
        model=card.name,
        model_version=card.version,
        model_id=card.model_id,
        since=choice.since if choice and begun else time.time(),
        total=total,
        done=total - len(lacking),
        failed=len(lacking) - len(left),
        left=len(left),
        absent=len(gone),
        complete=left <= (gone if leave_absent else set()),
    )


def _failed(store: Store, unheard: dict[str, KnownFile], total: int) -> set[int | None]:
    """Recordings none of whose files is worth another try."""
    failures, at_hand = store.failures(), decoders()
    hopeful, refused = set[int | None](), set[int | None]()
    for path, known in unheard.items():
        failure = failures.get(path)
        if failure is not None and failure.code in REFUSED:
            refused.add(known.recording_id)
        elif failure is None or worth_a_try(failure, at_hand):
            hopeful.add(known.recording_id)
    if len(refused - hopeful) > MAX_SHARE * total:
        hopeful |= refused
    return {known.recording_id for known in unheard.values()} - hopeful


def _as_they_were(files: dict[str, KnownFile]) -> Iterator[tuple[AudioFile, int]]:
    """Of known files, those that look as they did, with their recordings."""
    for name, known in files.items():
        try:
            status = os.stat(name)
        except OSError:
            continue
        looks = (status.st_size, status.st_mtime_ns, status.st_ino)
        if looks == (known.size, known.mtime_ns, known.inode) and known.recording_id is not None:
            path = Path(name)
            yield AudioFile(path, path.parent, *looks, status.st_dev), known.recording_id


def write_note(place: Path, move: Move) -> None:
    """Tell readers how far a move has come. LibraryNotWritable."""
    path = place / NOTE
    with translated(path):
        write_whole(path, json.dumps(asdict(move), indent=1).encode())


def remove_note(place: Path) -> None:
    """Tell readers that nothing is being moved."""
    with translated(place / NOTE):
        (place / NOTE).unlink(missing_ok=True)


def read_note(place: Path, answers: str) -> Move | None:
    """The move that is under way in a library that answers with this model, if one is."""
    try:
        move = Move(**json.loads((place / NOTE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # a note, not a part of the library
    return None if move.model_id == answers else move


def newer_bundled(bundle: Bundle) -> str | None:
    """The version of the model of this name that came with this package, if it is a newer one."""
    folder = bundled_dir() / bundle.card.name
    try:
        card = open_bundle(folder, "bundled").card if folder.is_dir() else bundle.card
        newer = int(card.version) > int(bundle.card.version)
    except (BadModel, ValueError):
        return None
    return card.version if newer and card.model_id != bundle.card.model_id else None


def forget_models(place: Path, store: Store, models: Models) -> list[str]:
    """Delete what is kept of models with which no generation on the disk answers, and that are not
    chosen; what to say of that. Raises LibraryNotWritable."""
    try:
        needed = {*models.choice, *_published(place)}
    except (OSError, ValueError, KeyError, TypeError):
        return []  # a generation that cannot be read: nothing is known to be needless
    bundles = {b.card.model_id: b for b in _kept(place) if b.card.model_id not in needed}
    gone = store.forget_models(needed)
    for bundle in bundles.values():
        with translated(bundle.path):
            shutil.rmtree(bundle.path)
    names = {**dict.fromkeys(gone, ""), **{key: title(b) for key, b in bundles.items()}}
    return [
        f"model {name or key[:12]} is deleted from the library, with its vectors of"
        f" {gone.get(key, 0):,} recordings"
        for key, name in names.items()
    ]


def _published(place: Path) -> Iterator[str]:
    """The models of all generations on the disk."""
    for number in generations(place):
        manifest = place / PUBLISHED / folder_name(number) / MANIFEST
        yield json.loads(manifest.read_bytes())["model_id"]
