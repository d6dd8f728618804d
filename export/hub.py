"""Models of others, by folder or by name: ``PATH``, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

A folder is used as it lies there, and nothing is asked of any network. A name is looked for among
what huggingface_hub has kept on this machine, and fetched where it is not: configurations,
tokenizers and tensors only, no code and no pickles. What was found says which revision it is, so
that whatever is made with it can say so too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livi_index.errors import BadInput, BadModel

WANTED = ("*.json", "*.jsonl", "*.safetensors", "*.model", "*.txt")
UNWANTED = ("onnx/*", "openvino/*", "*/.*")
_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True)
class Found:
    """A model's folder, and its name with the revision, or the folder's where it has no other."""

    path: Path
    name: str


def find(model: str, option: str) -> Found:
    """The folder of a model; ``option`` is where a user can name another, such as ``--whisper``.

    Raises BadInput for what is neither a folder nor a name, and where a name is not on this machine
    and cannot be fetched: with the way to bring it here.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Found(folder, folder.resolve().name)
    if not _NAME.fullmatch(model) or folder.is_absolute() or model.startswith("."):
        raise BadInput(f"there is no folder {model}; give {option} a folder or OWNER/NAME")
    name, _, revision = model.partition("@")
    path = _fetched(name, revision or None, option)
    return Found(path, f"{name}@{path.name}")


def _fetched(name: str, revision: str | None, option: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=[*WANTED], ignore_patterns=[*UNWANTED]
        )
    except RepositoryNotFoundError as error:
        raise BadInput(f"{name} is not on the hub, or not for everybody; see {option}") from error
    except RevisionNotFoundError as error:
        raise BadInput(f"{name} has no revision {revision} on the hub; see {option}") from error
    except (OSError, HfHubHTTPError) as error:
        raise BadInput(
            f"{name} is not on this machine and the hub cannot be reached: where there is a network"
            f" run `hf download {name} --local-dir FOLDER`, bring the folder here, and give"
            f" {option} FOLDER"
        ) from error
    return Path(folder)


def loaded(kind: Any, folder: Path, name: str, *, other: str = "", **options: Any) -> Any:
    """A model, tokenizer or extractor of transformers from a folder, a model in float32.

    Raises BadModel where it is none, lacks weights (they would be random), or brings code of its
    own to run, which is never done; ``other`` is named as one that does not.
    """
    import torch

    is_model = hasattr(kind, "from_config") or hasattr(kind, "_from_config")
    if is_model:
        # By default transformers takes the type that the file happens to have.
        options |= {"dtype": torch.float32, "output_loading_info": True}
    if kind.__name__.startswith("Auto"):
        options["trust_remote_code"] = False  # said, else a terminal is asked
    try:
        found = kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = f"; {other} needs no code of its own" if "trust_remote_code" in str(error) else ""
        raise BadModel(f"{name} cannot be opened ({folder}): {reason}{hint}") from error
    if not is_model:
        return found
    model, facts = found
    if missing := [key for key in facts["missing_keys"] if not key.startswith("pooler.")]:
        raise BadModel(f"{name} lacks weights ({folder}): {', '.join(sorted(missing)[:3])} …")
    return model.eval().requires_grad_(False)


def quiet() -> None:
    """Let transformers say what is wrong only: no bars, no advice."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
